"""The sensitivity recipe in small: which trials it needs, what it sums up, and its bad inputs."""

import json
import sys

import pytest
import sensitivity
from comparison.fine_tuning import TuningSettings
from comparison.grid import Settings
from comparison.models import MODELS
from comparison.sensitivity import Variation, changes

from advbn_hf.errors import InputError
from advbn_hf.utils.cli import run

OPTIONS = ["--datasets", "digits", "--seeds", "0", "1", "--steps", "3", "--base_epochs", "0.5", "--batch_size", "8",
           "--train_images", "64", "--eval_images", "36", "--timed_steps", "1"]  # fmt: skip


def recipe(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["sensitivity.py", *map(str, options)])
    run(sensitivity.main)


def test_one_setting_is_varied_at_a_time():
    settings = Settings(steps=5, tuning=TuningSettings(learning_rate=0.1))
    texts = ("epsilon=0.5 1.5", "learning_rate=0.1 0.2", "steps=5 7", "num_perturbations=per_sample")
    found = list(changes([Variation.read(text) for text in texts], "advbn", settings))
    assert [change.method for change in found] == ["advbn:epsilon=0.5", "advbn:epsilon=1.5", *["advbn"] * 5]
    assert [change.settings.tuning.learning_rate for change in found] == [0.1, 0.1, 0.1, 0.2, 0.1, 0.1, 0.1]
    assert [change.settings.steps for change in found] == [5, 5, 5, 5, 5, 7, 5]
    assert [change.in_force for change in found] == [False, False, True, False, True, False, True]


@pytest.mark.slow
def test_the_report_is_about_the_trials(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(MODELS, "resnet", MODELS["resnet"] | {"hidden_sizes": [8, 8, 8, 8], "embedding_size": 8})
    recipe(monkeypatch, *OPTIONS, "--vary", "epsilon=0.5", "steps=3 4", "--output_dir", tmp_path)
    trials = [json.loads(path.read_text()) for path in (tmp_path / "trials").iterdir()]
    assert sorted((trial["settings"]["method"], trial["settings"]["steps"]) for trial in trials) == sorted(
        2 * [("plain", 3), ("plain", 4), ("advbn", 3), ("advbn", 4), ("advbn:epsilon=0.5", 3)]
    )
    points = json.loads((tmp_path / "sensitivity.json").read_text())["points"]
    assert [(point["setting"], point["value"], point["in_force"]) for point in points] == [
        ("epsilon", 0.5, False),
        ("steps", 3, True),
        ("steps", 4, False),
    ]
    clean = {
        (trial["settings"]["method"], trial["settings"]["seed"]): trial["result"]["accuracy"]["clean"]["clean"]
        for trial in trials
        if trial["settings"]["steps"] == 4
    }
    gain = 50 * sum(clean["advbn", seed] - clean["plain", seed] for seed in (0, 1))
    assert points[2]["clean"]["gain"] == pytest.approx(gain)
    table = (tmp_path / "sensitivity.md").read_text()
    assert table in capsys.readouterr().out
    assert "**3**" in table
    assert (tmp_path / "sensitivity.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (["--vary", "epsilon"], "vary: 'epsilon'"),
        (["--vary", "epsilon=-1"], "epsilon"),
        (["--vary", "colour=1"], "colour"),
        (["--vary", "steps=1.5"], "vary: steps"),
        (["--vary", "learning_rate=0"], "vary: learning_rate"),
        (["--vary", "batch_size=many"], "vary: batch_size"),
        (["--method", "magic"], "method: "),
        (["--model", "magic"], "model: "),
        (["--datasets", "magic"], "datasets: "),
        (["--split", "train"], "split"),
        (["--steps", "0"], "steps"),
    ],
)
def test_bad_input_is_one_line(monkeypatch, tmp_path, capsys, options, field):
    with pytest.raises(SystemExit) as left:
        recipe(monkeypatch, *options, "--output_dir", tmp_path / "out")
    assert left.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert field in error[0]
    assert not (tmp_path / "out").exists()


def test_values_keep_their_types():
    assert Variation.read("num_perturbations=4 per_sample").values == (4, "per_sample")
    with pytest.raises(InputError, match="vary"):
        Variation.read("=3")
