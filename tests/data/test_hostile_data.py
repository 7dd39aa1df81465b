"""Images, labels and cards as strangers make them: read, or named with one line; and sets larger than memory."""

import os
import sys
import zipfile
from io import BytesIO

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PILImage
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from advbn_hf.data.images import BadImages, ImageDataset
from advbn_hf.data.loading import check_labels, class_names, load_images
from advbn_hf.data.streaming import StreamedImageDataset
from advbn_hf.data.transforms import EvaluationTransform, TrainingTransform
from advbn_hf.errors import InputError

PROCESSORS = {
    "square": ViTImageProcessorPil(size={"height": 32, "width": 32}, do_normalize=False),
    "shortest edge": ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=0.875, do_normalize=False),
}
TRANSFORMS = pytest.mark.parametrize("transform", [EvaluationTransform, TrainingTransform])
RED = (255, 0, 0)


def encoded(image, kind="PNG", **options):
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def red(mode="RGB", size=(40, 30)):
    return PILImage.new("RGB", size, RED).convert(mode)


def animated(kind):
    frames = [PILImage.new("RGB", (40, 30), (0, 0, blue)) for blue in (255, 128)]
    return encoded(red(), kind, save_all=True, append_images=frames)


def garbled_exif():
    """A JPEG whose EXIF block is no EXIF at all."""
    return encoded(red(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + bytes(range(256)))


def sixteen_bit():
    pixels = np.full((30, 40), 0xFF00, np.uint16)
    return encoded(PILImage.fromarray(pixels))


READABLE = {
    "one pixel": (encoded(red(size=(1, 1))), RED),
    "20,000 wide": (encoded(red(size=(20_000, 40))), RED),
    "20,000 high": (encoded(red(size=(40, 20_000))), RED),
    "CMYK": (encoded(red("CMYK"), "JPEG", quality=95), RED),
    "palette": (encoded(red("P")), RED),
    "16 bits": (sixteen_bit(), (255, 255, 255)),
    "animated GIF": (animated("GIF"), RED),
    "animated PNG": (animated("PNG"), RED),
    "pages of a TIFF": (animated("TIFF"), RED),
    "garbled EXIF": (garbled_exif(), RED),
    "a GIF called .jpg": (encoded(red(), "GIF"), RED),
}


def rows(data, label=0):
    features = Features({"image": Image(decode=False), "label": ClassLabel(names=["a", "b"])})
    return Dataset.from_dict({"image": [{"bytes": data, "path": "x.jpg"}], "label": [label]}, features=features)


@pytest.mark.parametrize("name", READABLE)
@pytest.mark.parametrize("processor", PROCESSORS.values(), ids=PROCESSORS)
@TRANSFORMS
def test_odd_images_are_read(name, processor, transform):
    data, colour = READABLE[name]
    values = ImageDataset(rows(data), transform(processor))[0]["pixel_values"]
    assert values.shape == (3, 32, 32)
    expected = torch.tensor(colour)[:, None, None] / 255
    assert (values - expected).abs().max() < 0.06


def bomb():
    """A PNG of a few kilobytes that holds 400 million pixels."""
    limit, PILImage.MAX_IMAGE_PIXELS = PILImage.MAX_IMAGE_PIXELS, None
    try:
        return encoded(PILImage.new("1", (20_000, 20_000)))
    finally:
        PILImage.MAX_IMAGE_PIXELS = limit


# A line one pixel high would take gigabytes once its shorter side has been brought to 224.
@pytest.mark.parametrize(
    ("make", "reason"), [(bomb, "decompression bomb"), (lambda: encoded(red(size=(20_000, 1))), "20000 x 1 pixels")]
)
def test_images_that_would_fill_the_memory_are_bad_images(tmp_path, make, reason):
    data = make()
    assert len(data) < 100_000
    before = psutil.Process().memory_info().rss
    transform = EvaluationTransform(PROCESSORS["shortest edge"])
    with pytest.raises(InputError, match=rf"row 0 \(x.jpg\): .*{reason}"):
        ImageDataset(rows(data), transform)[0]
    assert psutil.Process().memory_info().rss - before < 100e6
    bad = BadImages(tmp_path / "bad.jsonl")
    assert ImageDataset(rows(data), transform, bad)[0]["pixel_values"] is None
    assert bad.summary() == ["row 0 (x.jpg)"]


@pytest.mark.parametrize("label", [2, 2**62])
@pytest.mark.parametrize("card", ["names", "integers"])
def test_labels_beyond_the_classes(tmp_path, label, card):
    """A parquet file's own note of its features may say two classes and hold others."""
    feature = ClassLabel(names=["a", "b"]) if card == "names" else Value("int64")
    features = Features({"image": Image(), "label": feature})
    table = pa.table(
        {"image": [{"bytes": encoded(red()), "path": None}] * 3, "label": pa.array([0, 1, label], pa.int64())},
        schema=features.arrow_schema,
    )
    pq.write_table(table, tmp_path / "train.parquet")
    dataset = load_images(str(tmp_path), "train")
    with pytest.raises(InputError, match=rf"1 rows .*{label} .*row 2"):
        check_labels(dataset, 2)
    stream = load_images(str(tmp_path), "train", streaming=True)
    check_labels(stream, 2)
    images = StreamedImageDataset(stream, EvaluationTransform(PROCESSORS["square"]), num_labels=2)
    with pytest.raises(InputError, match=rf"row 2: .*label {label}"):
        for _ in images:
            pass


LABEL = "features:\n  - {{name: image, dtype: image}}\n  - {{name: label, dtype: {{class_label: {}}}}}\n"
CARDS = {
    "too few classes": LABEL.format("{names: {'0': a}}"),
    "too many classes": LABEL.format("{names: {'0': a, '1': b, '2': c}}"),
    "classes in another order": LABEL.format("{names: {'0': b, '1': a}}"),
    "a class twice": LABEL.format("{names: {'0': a, '1': a}}"),
    "a gap in the classes": LABEL.format("{names: {'0': a, '7': b}}"),
    "classes without numbers": LABEL.format("{names: {x: a, y: b}}"),
    "a number for names": LABEL.format("{names: 3}"),
    "a number for classes": LABEL.format("3"),
    "a number for features": "features: 3",
    "features without names": "features: [{dtype: image}]",
    "an unknown type": "features:\n  - {name: image, dtype: image}\n  - {name: label, dtype: huh}\n",
    "other columns": "features:\n  - {name: image, dtype: string}\n  - {name: kind, dtype: int64}\n",
    "other sizes": "splits:\n  - {name: train, num_examples: 999, num_bytes: 9}\n",
    "other splits": "splits:\n  - {name: test, num_examples: 2, num_bytes: 9}\n",
    "a number for splits": "splits: 3",
    "numbers for splits": "splits: [3]",
    "splits without names": "splits: [{num_examples: 3}]",
    "no YAML": "features: [",
    "objects": "features: !!python/object/apply:os.mkdir [ran]\n",
}


def red_of(value):
    file = BytesIO(value["bytes"]) if value["bytes"] else value["path"]
    return PILImage.open(file).getpixel((0, 0))[0]


@pytest.mark.parametrize("name", CARDS)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_card_that_lies(tmp_path, monkeypatch, name, streaming):
    """Either the set is read as it really is, or one line says that it cannot be."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data"
    for place, kind in enumerate(("a", "b")):
        (folder / "train" / kind).mkdir(parents=True)
        (folder / "train" / kind / "0.png").write_bytes(encoded(PILImage.new("RGB", (8, 8), (place, 0, 0))))
    info = "".join(f"  {line}\n" for line in CARDS[name].splitlines())
    (folder / "README.md").write_text(f"---\ndataset_info:\n{info}---\n")
    try:
        dataset = load_images(str(folder), "train", streaming=streaming)
        names = class_names(dataset)
        reds = {names[row["label"]]: red_of(row["image"]) for row in dataset}
        assert reds == {"a": 0, "b": 1}
    except InputError as error:
        assert "\n" not in str(error)
        assert str(folder) in str(error)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ["0/0.png", "../../../../climbed.png", "/tmp/climbed.png"])
def test_archives_that_are_not_as_they_should_be(tmp_path, name, streaming):
    """Folders that datasets takes for other classes, and names that climb out."""
    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "data" / "train.zip", "w") as file:
        for place in dict.fromkeys(("a/0.png", "b/0.png", name)):
            file.writestr(place, encoded(red()))
    with pytest.raises(InputError) as refused:
        load_images(str(tmp_path / "data"), "train", streaming=streaming)
    assert "\n" not in str(refused.value)
    assert not [path for folder in (tmp_path, *tmp_path.parents) for path in folder.glob("climbed*")]


@pytest.mark.parametrize("streaming", [False, True])
def test_files_come_as_they_are(tmp_path, streaming):
    """A JPEG that is decoded and encoded again is another image."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    data = encoded(PILImage.fromarray(pixels), "JPEG", quality=95)
    features = Features({"photo": Image(), "kind": ClassLabel(names=["a", "b"])})
    Dataset.from_dict({"photo": [data], "kind": [1]}, features=features).to_parquet(tmp_path / "train.parquet")
    row = next(iter(load_images(str(tmp_path), "train", streaming=streaming)))
    assert row == {"image": {"bytes": data, "path": None}, "label": 1}


@pytest.mark.slow
def test_memory_stays_flat_while_streaming(tmp_path):
    """Four files have one image a million times, which their dictionary keeps small: in memory it would be 4 GB.

    Arrow reads ahead of who reads slowly, until 1 GiB of rows wait (its `kDefaultBackpressureHighBytes`): a faster
    machine gets there later. What Python keeps is counted in objects, exactly.
    """
    image = encoded(red(size=(4, 4))) + bytes(4_000)
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    part = pa.table(
        {"image": [{"bytes": image, "path": None}] * 50_000, "label": np.arange(50_000) % 2},
        schema=features.arrow_schema,
    )
    with pq.ParquetWriter(tmp_path / "train-0.parquet", features.arrow_schema) as writer:
        for _ in range(5):
            writer.write_table(part, row_group_size=1_000)
    del part
    for number in range(1, 4):
        (tmp_path / f"train-{number}.parquet").hardlink_to(tmp_path / "train-0.parquet")
    stream = load_images(str(tmp_path), "train", streaming=True)
    process = psutil.Process(os.getpid())
    start, peak, objects = process.memory_info().rss, 0, []
    for count, _ in enumerate(stream, start=1):
        if count % 10_000 == 0:
            peak = max(peak, process.memory_info().rss - start)
            objects.append(sys.getallocatedblocks())
    assert count == 1_000_000
    more = max(objects[50:]) - max(objects[:50])
    print(f"a million rows of {len(image)} bytes: {peak / 1e6:.0f} MB at most, {more} objects more in the second half")
    assert peak < 1_000_000 * len(image) / 2
    assert more < 500_000 / 40
