"""The sheet of `recipes/augmentations.py`, and its mistakes."""

import sys

import augmentations
import numpy as np
import pytest
from PIL import Image

from advbn_hf.utils.cli import run


def sheet(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["augmentations.py", *map(str, options)])
    run(augmentations.main)


def test_each_augmentation_of_a_folder_s_images_is_drawn(monkeypatch, folders, tmp_path):
    monkeypatch.setattr(augmentations, "AUGMENTATIONS", ("crop_flip", "prime", "randconv"))
    drawn = {}
    monkeypatch.setattr(augmentations, "plot_samples", lambda sets, path, columns: drawn.update(sets))
    sheet(
        monkeypatch,
        *("--dataset_name", folders / "data", "--num_images", "2", "--image_size", "24"),
        *("--output_file", tmp_path / "sheet.png"),
    )
    assert list(drawn) == ["none", "crop_flip", "prime", "randconv"]
    assert {len(rows) for rows in drawn.values()} == {4}
    once, twice = drawn["none"][:2]["image"]
    assert once["bytes"] == twice["bytes"]
    assert drawn["crop_flip"][0]["image"]["bytes"] != drawn["crop_flip"][1]["image"]["bytes"]


def test_without_a_dataset_two_photographs_and_a_digit(monkeypatch, tmp_path):
    monkeypatch.setattr(augmentations, "AUGMENTATIONS", ("augmix",))
    sheet(monkeypatch, "--output_file", tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert np.asarray(image.convert("RGB")).std() > 30


@pytest.mark.parametrize("options", [(), ("--output_file", "sheet.jpg"), ("--output_file", "/proc/self/sheet.png")])
def test_the_file_has_to_be_named(monkeypatch, capsys, options):
    with pytest.raises(SystemExit) as left:
        sheet(monkeypatch, "--num_images", "2", *options)
    assert left.value.code == 2
    assert "error: output_file" in capsys.readouterr().err
