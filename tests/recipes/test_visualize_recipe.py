"""`recipes/visualize.py` from outside: sheet, dataset, both in one run; every mistake in one line."""

import importlib.util
import re
import shutil
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import visualize
from accelerate.state import AcceleratorState
from builders import save_digit_models
from PIL import Image

from advbn_hf.data.loading import class_names, load_images
from advbn_hf.reporting.plot_style import INK
from advbn_hf.utils.cli import run
from advbn_hf.visualization.sheet import Prediction, SheetColumn
from advbn_hf.visualization.sheet_plot import plot_sheet

NAMES = ["3", "1", "7"]  # some of the models' classes, in another order


def save_spots(folder, per_class, seed):
    """Folders of smooth images, which a decoder learns in a few steps."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:32, 0:32]
    for name in NAMES:
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            y, x = random.uniform(4, 28, 2)
            spot = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 60)[..., None]
            colours = random.uniform(60, 250, 3) * spot + 40 * (1 - spot)
            Image.fromarray(colours.astype(np.uint8)).save(folder / name / f"{index}.png")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    save_digit_models(folder)
    save_spots(folder / "data" / "train", 20, seed=0)
    save_spots(folder / "data" / "validation", 3, seed=1)
    return folder


@pytest.fixture(autouse=True)
def own_state(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def draw(job, monkeypatch, capsys):
    """Runs the recipe; gives what it printed, or the one error where it ended with exit code 2."""

    def call(*options, main=visualize.main, name="visualize.py"):
        defaults = ["--model", job / "advbn", "--dataset_name", job / "data"] if main is visualize.main else []
        monkeypatch.setattr(sys, "argv", [name, *map(str, [*defaults, *options])])
        capsys.readouterr()
        try:
            run(main)
        except SystemExit as left:
            assert left.code == 2
            (error,) = re.findall("error: .*", capsys.readouterr().err)
            return error
        return capsys.readouterr().out

    return call


def load_recipe(name):
    """A recipe under a name of its own, since `evaluate` is a library."""
    spec = importlib.util.spec_from_file_location(f"{name}_recipe", Path(visualize.__file__).with_name(f"{name}.py"))
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_sheet_and_data_set_that_the_evaluation_takes(draw, job, tmp_path):
    options = ["--decoder_steps", 60, "--batch_size", 30, "--num_images", 2, "--output_dir", tmp_path / "out"]
    out = draw(*options, "--epsilons", 0.5, 1.1, "--export_dataset", tmp_path / "worst")
    assert "PSNR" in out and "to be trained" in out and "9 restyled images" in out
    (kept,) = (job / "advbn" / "visualization").iterdir()
    sheet = (tmp_path / "out" / "contact_sheet.png").read_bytes()
    with Image.open(tmp_path / "out" / "contact_sheet.png") as image:
        assert image.width > 1.5 * image.height  # six columns, two rows

    before = kept.stat().st_mtime_ns
    out = draw(*options, "--epsilons", 0.5, 1.1)
    assert "to be trained" not in out and kept.stat().st_mtime_ns == before
    assert (tmp_path / "out" / "contact_sheet.png").read_bytes() == sheet

    # the dataset: the same labels in the classes of the original, other images
    original, worst = (load_images(str(folder), "validation") for folder in (job / "data", tmp_path / "worst"))
    assert class_names(worst) == class_names(original) == sorted(NAMES)
    assert worst["label"] == original["label"]
    decoded = worst.cast_column("image", datasets.Image())[0]["image"]
    assert (decoded.size, decoded.mode) == ((32, 32), "RGB")
    card = (tmp_path / "worst" / "README.md").read_text()
    assert "within 2 of 1" in card and "PSNR" in card and str(tmp_path) not in card and str(job) not in card

    recipe = load_recipe("evaluate")
    options = ["--model", job / "advbn", "--dataset_name", tmp_path / "worst", "--sets", "clean"]
    out = draw(*options, "--output_dir", tmp_path / "evaluation", main=recipe.main, name="evaluate.py")
    assert "AdvBN auxiliary" in out and (tmp_path / "evaluation" / "results.json").exists()


def test_a_sheet_marks_wrong_predictions_and_draws_formulas_as_text(tmp_path):
    image = Image.new("RGB", (8, 8), (0, 90, 200))
    for name, label in (("right", 0), ("wrong", 1)):
        predictions = {"clean": [Prediction(label, 0.9)], "auxiliary": [Prediction(label, 0.8)]}
        columns = [
            SheetColumn("image", [image], predictions),
            SheetColumn("adversarial\nepsilon 1", [image], predictions),
        ]
        plot_sheet(columns, [0], ["$cat$", "dog"], tmp_path / f"{name}.png", "1 image")
    colours = {
        name: np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")).reshape(-1, 3)
        for name in ("right", "wrong")
    }
    reddish = {name: ((c[:, 0] > 150) & (c[:, 2] < 60)).sum() for name, c in colours.items()}
    assert reddish["right"] == 0 < reddish["wrong"]
    assert torch.tensor(colours["right"]).min() < int(INK[1:3], 16) + 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "{job}/plain"], "advbn_config.json"),
        (["--model", "no/such"], "no/such"),
        (["--dataset_name", "{job}/nowhere"], "nowhere"),
        (["--dataset_name", "embedded", "--split", "tests"], "split: "),
        (["--split", "test"], "test"),
        (["--epsilons", "0.5", "0"], "epsilons"),
        (["--export_epsilon", "-1"], "export_epsilon"),
        (["--num_images", "0"], "num_images"),
        (["--decoder_steps", "0"], "decoder_steps"),
        (["--output_dir", "{job}/file"], "/file"),
        (["--export_dataset", "{job}/data"], "/data"),
        (["--decoder_steps", "1", "--batch_size", "2"], "decoder_steps: "),
        (["--epsilon", "0.5"], "epsilons"),
    ],
)
def test_mistakes_end_in_one_line(draw, job, tmp_path, monkeypatch, options, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    (job / "file").touch()
    error = draw(*(option.format(job=job) for option in options))
    assert message in error
    assert not list(tmp_path.rglob("*.png"))


@pytest.mark.slow
def test_bad_images_are_named_or_left_out(draw, job, tmp_path):
    shutil.copytree(job / "data", tmp_path / "bad")
    (tmp_path / "bad" / "validation" / "1" / "1.png").write_bytes(b"no image")
    options = ["--dataset_name", tmp_path / "bad", "--decoder_steps", 60, "--output_dir", tmp_path / "out"]
    assert "1.png)" in draw(*options)
    out = draw(*options, "--skip_bad_images", "true", "--export_dataset", tmp_path / "worst", "--num_images", 9)
    assert "validation row 1" in out and "8 restyled images" in out
