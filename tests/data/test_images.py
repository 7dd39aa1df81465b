"""Rows to batches, in this process and in data workers, and every way in which an image can be damaged."""

import json
import threading
from io import BytesIO
from itertools import islice

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PILImage
from torch.utils.data import DataLoader
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from advbn_hf.data.images import BadImages, ImageDataset, collate
from advbn_hf.data.streaming import StreamedImageDataset
from advbn_hf.data.transforms import EvaluationTransform, TrainingTransform
from advbn_hf.errors import InputError

PROCESSOR = ViTImageProcessorPil(size={"height": 8, "width": 8}, do_normalize=False)
FEATURES = Features({"image": Image(decode=False), "label": ClassLabel(names=["a", "b", "c"])})


def encoded(value: int, kind: str = "PNG", size: tuple[int, int] = (12, 10)) -> bytes:
    buffer = BytesIO()
    PILImage.new("RGB", size, (value, value, value)).save(buffer, kind)
    return buffer.getvalue()


def noise() -> bytes:
    buffer = BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    PILImage.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


DAMAGED = {
    "text.jpg": b"this is not an image",
    "empty.png": b"",
    "truncated.jpg": noise()[:600],
    "broken.png": encoded(3)[:40],
}


def rows(images: list[bytes | None], labels: list[int] | None = None, names: list[str] | None = None) -> Dataset:
    names = names or [f"{index}.png" for index in range(len(images))]
    values = [
        data if data is None else {"bytes": data, "path": name} for data, name in zip(images, names, strict=True)
    ]
    labels = labels or [index % 3 for index in range(len(images))]
    return Dataset.from_dict({"image": values, "label": labels}, features=FEATURES)


def greys(batch: dict[str, torch.Tensor]) -> list[int]:
    """The grey of each image of a batch, which says which row it was."""
    return (batch["pixel_values"][:, 0, 0, 0] * 255).round().int().tolist()


@pytest.fixture
def good() -> Dataset:
    return rows([encoded(index) for index in range(10)])


@pytest.fixture
def damaged() -> Dataset:
    """Ten rows; 3, 5, 6 and 8 are damaged."""
    images, names = [encoded(index) for index in range(10)], [f"{index}.png" for index in range(10)]
    for row, (name, data) in zip((3, 5, 6, 8), DAMAGED.items(), strict=True):
        images[row], names[row] = data, name
    return rows(images, names=names)


def load(dataset, workers: int = 0, batch_size: int = 4) -> list[dict[str, torch.Tensor]]:
    return list(DataLoader(dataset, batch_size, collate_fn=collate, num_workers=workers))


def test_batches(good):
    batches = load(ImageDataset(good, EvaluationTransform(PROCESSOR)))
    assert [batch["pixel_values"].shape for batch in batches] == [(4, 3, 8, 8), (4, 3, 8, 8), (2, 3, 8, 8)]
    assert batches[0]["pixel_values"].dtype == torch.float32 and batches[0]["labels"].dtype == torch.int64
    assert [grey for batch in batches for grey in greys(batch)] == list(range(10))
    assert torch.cat([batch["labels"] for batch in batches]).tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]


def test_random_images_depend_on_seed_epoch_and_row_alone():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    buffer = BytesIO()
    PILImage.fromarray(pixels).save(buffer, "PNG")
    same = rows([buffer.getvalue()] * 8)
    before = torch.get_rng_state()

    def images(workers=0, batch_size=2, seed=0, epoch=0):
        dataset = ImageDataset(same, TrainingTransform(PROCESSOR), seed=seed)
        dataset.set_epoch(epoch)
        loader = DataLoader(dataset, batch_size, collate_fn=collate, num_workers=workers, generator=torch.Generator())
        return torch.cat([batch["pixel_values"] for batch in loader])

    first = images()
    assert torch.equal(first, images(workers=2, batch_size=3))
    assert not torch.equal(first, images(seed=1)) and not torch.equal(first, images(epoch=1))
    assert len({image.numpy().tobytes() for image in first}) == 8
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_that_outlive_an_epoch_see_the_next():
    dataset = ImageDataset(rows([noise()] * 4), TrainingTransform(PROCESSOR))
    loader = DataLoader(dataset, 4, collate_fn=collate, num_workers=1, persistent_workers=True)
    epochs = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        epochs += [batch["pixel_values"] for batch in loader]
    assert not torch.equal(*epochs)


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("streaming", [False, True])
def test_damaged_image_stops_with_row_and_file(name, streaming):
    dataset = rows([encoded(0), DAMAGED[name]], names=["0.png", f"train/cat/{name}"])
    transform = EvaluationTransform(PROCESSOR)
    images = ImageDataset(dataset, transform)
    if streaming:
        images = StreamedImageDataset(dataset.to_iterable_dataset(), transform)
    with pytest.raises(InputError) as caught:
        load(images)
    message = str(caught.value)
    assert message.startswith(f"row 1 (train/cat/{name}): ") and "\n" not in message
    assert "skip_bad_images=True" in message and "0x" not in message


def test_bomb_missing_file_and_missing_image(tmp_path, monkeypatch):
    transform = EvaluationTransform(PROCESSOR)
    with pytest.raises(InputError, match=r"row 0: .*no image"):
        ImageDataset(rows([None]), transform)[0]
    gone = Dataset.from_dict({"image": [str(tmp_path / "gone.png")], "label": [0]}, features=FEATURES)
    with pytest.raises(InputError, match=r"row 0 \(.*gone.png\): .*No such file"):
        ImageDataset(gone, transform)[0]
    monkeypatch.setattr(PILImage, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(InputError, match=r"row 0 \(0.png\): .*decompression bomb"):
        ImageDataset(rows([encoded(0)]), transform)[0]


@pytest.mark.parametrize("label", [-1, None])
def test_row_without_a_label(label):
    with pytest.raises(InputError, match=r"row 1 \(1.png\): .*label"):
        ImageDataset(rows([encoded(0), encoded(1)], labels=[0, label]), EvaluationTransform(PROCESSOR))[1]


def test_message_of_a_worker_is_complete(damaged):
    with pytest.raises(InputError) as caught:
        load(ImageDataset(damaged, EvaluationTransform(PROCESSOR)), workers=1)
    last = str(caught.value).strip().splitlines()[-1]  # torch puts the worker's traceback before it
    assert last.partition("InputError: ")[2].startswith("row 3 (text.jpg): ")


@pytest.mark.parametrize("streaming", [False, True])
def test_bad_images_are_dropped_and_named(damaged, tmp_path, streaming):
    bad, transform = BadImages(tmp_path / "bad.jsonl"), EvaluationTransform(PROCESSOR)
    assert bad.summary() == []
    if streaming:
        images = StreamedImageDataset(damaged.to_iterable_dataset(), transform, bad)
    else:
        images = ImageDataset(damaged, transform, bad)
    for _ in range(2):  # met in two epochs, named once
        one_pass = list(islice(images, 10)) if streaming else images
        assert [greys(batch) for batch in load(one_pass)] == [[0, 1, 2], [4, 7], [9]]
    assert bad.summary() == ["row 3 (text.jpg)", "row 5 (empty.png)", "row 6 (truncated.jpg)", "row 8 (broken.png)"]
    notes = [json.loads(line) for line in bad.path.read_text().splitlines()]
    assert len(notes) == 8 and notes[0] == {"split": None, "row": 3, "file": "text.jpg", "error": "not an image file"}


def test_workers_share_one_log(tmp_path):
    images = [b"damaged" if index % 2 else encoded(index) for index in range(60)]
    bad = BadImages(tmp_path / "bad.jsonl")
    batches = load(ImageDataset(rows(images), EvaluationTransform(PROCESSOR), bad), workers=2)
    assert [grey for batch in batches for grey in greys(batch)] == list(range(0, 60, 2))
    assert bad.summary() == [f"row {index} ({index}.png)" for index in range(1, 60, 2)]


def test_lines_of_many_writers_do_not_mix(tmp_path):
    def write(writer: int) -> None:
        for row in range(50):
            BadImages(tmp_path / "bad.jsonl").add("train", 50 * writer + row, None, "x" * 200)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert BadImages(tmp_path / "bad.jsonl").summary() == [f"train row {row}" for row in range(200)]


def test_network_failure_is_not_a_bad_image(tmp_path, monkeypatch):
    def fail(*_):
        raise ConnectionError("Server disconnected")

    monkeypatch.setattr(Image, "decode_example", fail)
    bad = BadImages(tmp_path / "bad.jsonl")
    with pytest.raises(ConnectionError):
        ImageDataset(rows([encoded(0)]), EvaluationTransform(PROCESSOR), bad)[0]
    assert bad.summary() == []


def test_batch_of_bad_images_only(tmp_path):
    bad = BadImages(tmp_path / "bad.jsonl")
    images = ImageDataset(rows([b"a", b"b", encoded(0)]), EvaluationTransform(PROCESSOR), bad)
    with pytest.raises(InputError, match="batch"):
        load(images, batch_size=2)


def test_images_of_different_sizes():
    transform = EvaluationTransform(ViTImageProcessorPil(do_resize=False))
    with pytest.raises(InputError, match=r"\(3, 8, 8\) and \(3, 9, 8\)"):
        load(ImageDataset(rows([encoded(0, size=(8, 9)), encoded(0, size=(8, 8))]), transform))


def test_integer_labels_without_names():
    features = Features({"image": Image(decode=False), "label": Value("uint8")})
    dataset = Dataset.from_dict({"image": [{"bytes": encoded(0), "path": None}], "label": [200]}, features=features)
    assert load(ImageDataset(dataset, EvaluationTransform(PROCESSOR)))[0]["labels"].tolist() == [200]
