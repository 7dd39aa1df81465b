"""The sheet of `recipes/predictions.py`: what it shows, and its mistakes."""

import sys

import numpy as np
import predictions
import pytest
import yaml
from builders import tiny_resnet
from PIL import Image
from predictions import Shown, representative
from transformers import ViTImageProcessorPil

from advbn_hf.utils.cli import run

SUITE = {"sets": [{"name": "drawn", "split": "train"}, {"name": "painted", "split": "validation"}]}


@pytest.fixture
def options(folders, tmp_path):
    """A model, a baseline of other weights, and a suite of two sets."""
    for seed, name in enumerate(("model", "other")):
        classifier = tiny_resnet(num_labels=5, seed=seed)
        classifier.config.id2label = dict(enumerate(("ant", "bee", "cat", "dog", "eel")))
        classifier.save_pretrained(tmp_path / name)
        ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path / name)
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(SUITE))
    model = ("--model", tmp_path / "model", "--baseline", tmp_path / "other")
    data = ("--suite", tmp_path / "suite.yaml", "--dataset_name", folders / "data")
    return [*model, *data, "--output_file", tmp_path / "sheet.png"]


def sheet(monkeypatch, options):
    monkeypatch.setattr(sys, "argv", ["predictions.py", *map(str, options)])
    run(predictions.main)


def test_images_of_each_class_with_their_own_predictions(monkeypatch, options, tmp_path, capsys):
    drawn = {}
    draw = predictions.draw
    monkeypatch.setattr(predictions, "draw", lambda shown, *rest: (drawn.update(shown=shown), draw(shown, *rest)))
    sheet(monkeypatch, [*options, "--num_classes", "2"])
    assert [part.name for part in drawn["shown"]] == ["drawn", "painted"]
    for part, images in zip(drawn["shown"], (20, 10), strict=True):
        assert len(part.images) == 5 and list(part.says) == ["baseline", "model"]
        counts = [part.accuracy[name] * images for name in part.says]
        assert counts == pytest.approx(np.round(counts))
    with Image.open(tmp_path / "sheet.png") as image:
        assert np.asarray(image.convert("RGB")).std() > 30
    assert "sheet.png" in capsys.readouterr().out


def test_a_second_run_draws_the_same(monkeypatch, options, tmp_path):
    sheet(monkeypatch, options)
    first = (tmp_path / "sheet.png").read_bytes()
    sheet(monkeypatch, options)
    assert (tmp_path / "sheet.png").read_bytes() == first
    sheet(monkeypatch, [*options, "--seed", "5"])
    assert (tmp_path / "sheet.png").read_bytes() != first


def test_classes_are_right_as_often_as_all_images():
    images = [Image.new("RGB", (8, 8))] * 10
    says = {
        "plain": np.where(np.arange(10) < 2, np.arange(10), -1),
        "advbn": np.where(np.arange(10) < 6, np.arange(10), -1),
    }
    shown = [Shown("drawn", images, says, {"plain": 0.4, "advbn": 0.8})]
    chosen = representative(shown, 5, np.random.default_rng(0))
    assert len(set(chosen)) == 5
    assert [np.mean([says[name][label] == label for label in chosen]) for name in says] == [0.4, 0.8]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--suite": None}, "suite: "),
        ({"--output_file": None}, "output_file: "),
        ({"--output_file": "sheet.txt"}, "output_file: sheet.txt "),
        ({"--output_file": "/proc/self/sheet.png"}, "output_file: /proc/self "),
        ({"--num_classes": "0"}, "num_classes"),
        ({"--sets": "sculpted"}, "sculpted"),
        ({"--dataset_name": None}, "has no dataset"),
    ],
)
def test_mistakes_end_in_one_line(monkeypatch, options, tmp_path, capsys, change, message):
    given = dict(zip(options[::2], options[1::2], strict=True)) | change
    with pytest.raises(SystemExit) as left:
        sheet(monkeypatch, [part for name, value in given.items() if value is not None for part in (name, value)])
    assert left.value.code == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and message in error[0]
    assert not (tmp_path / "sheet.png").exists()


def test_a_set_without_an_image_of_a_class_is_named(monkeypatch, options, folders, tmp_path, capsys):
    for split in ("train", "validation"):
        for name in ("ant", "bee", "cat", "dog", "eel"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            if (split, name) != ("validation", "cat"):
                Image.new("RGB", (40, 40)).save(tmp_path / "data" / split / name / "0.png")
    with pytest.raises(SystemExit) as left:
        sheet(monkeypatch, [*options, "--dataset_name", tmp_path / "data"])
    assert left.value.code == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and "sets: painted " in error[0]
