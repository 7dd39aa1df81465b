"""Trials and costs of a comparison in small: what is stored is not made again; numbers by hand."""

import copy
import dataclasses
import json
import re
import sys

import compare
import pytest
import torch
from comparison import costs
from comparison import grid as grid_module
from comparison.datasets import DecodedImages, load_decoded
from comparison.fine_tuning import TuningSettings, fine_tune, measure
from comparison.grid import Grid, Settings, Trial
from comparison.methods import METHODS
from comparison.models import MODELS, BaseSettings
from comparison.store import Store
from comparison.views import Collator, to_input
from drawings.sets import SPLITS
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification

from advbn_hf.backbones.loading import new_classifier
from advbn_hf.data.embedded.rendering import STYLES
from advbn_hf.errors import InputError
from advbn_hf.utils.cli import run

SMALL = Settings(
    steps=3,
    base=BaseSettings(0.5, 3e-3),
    tuning=TuningSettings(batch_size=8),
    train_images=64,
    eval_images=36,
    timed_steps=2,
)


@pytest.fixture(autouse=True)
def small_models(monkeypatch):
    monkeypatch.setitem(MODELS, "resnet", MODELS["resnet"] | {"hidden_sizes": [8, 8, 8, 8], "embedding_size": 8})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("compare")


OPTIONS = ["--methods", "plain", "advbn", "--datasets", "digits", "--models", "resnet", "--seeds", "0", "1",
           "--steps", "3", "--base_epochs", "0.5", "--batch_size", "8", "--train_images", "64", "--eval_images", "36",
           "--timed_steps", "2"]  # fmt: skip


def recipe(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, options)])
    run(compare.main)


@pytest.fixture
def compared(monkeypatch, folder):
    """The folder of a finished comparison; only what is missing in it is made."""
    recipe(monkeypatch, *OPTIONS, "--output_dir", folder)
    return folder


@pytest.mark.slow
def test_a_run_stops_and_resumes(monkeypatch, folder, capsys):
    made, tune = [], grid_module.fine_tune

    def counting(*args):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(args)
        return tune(*args)

    monkeypatch.setattr(grid_module, "fine_tune", counting)
    with pytest.raises(SystemExit) as left:
        recipe(monkeypatch, *OPTIONS, "--output_dir", folder)
    assert left.value.code == 1
    assert "stopped by Ctrl-C" in capsys.readouterr().err
    trials = sorted((folder / "trials").iterdir())
    assert len(trials) == 3
    before = {path: path.read_text() for path in trials}
    made.clear()
    recipe(monkeypatch, *OPTIONS, "--output_dir", folder)
    assert len(made) == 1  # the one that was missing
    assert {path: path.read_text() for path in trials} == before

    content = json.loads((folder / "comparison.json").read_text())
    assert [(trial["method"], trial["seed"]) for trial in content["trials"]] == [
        (method, seed) for method in ("plain", "advbn") for seed in (0, 1)
    ]
    assert set(content["trials"][0]["result"]["accuracy"]) == {"clean", "interpolated", "adapted"}
    branches = {
        "clean",
        "auxiliary",
        "average",
        "soup",
        "re-estimated",
        "soup re-estimated",
        "interpolated",
        "adapted",
    }
    assert set(content["trials"][2]["result"]["accuracy"]) == branches
    assert set(content["trials"][0]["result"]["accuracy"]["clean"]) == {*STYLES, "unseen"}
    assert content["trials"][0]["result"]["cost"] == content["trials"][0]["result"]["cost_without_views"] == 1
    table = (folder / "comparison.md").read_text()
    assert "## digits, resnet, equal steps" in table
    assert "| advbn | 2 |" in table
    for kind in ("gains", "cost"):
        assert (folder / f"{kind}-digits-resnet-steps.png").stat().st_size > 1000
    assert "| advbn | 2 |" in capsys.readouterr().out


def test_one_trial_made_again_gives_the_same_and_leaves_the_others_in_the_report(monkeypatch, compared):
    before = json.loads((compared / "comparison.json").read_text())
    stored = {path: path.stat().st_mtime_ns for path in (compared / "trials").iterdir()}
    recipe(monkeypatch, *OPTIONS, "--output_dir", compared, "--methods", "advbn", "--seeds", "1", "--again", "true")
    after = json.loads((compared / "comparison.json").read_text())
    assert [path for path, changed in stored.items() if path.stat().st_mtime_ns != changed] == [
        path for path in stored if path.name.startswith("advbn_digits_resnet_1_")
    ]
    for one, other in zip(before["trials"], after["trials"], strict=True):
        one["result"].pop("seconds"), other["result"].pop("seconds")
        assert one == other


def test_equal_time_and_other_settings_are_other_trials(monkeypatch, compared):
    grid = Grid(compared, SMALL)
    trials = {(method, budget): Trial(method, "digits", "resnet", 0, budget)
            for method in ("plain", "advbn") for budget in ("steps", "time")}  # fmt: skip
    monkeypatch.setitem(grid._costs, ("resnet", "plain"), grid_module.Cost(10.0, 1.0, 1.0))
    monkeypatch.setitem(grid._costs, ("resnet", "advbn"), grid_module.Cost(25.0, 2.5, 2.5))
    assert {place: grid.steps(trial) for place, trial in trials.items()} == {
        ("plain", "steps"): 3, ("advbn", "steps"): 3, ("advbn", "time"): 3, ("plain", "time"): 8
    }  # fmt: skip
    count = len(list((compared / "trials").iterdir()))
    grid.make(trials["advbn", "time"])  # as many steps: the same trial
    assert len(list((compared / "trials").iterdir())) == count
    assert {trial.method for trial in grid.stored(["steps"])} == {"plain", "advbn"}
    monkeypatch.setitem(MODELS, "resnet", MODELS["resnet"] | {"hidden_sizes": [8, 8, 8, 12]})
    assert grid.stored(["steps"]) == []  # made with another model


def test_bases_are_ordinary_checkpoints(compared):
    bases = sorted((compared / "bases").iterdir())
    assert len(bases) == 2
    assert AutoModelForImageClassification.from_pretrained(bases[0]).config.id2label[3] == "3"


def test_averaged_weights_are_the_result(tmp_path):
    images = load_decoded("digits", "clean", "train", 64)
    torch.manual_seed(0)
    base, _ = new_classifier(json.dumps(MODELS["resnet"]), list(images.names))
    last, at_once, slowly = (
        fine_tune(
            dataclasses.replace(METHODS["advbn"], averaging=decay), base, images, SMALL.tuning, 3, 0, str(tmp_path)
        )[0].state_dict()
        for decay in (None, 1e-9, 0.9)
    )
    torch.testing.assert_close(at_once, last)
    differing = [name for name in last if not torch.allclose(slowly[name].float(), last[name].float(), atol=1e-6)]
    assert any("running_mean" in name for name in differing)
    assert any(name.endswith("weight") for name in differing)


def test_adapted_is_the_model_with_the_statistics_of_each_set():
    pixels = load_decoded("digits", "clean", "validation", 40).pixels
    torch.manual_seed(0)
    base, _ = new_classifier(json.dumps(MODELS["resnet"]), [str(digit) for digit in range(10)])
    expected = {}
    for name, images in (("light", pixels // 2 + 127), ("dark", pixels // 3)):
        network = copy.deepcopy(base).train()
        for module in network.modules():
            module.momentum = 1.0  # of batch norms: the statistics are those of the last batch
        with torch.no_grad():
            network(to_input(images))
            classes = network.eval()(to_input(images)).logits.argmax(-1)
        expected[name] = DecodedImages(images, classes, tuple("0123456789"))
    clean = DecodedImages(pixels, torch.zeros(40, dtype=torch.int64), tuple("0123456789"))
    model = METHODS["plain"].wrap(base).eval()
    accuracy = measure(model, expected, clean, base)
    assert accuracy["adapted"] == {"light": 1, "dark": 1}
    assert min(accuracy["clean"].values()) < 1
    layer_normed, _ = new_classifier(json.dumps(MODELS["convnext"]), [str(digit) for digit in range(10)])
    assert "adapted" not in measure(METHODS["plain"].wrap(layer_normed).eval(), expected, clean, layer_normed)


def test_a_cost_that_was_stored_without_views_keeps_what_was_measured(compared):
    grid = Grid(compared, SMALL)
    trial = Trial("advbn", "digits", "resnet", 0, "steps")
    (path,) = (compared / "costs").glob("advbn_*.json")
    stored = json.loads(path.read_text())
    stored["result"] |= {"ratio": 2.0}
    del stored["result"]["ratio_without_views"]
    path.write_text(json.dumps(stored))
    assert grid.cost(trial).ratio == 2
    assert grid.cost(trial).ratio_without_views > 0
    completed = json.loads(path.read_text())["result"]
    assert completed == {**stored["result"], "ratio_without_views": grid.cost(trial).ratio_without_views}


def test_views_count_in_one_cost_and_not_in_the_other(monkeypatch):
    made = []
    original = Collator.__call__
    weights = {"image": 0, "image and two augmix": 4}
    monkeypatch.setattr(
        Collator, "__call__", lambda self, rows: made.extend([1] * weights[self.views.name]) or original(self, rows)
    )
    monkeypatch.setattr(
        costs, "time_in_turn", lambda steps, *_, **__: {name: [seconds(step)] for name, step in steps.items()}
    )

    def seconds(step):  # one, and four if it makes the views of AugMix
        before = len(made)
        step()
        return 1 + len(made) - before

    base, _ = new_classifier(json.dumps(MODELS["resnet"]), [str(digit) for digit in range(10)])
    images = load_decoded("digits", "clean", "train", 8)
    timed = {name: METHODS[name] for name in ("plain", "augmix_jsd")}
    found = costs.time_steps(timed, "plain", base, images, SMALL.tuning, 1)
    assert found == {"plain": costs.Cost(1000, 1, 1), "augmix_jsd": costs.Cost(5000, 5, 1)}


def test_a_damaged_result_is_named(tmp_path):
    store = Store(tmp_path)
    store.put({"method": "plain", "config": {"a": 1}}, {"value": 1.5})
    assert store.get({"method": "plain", "config": {"a": 1}}) == {"value": 1.5}
    assert store.get({"method": "plain", "config": {"a": 2}}) is None
    next(tmp_path.glob("plain_*.json")).write_text("{")
    with pytest.raises(InputError, match=r"plain_\w+\.json"):
        list(store.all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "plain"], "option method;"),
        (["--methods", "advbn:stepsize=1"], "'stepsize'"),
        (["--datasets", "letters"], "datasets: .*'letters'"),
        (["--models", "alexnet"], "models: .*'alexnet'"),
        (["--budgets", "money"], "budgets: .*'money'"),
        (["--split", "train"], "split"),
        (["--steps", "0"], "steps"),
        (["--seeds", "-1"], "seeds"),
        (["--reference", "none"], "methods: .*'none'"),
        (["--timed_steps", "0"], "timed_steps"),
    ],
)
def test_mistakes(monkeypatch, capsys, options, message):
    with pytest.raises(SystemExit) as left:
        recipe(monkeypatch, *options)
    assert left.value.code == 2
    assert re.search(f"error: .*{message}", capsys.readouterr().err)


def test_a_method_whose_library_is_missing_is_refused_before_anything_is_trained(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "torchvision.transforms", None)
    with pytest.raises(SystemExit) as left:
        recipe(monkeypatch, *OPTIONS, "--output_dir", tmp_path, "--methods", "plain", "trivialaugment_advbn")
    assert left.value.code == 2
    assert re.search(r"error: .*trivialaugment.*advbn_hf\[augmentation\]", capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_unknown_key_of_the_file(monkeypatch, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("metods: [plain]\n")
    with pytest.raises(SystemExit) as left:
        recipe(monkeypatch, tmp_path / "mine.yaml")
    assert left.value.code == 2
    assert re.search("mine.yaml: .*metods;.* methods", capsys.readouterr().err)


@pytest.fixture
def drawn_by_designers(tmp_path):
    """What recipes/designers.py writes, and models/lite0, in small."""
    for split in SPLITS:
        for number, name in enumerate(("cat", "cup", "sun")):
            place = tmp_path / "designers" / "concepts" / split.name / name
            place.mkdir(parents=True)
            for copied in range(3):
                Image.new("RGB", (32, 32), (80 * number, 60 * copied, 9)).save(place / f"{name}-{copied}.png")
    data_files = [{"split": split.name, "path": f"{split.name}/**"} for split in SPLITS]
    card = {"configs": [{"config_name": "default", "data_files": data_files}]}
    (tmp_path / "designers" / "concepts" / "README.md").write_text(f"---\n{json.dumps(card)}\n---\n")
    (tmp_path / "designers" / "concepts" / "suite.yaml").write_text("")
    new_classifier(json.dumps(MODELS["resnet"]), ["bird", "car"])[0].save_pretrained(tmp_path / "models" / "lite0")
    return [
        "--designers",
        tmp_path / "designers",
        "--pretrained",
        tmp_path / "models",
        "--output_dir",
        tmp_path / "out",
    ]


@pytest.mark.parametrize(
    ("split", "measured"),
    [
        ("validation", ["Twemoji", "Twemoji vivid"]),
        ("test", ["OpenMoji", "OpenMoji vivid", "OpenMoji line art", "Fluent flat", "Fluent flat vivid", "Fluent",
                  "Fluent vivid"]),
    ],
)  # fmt: skip
def test_a_pretrained_model_on_drawings_of_others(split, measured, monkeypatch, drawn_by_designers, tmp_path):
    options = ["--methods", "advbn", "--datasets", "concepts", "--models", "lite0", "--seeds", "0", "--split", split,
               "--steps", "2", "--batch_size", "4", "--timed_steps", "1"]  # fmt: skip
    recipe(monkeypatch, *options, *drawn_by_designers)
    (trial,) = json.loads((tmp_path / "out" / "comparison.json").read_text())["trials"]
    accuracies = trial["result"]["accuracy"]["clean"]
    assert set(accuracies) == {"clean", *measured, "unseen"}
    assert trial["result"]["n"] == dict.fromkeys(accuracies, 9)
    summary = json.loads((tmp_path / "out" / "comparison.json").read_text())["summary"]
    (mean,) = [entry["mean"] for entry in summary if (entry["branch"], entry["set"]) == ("clean", "shifts")]
    assert mean == pytest.approx(100 * sum(accuracies[name] for name in measured) / len(measured))
    assert f"Shifts are the mean of {', '.join(measured)}." in (tmp_path / "out" / "comparison.md").read_text()


def test_only_the_head_of_a_linear_probe_is_trained(monkeypatch, drawn_by_designers, tmp_path):
    options = ["--methods", "plain", "--datasets", "concepts", "--models", "lite0_probed", "lite0", "--seeds", "0",
               "--steps", "1", "--batch_size", "4", "--timed_steps", "1"]  # fmt: skip
    recipe(monkeypatch, *options, *drawn_by_designers)
    (base,) = (tmp_path / "out" / "bases").iterdir()
    weights, pretrained = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "models" / "lite0"))
    assert [name for name in weights if not torch.equal(weights[name], pretrained[name])] == [
        "classifier.1.bias",
        "classifier.1.weight",
    ]
    trials = json.loads((tmp_path / "out" / "comparison.json").read_text())["trials"]
    branches = {trial["model"]: trial["result"]["accuracy"].keys() for trial in trials}
    assert "interpolated" in branches["lite0_probed"]
    assert "interpolated" not in branches["lite0"]


@pytest.mark.parametrize("missing", ["designers", "pretrained"])
def test_what_is_not_there_is_named_with_the_command_that_makes_it(missing, monkeypatch, drawn_by_designers, capsys):
    options = [*drawn_by_designers, "--datasets", "concepts", "--models", "lite0", f"--{missing}", "nowhere"]
    with pytest.raises(SystemExit) as left:
        recipe(monkeypatch, *OPTIONS, *options)
    assert left.value.code == 2
    assert re.search(f"error: {missing}: .*nowhere.*python recipes/", capsys.readouterr().err)
