"""`recipes/evaluate.py` from outside: shipped suites in small, resuming, two processes, every mistake in one line."""

import importlib.util
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import datasets
import evaluate
import pytest
import yaml
from accelerate.state import AcceleratorState
from builders import save_digit_models, save_images
from transformers import AutoImageProcessor, AutoModelForImageClassification

from advbn_hf import evaluate_suite
from advbn_hf.data.loading import load_images
from advbn_hf.evaluation import runner
from advbn_hf.evaluation.metrics import load_metric
from advbn_hf.utils.cli import run

RECIPE = Path(__file__).parents[2] / "recipes" / "evaluate.py"
DIGITS = [str(digit) for digit in range(10)]


@pytest.fixture(scope="module")
def recipe():
    """The module under a name of its own, since `evaluate` is a library."""
    spec = importlib.util.spec_from_file_location("evaluate_recipe", RECIPE)
    module = sys.modules["evaluate_recipe"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Two models and an imagefolder."""
    folder = tmp_path_factory.mktemp("job")
    save_digit_models(folder)
    save_images(folder / "data" / "validation", DIGITS, per_class=2)
    return folder


@pytest.fixture(autouse=True)
def own_state(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    AcceleratorState._reset_state(reset_partial_state=True)  # no other precision can be asked for within a process
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def evaluate_model(recipe, job, monkeypatch, capsys):
    """Runs the recipe on a model in `job`; gives what it printed, or the one error where it ended with exit code 2."""

    def call(*options, model="advbn"):
        arguments = ["evaluate.py", "--model", job / model, *options]
        monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
        capsys.readouterr()
        try:
            run(recipe.main)
        except SystemExit as left:
            assert left.code == 2
            errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
            assert len(errors) == 1
            return errors[0]
        return capsys.readouterr().out

    return call


def suite(folder, *sets):
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump({"sets": list(sets)}))
    return path


def records(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.mark.slow
def test_embedded_suite_with_a_baseline(evaluate_model, job, tmp_path):
    out = evaluate_model("--baseline", job / "plain", "--max_samples", 30, "--output_dir", tmp_path, "--bf16", "true")
    assert {"results.json", "results.md", "results.png"} <= {path.name for path in tmp_path.iterdir()}
    accuracies = [record for record in records(tmp_path) if record["metric"] == "accuracy"]
    assert {(record["model"], record["branch"]) for record in accuracies} == {
        ("advbn", "clean"),
        ("advbn", "auxiliary"),
        ("advbn (mean of branches)", None),
        ("baseline", None),
    }
    assert {record["set"] for record in accuracies} == {
        "clean", "filters", "corruptions", "stylized", "sketch", "inverted"
    }  # fmt: skip
    assert {record["n"] for record in accuracies} == {30}
    assert "mean of 4 sets" in out and "AdvBN auxiliary" in out and "(p " in out


@pytest.mark.slow
def test_the_recipe_is_one_call_with_options(evaluate_model, job, tmp_path):
    options = ["--baseline", job / "plain", "--dataset_name", job / "data", "--sets", "clean", "greyscale"]
    evaluate_model(*options, "--max_samples", 12, "--output_dir", tmp_path)
    of_dataset = {"overrides": {"dataset": str(job / "data")}, "sets": ["clean", "greyscale"], "max_samples": 12}
    called = evaluate_suite(job / "advbn", "generic", baseline=job / "plain", **of_dataset)
    assert records(tmp_path) == [asdict(record) for record in called]


@pytest.mark.slow
def test_any_data_set_with_generated_shifts(evaluate_model, job, tmp_path):
    options = ["--dataset_name", job / "data", "--sets", "clean", "corruptions", "sketch", "--output_dir", tmp_path]
    out = evaluate_model(*options, "--max_samples", 4, model="plain")
    assert "corruptions (ImageNet-C-style, generated)" in out
    assert (tmp_path / "severities.png").exists()
    severities = {(r["shift"], r["severity"]) for r in records(tmp_path) if r["shift"] and r["severity"]}
    assert len(severities) == 75
    assert {record["model"] for record in records(tmp_path)} == {"plain"}


def test_what_is_finished_is_not_computed_again(evaluate_model, job, tmp_path, monkeypatch):
    shutil.copytree(job / "data", tmp_path / "bad")
    (tmp_path / "bad" / "validation" / "3" / "1.png").write_bytes(b"no image")
    sets = [
        {"name": name, "dataset": str(folder)} for name, folder in (("good", job / "data"), ("bad", tmp_path / "bad"))
    ]
    sets.append({"name": "inverted", "dataset": str(job / "data"), "shift": "inversion"})
    options = ["--suite", suite(tmp_path, *sets), "--output_dir", tmp_path / "out"]
    error = evaluate_model(*options)
    assert error.startswith("error: set 'bad': row 7 (")
    assert "3/1.png)" in error
    assert [path.name.split("-")[0] for path in (tmp_path / "out" / "predictions").glob("*.safetensors")] == ["good"]

    (tmp_path / "bad" / "validation" / "3" / "1.png").unlink()
    predicted = []
    monkeypatch.setattr(
        runner,
        "predict",
        lambda *a, predict=runner.predict, **k: predicted.append(k["description"]) or predict(*a, **k),
    )
    evaluate_model(*options)
    assert predicted == ["advbn on bad", "advbn on inverted inversion"]
    before = (tmp_path / "out" / "results.json").read_bytes()
    evaluate_model(*options)
    assert len(predicted) == 2
    assert (tmp_path / "out" / "results.json").read_bytes() == before
    evaluate_model(*options, model="plain")  # another model is not taken for the first
    assert len(predicted) == 5


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_bad_images_are_left_out_on_request(evaluate_model, job, tmp_path, caplog, num_workers):
    shutil.copytree(job / "data", tmp_path / "bad")
    (tmp_path / "bad" / "validation" / "3" / "1.png").write_bytes(b"no image")
    options = ["--suite", suite(tmp_path, {"name": "bad", "dataset": str(tmp_path / "bad"), "shift": "greyscale"})]
    options += ["--output_dir", tmp_path / "out", "--num_workers", num_workers]
    assert "row 7 (" in evaluate_model(*options)
    with caplog.at_level(logging.WARNING, logger="advbn_hf"):
        evaluate_model(*options, "--skip_bad_images", "true")
    (warning,) = [message for message in caplog.messages if "1.png" in message]
    assert "left out of bad" in warning
    assert {record["n"] for record in records(tmp_path / "out")} == {19}
    assert "row 7 (" in evaluate_model(*options)  # not taken from the run that left it out


@pytest.mark.slow
def test_check_says_what_there_is_before_anything_runs(evaluate_model, job, tmp_path):
    save_images(tmp_path / "fog" / "2", ["1", "5"], per_class=3)
    entries = [
        {"name": "good", "dataset": str(job / "data"), "shift": "fog"},
        {"name": "released", "dataset": str(tmp_path), "layout": "imagenet-c"},
        {"name": "away", "dataset": str(tmp_path / "away")},
    ]
    out = evaluate_model("--suite", suite(tmp_path, *entries[:2]), "--check", "--output_dir", tmp_path / "o")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "good yes 20 5 image, label 10 of 10 classes" in lines
    assert "released yes 6 1 image, label 2 of 2 classes" in lines
    error = evaluate_model("--suite", suite(tmp_path, *entries), "--check", "--output_dir", tmp_path / "o")
    assert error.startswith("error: 1 of 3 sets ") and "away" in error
    assert not (tmp_path / "o").exists()


def mistake(name):
    """A set of a suite with one mistake in it; {data} stands for a good imagefolder, {tmp} for a folder."""
    good = {"name": "a", "dataset": "{data}"}
    return {
        "unknown shift": ([good | {"shift": "fogg"}], "set 'a': shift: "),
        "severity": ([good | {"shift": "fog", "severities": [0]}], "set 'a': severities: "),
        "two of one name": ([good, good], "sets: "),
        "unreachable": ([good | {"dataset": "me/missing"}], "set 'a': dataset 'me/missing': "),
        "unlabelled": ([good | {"dataset": "{tmp}/unlabelled"}], "unlabelled': "),
        "no overlap": ([good | {"dataset": "{tmp}/others"}], "set 'a': labels: "),
        "no released files": ([good | {"dataset": "{tmp}/others", "layout": "imagenet-c"}], "set 'a': dataset: "),
        "no split": ([good | {"split": "test"}], "test"),
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "unknown shift",
        "severity",
        "two of one name",
        "unreachable",
        "unlabelled",
        "no overlap",
        "no released files",
        "no split",
    ],
)
def test_mistakes_in_the_suite_end_in_one_line_before_any_work(evaluate_model, job, tmp_path, monkeypatch, name):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    save_images(tmp_path / "others" / "validation", ["ant", "bee"], per_class=1)
    save_images(tmp_path / "unlabelled", ["validation"], per_class=2)
    sets, message = mistake(name)
    text = json.dumps(sets).replace("{data}", str(job / "data")).replace("{tmp}", str(tmp_path))
    good = {"name": "good", "dataset": str(job / "data")}
    error = evaluate_model("--suite", suite(tmp_path, good, *json.loads(text)), "--output_dir", tmp_path / "out")
    assert message in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--suite", "imagnet"], "suite: .*imagnet.*embedded, generic, imagenet"),
        (["--suite", "generic"], "dataset_name"),
        (["--sets", "cleen"], "sets: .*'cleen'.*'clean'"),
        (["--batch_size", "0"], "batch_size"),
        (["--max_samples", "-1"], "max_samples"),
        (["--modell", "x"], "option modell;.* model"),
        (["--baseline", "no/such/model"], "no/such/model"),
        (["--suite", "imagenet", "--dataset_name", "x"], "imagenet.yaml: dataset: "),
    ],
)
def test_mistakes_in_the_options(evaluate_model, monkeypatch, tmp_path, options, message):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert re.search(message, evaluate_model(*options, "--output_dir", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_missing_extra_is_named(evaluate_model, job, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pilgram2", None)
    options = ["--dataset_name", job / "data", "--sets", "filters", "--output_dir", tmp_path / "out"]
    assert "pip install advbn_hf[filters]" in evaluate_model(*options)
    assert not (tmp_path / "out").exists()


PUSH = """
from datasets import load_dataset
load_dataset("data", split="validation").push_to_hub("me/digits", split="validation")
"""


@pytest.mark.slow
def test_what_can_be_reached_on_the_hub(hub, job, tmp_path):
    token = hub.token()
    pushed = hub.run(PUSH, token=token, cwd=job)
    assert pushed.returncode == 0, pushed.stderr
    hub.api(token).create_repo("me/gated", repo_type="dataset")
    hub.repo("me/gated", "dataset").gated = "auto"
    sets = [{"name": name, "dataset": f"me/{name}"} for name in ("digits", "gated", "missing")]
    arguments = [RECIPE, "--model", job / "plain", "--output_dir", tmp_path / "out", "--suite"]
    environment = {"PYTHONPATH": str(RECIPE.parents[1])}

    done = hub.run([*arguments, suite(tmp_path, *sets), "--check"], env=environment)
    assert done.returncode == 2
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: 2 of 3 sets ") and "gated, missing" in error
    lines = {line.split()[0].rstrip(":"): " ".join(line.split()) for line in done.stdout.splitlines()}
    assert "digits yes 20 1 image, label 10 of 10 classes" in lines.values()
    gated = lines["gated"]
    assert "'me/gated'" in gated and "hf auth login" in gated
    assert "'me/missing'" in lines["missing"] and "doesn't exist" in lines["missing"] and "doesn't exist" not in gated


def test_evaluator_of_evaluate_on_both_exported_branches(evaluate_model, job, tmp_path):
    evaluate_model("--dataset_name", job / "data", "--sets", "clean", "--output_dir", tmp_path)
    ours = {r["branch"]: r["value"] for r in records(tmp_path) if (r["model"], r["metric"]) == ("advbn", "accuracy")}
    data = load_images(str(job / "data"), "validation").cast_column("image", datasets.Image())
    for branch, subfolder in (("clean", ""), ("auxiliary", "auxiliary")):
        model = AutoModelForImageClassification.from_pretrained(job / "advbn", subfolder=subfolder)
        result = evaluate.evaluator("image-classification").compute(
            model_or_pipeline=model,
            feature_extractor=AutoImageProcessor.from_pretrained(job / "advbn"),
            data=data,
            metric=load_metric("top_k_accuracy"),
            label_mapping=model.config.label2id,
        )
        assert (result["top_k_accuracy"], result["n"]) == (pytest.approx(ours[branch]), 20)


@pytest.mark.slow
def test_two_processes_give_the_same_predictions(evaluate_model, job, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(RECIPE.parents[1]), "ACCELERATE_USE_CPU": "true"}
    environment["HF_DATASETS_CACHE"] = str(tmp_path / "cache")
    options = ["--dataset_name", job / "data", "--sets", "clean", "greyscale", "--batch_size", 3, "--output_dir"]
    evaluate_model(*options, tmp_path / "one")
    command = ["torchrun", "--standalone", "--nproc_per_node", "2", RECIPE, "--model", job / "advbn", *options]
    command = [str(part) for part in (*command, tmp_path / "two")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "one" / "results.json").read_bytes() == (tmp_path / "two" / "results.json").read_bytes()
    stored = sorted((tmp_path / "one" / "predictions").iterdir())
    assert len(stored) == 2
    for path in stored:
        assert path.read_bytes() == (tmp_path / "two" / "predictions" / path.name).read_bytes()
