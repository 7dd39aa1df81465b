"""Evaluation images that were trained on are counted, byte for byte and within a bound of time."""

import logging

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image

from advbn_hf.data.duplicates import find_duplicates, warn_of_duplicates

FEATURES = Features({"image": Image(decode=False), "label": ClassLabel(names=["a", "b"])})
NOISE = np.random.default_rng(0).integers(0, 256, (300, 5000), dtype=np.uint8)


def split(numbers, folder=None) -> Dataset:
    """Images whose bytes are noise of that number, in memory or in files."""
    images = []
    for row, number in enumerate(numbers):
        image = {"bytes": NOISE[number].tobytes(), "path": f"{row}.png"}
        if folder is not None:
            folder.mkdir(exist_ok=True)
            image = {"bytes": None, "path": str(folder / f"{row}.png")}
            (folder / f"{row}.png").write_bytes(NOISE[number].tobytes())
        images.append(image)
    return Dataset.from_dict({"image": images, "label": [0] * len(images)}, features=FEATURES)


@pytest.mark.parametrize("files", [(False, False), (True, True), (True, False)], ids=str)
def test_equal_images_are_found(tmp_path, files):
    folders = [tmp_path / name if in_files else None for name, in_files in zip("te", files, strict=True)]
    training, evaluation = split([*range(200), 7, 7], folders[0]), split([250, 7, 199, 251, 7], folders[1])
    found = find_duplicates(training, evaluation)
    assert (found.rows, found.num_evaluation, found.num_training) == ([1, 2, 4], 5, 202)
    assert find_duplicates(training, training).rows == list(range(202))
    assert find_duplicates(training.select(range(100)), training.select(range(100, 200))).rows == []


def test_equal_sizes_and_ends_are_not_enough():
    images = [{"bytes": bytes([number]) + bytes(10_000), "path": None} for number in (1, 2, 3)]
    training, evaluation = (
        Dataset.from_dict({"image": part, "label": [0] * 2}, features=FEATURES) for part in (images[:2], images[1:])
    )
    assert find_duplicates(training, evaluation).rows == [0]


def test_missing_images_and_files_are_passed_over(tmp_path):
    rows = split([1, 2], tmp_path / "images")
    (tmp_path / "images" / "0.png").unlink()
    nothing = Dataset.from_dict({"image": [None], "label": [0]}, features=FEATURES)
    assert find_duplicates(rows, rows).rows == [1]
    assert find_duplicates(nothing, nothing).rows == []


def test_the_time_is_bounded():
    found = find_duplicates(split(range(300)), split(range(300)), seconds=0)
    assert (found.rows, found.num_evaluation, found.num_training) == ([], 0, 0)


def test_one_warning_with_their_number(caplog):
    training, evaluation = split(range(10)), split([12, 3, 9])
    with caplog.at_level(logging.WARNING):
        warn_of_duplicates(training, split([12, 13]))
        warn_of_duplicates(training.to_iterable_dataset(), evaluation)
        assert caplog.messages == []
        warn_of_duplicates(training, evaluation)
    (message,) = caplog.messages
    assert message.startswith("2 of 3 evaluation images") and "row 1 (1.png)" in message
