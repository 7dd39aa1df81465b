"""Generated shifts: what they do to an image, that they can be repeated, and their cache."""

import hashlib
import multiprocessing
import os
import signal
import sys
import time
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage
from sklearn.datasets import load_sample_image

from advbn_hf import InputError
from advbn_hf.data.images import ImageDataset
from advbn_hf.shifts import cache as shift_cache
from advbn_hf.shifts import generate as shifts
from advbn_hf.shifts.generate import (
    GROUPS,
    check_shift,
    severities,
    shift_image,
    shift_images,
    shift_label,
    shift_names,
)

PHOTO = PILImage.fromarray(load_sample_image("flower.jpg")).resize((64, 48), PILImage.Resampling.BOX)
CORRUPTIONS = GROUPS["corruptions"] + GROUPS["extra_corruptions"]
FEATURES = Features({"label": ClassLabel(names=["a", "b"]), "image": Image(decode=False)})


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(shift_cache, "_content_hashes", {})
    return tmp_path / "cache" / "advbn_hf_shifts"


def png(image: PILImage.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def photos(count: int = 6, size: tuple[int, int] = (48, 40)) -> Dataset:
    """Different parts of a photo."""
    crops = [PHOTO.resize(size, box=(i, i, 48 + i, 40 + i)) for i in range(count)]
    rows = [{"label": i % 2, "image": {"bytes": png(crop), "path": f"{i}.png"}} for i, crop in enumerate(crops)]
    return Dataset.from_list(rows, features=FEATURES)


def contents(dataset: Dataset) -> list[bytes]:
    return [value["bytes"] for value in dataset.with_format(None).cast_column("image", Image(decode=False))["image"]]


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(PILImage.open(BytesIO(data)), dtype=float)


def change(shift: str, severity: int | None) -> float:
    shifted = shift_image(PHOTO, shift, severity, seed=3)
    return float(np.abs(np.asarray(shifted, float) - np.asarray(PHOTO, float)).mean())


# Which there are


def test_all_shifts_are_there():
    import imagecorruptions
    import pilgram2

    assert list(GROUPS["corruptions"]) == imagecorruptions.get_corruption_names("common")
    assert list(GROUPS["extra_corruptions"]) == imagecorruptions.get_corruption_names("validation")
    assert [name.lstrip("_") for name in pilgram2.__all__] == list(GROUPS["filters"])
    assert shift_names() == [name for names in GROUPS.values() for name in names]
    assert len(shift_names()) == len(set(shift_names())) == 15 + 4 + 40 + 3


def test_severities_and_labels():
    assert severities("fog") == severities("saturate") == (1, 2, 3, 4, 5)
    assert severities("sketch") == severities("toaster") == ()
    assert shift_label("fog") == "ImageNet-C-style, generated"
    assert shift_label("toaster") == "Instagram-style, generated"
    assert shift_label("sketch") == "generated"


@pytest.mark.parametrize(
    ("shift", "severity", "message"),
    [
        ("fogg", 1, "shift: .*'fogg'"),
        ("fog", 6, "severity of fog: .*6.*1, 2, 3, 4, 5"),
        ("fog", 0, "severity of fog"),
        ("fog", None, "severity of fog: .*None"),
        ("sketch", 1, "severity of sketch: "),
    ],
)
def test_a_wrong_shift_or_severity_is_named(shift, severity, message):
    for check in (lambda: check_shift(shift, severity), lambda: shift_images(photos(), shift, severity)):
        with pytest.raises(InputError, match=message) as caught:
            check()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("module", "shift", "severity", "extra"),
    [("imagecorruptions", "fog", 1, "corruptions"), ("pilgram2", "moon", None, "filters")],
)
def test_a_missing_extra_is_named(monkeypatch, module, shift, severity, extra):
    monkeypatch.setitem(sys.modules, module, None)  # import then raises ImportError
    with pytest.raises(InputError, match=rf"shift '{shift}' needs .*: pip install advbn_hf\[{extra}\]"):
        shift_images(photos(), shift, severity)
    check_shift("sketch")


# What they do to an image


@pytest.mark.parametrize("shift", shift_names())
def test_every_shift_changes_the_image_and_can_be_repeated(shift):
    np.random.seed(5)
    before = np.random.get_state()[1].copy()
    for severity in severities(shift)[::4] or [None]:
        one, two = (shift_image(PHOTO, shift, severity, seed=3) for _ in range(2))
        assert one.mode == "RGB" and one.size == PHOTO.size
        assert one.tobytes() == two.tobytes() != PHOTO.tobytes()
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.parametrize("shift", [name for name in CORRUPTIONS if name != "saturate"])
def test_corruptions_get_worse(shift):
    """Not saturate, which takes colour away at the severities 1 and 2, and adds it from 3 on."""
    assert change(shift, 5) > change(shift, 1) > 0.5


def test_greyscale_and_inversion_by_hand():
    image = PILImage.fromarray(np.array([[[255, 0, 0], [10, 20, 30]]], dtype=np.uint8))
    # ITU-R BT.601: 0.299 red + 0.587 green + 0.114 blue
    assert np.asarray(shift_image(image, "greyscale")).tolist() == [[[76] * 3, [18] * 3]]
    assert np.asarray(shift_image(image, "inversion")).tolist() == [[[0, 255, 255], [245, 235, 225]]]


def test_a_sketch_is_dark_lines_at_edges_on_white():
    scene = np.full((64, 64, 3), 40, dtype=np.uint8)
    scene[16:48, 16:48] = (220, 180, 60)
    sketch = np.asarray(shift_image(PILImage.fromarray(scene), "sketch")).astype(int)
    assert (sketch[30:34, 30:34] > 250).all() and (sketch[:6, :6] > 250).all()
    assert sketch[15, 32].max() < 150 and (sketch.max(axis=-1) == sketch.min(axis=-1)).all()


def test_spatter_without_a_drop_leaves_the_image_alone():
    """The library divides by the largest drop, which is none on some small images, and makes them black."""
    small = PHOTO.resize((32, 32))
    results = [shift_image(small, "spatter", 1, seed=seed).tobytes() for seed in range(100)]
    assert bytes(small.width * small.height * 3) not in results and small.tobytes() in results


# Whole sets


def test_rows_and_columns_stay():
    source = photos()
    result = shift_images(source, "gaussian_noise", 3)
    assert result.column_names == source.column_names and result.features == source.features
    assert result["label"][:] == source["label"][:]
    assert all(a != b for a, b in zip(contents(result), contents(source), strict=True))
    assert [value["path"] for value in result["image"]] == [f"{i}.png" for i in range(6)]
    decoded = shift_images(source.cast_column("image", Image()), "gaussian_noise", 3)
    assert decoded[0]["image"].size == (48, 40) and contents(decoded) == contents(result)


@pytest.mark.parametrize("shift", ["gaussian_noise", "impulse_noise", "glass_blur"])  # NumPy's, skimage's, numba's
def test_the_number_of_processes_does_not_matter(shift, cache, monkeypatch):
    alone = contents(shift_images(photos(), shift, 2))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache.parent / "other")
    assert contents(shift_images(photos(), shift, 2, num_proc=2)) == alone


def test_an_image_does_not_depend_on_its_row_or_its_company():
    everything = contents(shift_images(photos(), "shot_noise", 4))
    some = photos().select([4, 1, 3])
    assert contents(shift_images(some, "shot_noise", 4)) == [everything[i] for i in (4, 1, 3)]
    assert shift_images(some, "shot_noise", 4)["label"][:] == [0, 1, 1]


def test_the_seed_and_the_severity_matter():
    results = [
        contents(shift_images(photos(2), "snow", severity, seed=seed)) for severity in (1, 2) for seed in (0, 1)
    ]
    assert len({data for result in results for data in result}) == 8


def test_a_size_means_the_protocol_of_imagenet_c():
    result = contents(shift_images(photos(1, size=(100, 60)), "jpeg_compression", 1, size=56))
    assert PILImage.open(BytesIO(result[0])).format == "JPEG" and pixels(result[0]).shape == (56, 56, 3)
    plain = contents(shift_images(photos(1, size=(100, 60)), "inversion", size=56))
    # By hand: 56 * 256 / 224 = 64, so 100 x 60 becomes 106 x 64, and the crop starts at (25, 4).
    source = PILImage.open(BytesIO(contents(photos(1, size=(100, 60)))[0]))
    by_hand = source.resize((106, 64), PILImage.Resampling.BILINEAR).crop((25, 4, 81, 60))
    assert (pixels(plain[0]) == 255 - np.asarray(by_hand, dtype=float)).all()


def test_images_of_other_modes_become_rgb():
    grey = [{"label": 0, "image": {"bytes": png(PHOTO.convert(mode)), "path": None}} for mode in ("L", "P", "RGBA")]
    result = contents(shift_images(Dataset.from_list(grey, features=FEATURES), "contrast", 1))
    assert all(pixels(data).shape == (48, 64, 3) for data in result)


def test_files_are_read_where_they_are(tmp_path):
    rows = []
    for index, data in enumerate(contents(photos(3))):
        (tmp_path / f"{index}.png").write_bytes(data)
        rows.append({"label": 0, "image": {"bytes": None, "path": str(tmp_path / f"{index}.png")}})
    from_files = Dataset.from_list(rows, features=FEATURES)
    expected = contents(shift_images(photos(3), "sketch"))
    assert contents(shift_images(from_files, "sketch")) == expected
    (tmp_path / "1.png").unlink()
    shift_cache._content_hashes.clear()
    with pytest.raises(InputError, match=r"row 1 \(.*1\.png\): "):
        shift_images(from_files, "sketch")


def test_what_cannot_be_decoded_stays_for_the_reader_to_name():
    rows = [*photos(2), {"label": 0, "image": {"bytes": b"no image", "path": "x/broken.jpg"}}]
    rows.append({"label": 1, "image": None})
    result = shift_images(Dataset.from_list(rows, features=FEATURES), "fog", 1)
    assert contents(result)[2] == b"no image"
    reader = ImageDataset(result, lambda image: image)
    with pytest.raises(InputError, match=r"row 2 \(broken.jpg\): "):
        reader[2]
    with pytest.raises(InputError, match="row 3: "):
        reader[3]


def test_an_image_too_small_is_named_and_leaves_no_cache(cache):
    rows = [*photos(2), {"label": 0, "image": {"bytes": png(PHOTO.resize((20, 31))), "path": "small.png"}}]
    mixed = Dataset.from_list(rows, features=FEATURES)
    for num_proc in (None, 2):
        with pytest.raises(InputError, match=r"row 2 \(small.png\): .*20 x 31 .*size"):
            shift_images(mixed, "fog", 1, num_proc=num_proc)
    assert [path for path in cache.iterdir() if path.suffix != ".lock"] == []
    assert len(shift_images(mixed, "fog", 1, size=32)) == 3


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        (photos().rename_column("image", "photo"), {}, "'image'.*label, photo"),
        (photos().select([]), {}, "dataset: .*rows"),
        (photos(), {"seed": -1}, "seed "),
        (photos(), {"size": 31}, "size .*32.*31"),
        (photos(), {"num_proc": 0}, "num_proc "),
    ],
)
def test_bad_arguments(source, settings, message):
    with pytest.raises(InputError, match=message):
        shift_images(source, "fog", 1, **settings)


# The cache


def test_a_second_call_generates_nothing(monkeypatch):
    first = contents(shift_images(photos(), "frost", 2))
    monkeypatch.setattr(shifts, "shift_image", lambda *args, **kwargs: pytest.fail("generated again"))
    shift_cache._content_hashes.clear()  # as in another process
    assert contents(shift_images(photos(), "frost", 2, num_proc=1)) == first
    with pytest.raises(BaseException, match="generated again"):
        shift_images(photos(), "frost", 2, seed=1)


def test_other_labels_share_the_images_and_other_images_do_not(cache):
    shift_images(photos(), "inversion")
    relabelled = photos().remove_columns("label").add_column("target", list(range(6)))
    assert shift_images(relabelled, "inversion")["target"][:] == list(range(6))
    assert len(list(cache.glob("*/"))) == 1
    shift_images(photos(5), "inversion")
    assert len(list(cache.glob("*/"))) == 2


def test_another_version_of_the_library_generates_again(monkeypatch, cache):
    shift_images(photos(), "moon")
    monkeypatch.setattr(shifts, "version", lambda library: "99")
    shift_images(photos(), "moon")
    assert len(list(cache.glob("*/"))) == 2


def generate(results: multiprocessing.Queue) -> None:
    found = contents(shift_images(photos(), "gaussian_noise", 1))
    results.put(hashlib.sha256(b"".join(found)).hexdigest())


def test_a_process_that_dies_while_it_fills_the_cache_holds_up_nobody(cache, monkeypatch):
    fork = multiprocessing.get_context("fork")
    results, begun = fork.Queue(), fork.Event()

    def hang(*args, **kwargs):
        begun.set()
        time.sleep(100)

    with monkeypatch.context() as patched:
        patched.setattr(shifts, "shift_image", hang)
        first = fork.Process(target=generate, args=(results,))
        first.start()
    assert begun.wait(60)
    second = fork.Process(target=generate, args=(results,))
    second.start()
    second.join(timeout=1)
    assert second.is_alive() and results.empty()  # it waits
    os.kill(first.pid, signal.SIGKILL)
    found = results.get(timeout=60)
    second.join(timeout=60)
    assert found == hashlib.sha256(b"".join(contents(shift_images(photos(), "gaussian_noise", 1)))).hexdigest()
    assert len([path for path in cache.iterdir() if path.suffix != ".lock"]) == 1


def test_processes_that_ask_at_once_share_one_cache(cache):
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    workers = [fork.Process(target=generate, args=(results,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    found = {results.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join(timeout=60)
    assert found == {hashlib.sha256(b"".join(contents(shift_images(photos(), "gaussian_noise", 1)))).hexdigest()}
    left = [path for path in cache.iterdir() if path.suffix != ".lock"]
    assert len(left) == 1 and [file.name for file in Path(left[0]).iterdir()] == ["images.arrow"]
