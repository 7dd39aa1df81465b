"""`recipes/finetune.py` from outside: the quickstart in small, a real job on folders, every mistake in one line."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import finetune
import pytest
from builders import tiny_resnet
from huggingface_hub import constants
from jobs import job
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTImageProcessorPil,
)

from advbn_hf import AdvBNForImageClassification, InputError
from advbn_hf.data.embedded.digits import STYLES
from advbn_hf.utils.cli import run

RECIPE = Path(finetune.__file__)


def recipe(monkeypatch, arguments):
    monkeypatch.setattr(sys, "argv", ["finetune.py", *map(str, arguments)])
    run(finetune.main)


@pytest.mark.slow
def test_quickstart_in_small(tmp_path):
    output = tmp_path / "outputs"
    settings = ["--max_steps", "3", "--base_epochs", "0.1", "--max_eval_samples", "40"]
    config = RECIPE.parent / "configs" / "quickstart.yaml"
    done = subprocess.run(
        ["accelerate", "launch", str(RECIPE), str(config), "--output_dir", str(output), *settings],
        env={**os.environ, "PYTHONPATH": str(RECIPE.parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "AdvBN auxiliary" in done.stdout
    files = {path.name for path in output.iterdir()}
    assert {"config.json", "model.safetensors", "auxiliary", "advbn_config.json", "README.md"} <= files
    assert {"results.json", "results.png", "samples.png"} <= files
    records = json.loads((output / "results.json").read_text())
    found = {(record["model"], record["branch"], record["set"], record["metric"]) for record in records}
    references = [("base", None), ("baseline", None)]
    ours = [("advbn", "clean"), ("advbn", "auxiliary"), ("advbn (mean of branches)", None)]
    metrics = ("accuracy", "top5_accuracy", "ece")
    expected = {(*model, style, metric) for model in references + ours for style in STYLES for metric in metrics}
    assert found == expected | {(*model, style, "gain_p_value") for model in ours for style in STYLES}
    assert {record["n"] for record in records} == {40}
    assert "(p " in done.stdout and "mean of 4 sets" in done.stdout and "calibration error" in done.stdout
    card = (output / "README.md").read_text()
    assert "results.png" in card and "AdvBN mean" in card and "(p " in card and "gain_p_value" not in card
    assert str(tmp_path) not in card
    for folder in (output, output / "auxiliary", output / "base", output / "baseline"):
        assert AutoModelForImageClassification.from_pretrained(folder).config.id2label[9] == "9"
        assert AutoImageProcessor.from_pretrained(folder).size["height"] == 48


@pytest.mark.parametrize(
    "options",
    [
        ("--augmentation", "augmix", "--augmentation_times", "2"),
        ("--streaming", "true", "--augmentation", "prime"),
        ("--baseline", "true", "--bf16", "true", "--augmentation", "randconv", "--augmented_branch", "auxiliary"),
        ("--baseline", "true", "--augmentation", "prime", "--augmented_branch", "auxiliary", "--crop_flip", "false"),
    ],
)
def test_real_job_on_folders(monkeypatch, folders, tmp_path, capsys, options):
    recipe(monkeypatch, job(folders, tmp_path / "run", *options))
    model = AdvBNForImageClassification.from_pretrained(tmp_path / "run")
    assert model.config.id2label == dict(enumerate(("ant", "bee", "cat", "dog", "eel")))
    records = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {(record["set"], record["n"]) for record in records} == {("clean", 10)}
    assert "clean" in capsys.readouterr().out
    card = (tmp_path / "run" / "README.md").read_text()
    assert f"| augmentation | {options[options.index('--augmentation') + 1]} |" in card
    assert (r"| augmentation\_times | 2 |" in card) == ("--augmentation_times" in options)
    assert ("augmented_branch" in card) == ("--augmented_branch" in options)
    assert (r"| crop\_flip | false |" in card) == ("--crop_flip" in options)


def test_a_part_of_the_evaluation_split_is_drawn_from_all_classes(monkeypatch, folders, tmp_path):
    data = tmp_path / "data"
    for name in ("ant", "bee", "cat", "dog", "eel"):
        shutil.copytree(folders / "data" / "train" / name, data / "train" / name)
        (data / "validation" / name).mkdir(parents=True)
        for index in range(8):
            shutil.copy(folders / "data" / "train" / name / "0.png", data / "validation" / name / f"{index}.png")
    options = ("--dataset_name", data, "--max_eval_samples", "10")
    drawn = {}
    for number in (0, 1):
        monkeypatch.setattr(
            finetune, "plot_samples", lambda sets, path, number=number: drawn.update({number: sets["clean"]["label"]})
        )
        recipe(monkeypatch, job(folders, tmp_path / f"run{number}", *options))
    assert len(drawn[0]) == 10 and len(set(drawn[0])) > 2
    assert list(drawn[0]) == list(drawn[1])
    first, second = (json.loads((tmp_path / f"run{number}" / "results.json").read_text()) for number in (0, 1))
    assert first == second and {record["n"] for record in first} == {10}


def test_insertion_points_are_listed_without_a_data_set(monkeypatch, folders, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    recipe(monkeypatch, ["--model_name_or_path", folders / "model", "--list_insertion_points", "true"])
    lines = capsys.readouterr().out.splitlines()
    named = [line.split() for line in lines if "<-" in line]
    assert [(words[0], words[-1]) for words in named] == [
        ("resnet.embedder", "embeddings"),
        ("resnet.encoder.stages.0", "auto"),
    ]
    assert "8 x 8 x 8" in " ".join(named[1])
    assert any(line.startswith("resnet.encoder.stages.1.layers.0 ") for line in lines)
    with pytest.raises(SystemExit) as left:
        recipe(monkeypatch, ["--list_insertion_points", "true"])
    assert left.value.code == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_stored_stem_features_change_nothing(monkeypatch, folders, tmp_path):
    options = ("--augment", "false", "--max_steps", "6", "--baseline", "true", "--bf16", "true")
    recipe(monkeypatch, job(folders, tmp_path / "images", *options))
    recipe(monkeypatch, job(folders, tmp_path / "features", *options, "--cache_stem_features", "true"))
    names = sorted(path.relative_to(tmp_path / "images") for path in (tmp_path / "images").rglob("*.safetensors"))
    assert len(names) >= 3
    for name in names:
        assert (tmp_path / "images" / name).read_bytes() == (tmp_path / "features" / name).read_bytes(), name
    assert not (tmp_path / "features" / "stem_features").exists()


def test_new_head_for_other_classes(monkeypatch, folders, tmp_path):
    tiny_resnet(num_labels=3).save_pretrained(tmp_path / "three")
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "three")
    options = ["--model_name_or_path", tmp_path / "three"]
    with pytest.raises(SystemExit) as left:
        recipe(monkeypatch, job(folders, tmp_path / "run", *options))
    assert left.value.code == 2
    recipe(monkeypatch, job(folders, tmp_path / "run", *options, "--ignore_mismatched_sizes", "true"))
    assert AutoModelForImageClassification.from_pretrained(tmp_path / "run").config.num_labels == 5
    records = json.loads((tmp_path / "run" / "results.json").read_text())
    assert "base" not in {record["model"] for record in records}  # its head has learned nothing


def test_images_of_another_size_and_a_suite_to_report_on(monkeypatch, folders, tmp_path):
    suite = {"sets": [{"name": "seen", "split": "train"}, {"name": "unseen"}], "mean_over": ["seen", "unseen"]}
    (tmp_path / "suite.yaml").write_text(json.dumps(suite))
    options = ("--suite", tmp_path / "suite.yaml", "--image_size", "48", "--eval_split", "validation")
    recipe(monkeypatch, job(folders, tmp_path / "run", *options))
    for folder in ("run", "run/auxiliary"):
        assert AutoImageProcessor.from_pretrained(tmp_path / folder).size["height"] == 48
    records = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {(record["set"], record["n"]) for record in records} == {("seen", 20), ("unseen", 10)}
    assert "mean of 2 sets" in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.slow
def test_resuming_a_run(monkeypatch, folders, tmp_path):
    saving = ("--save_strategy", "steps", "--save_steps", "1", "--baseline", "true")
    recipe(monkeypatch, job(folders, tmp_path / "whole", *saving))
    recipe(monkeypatch, job(folders, tmp_path / "parts", *saving, "--max_steps", "1"))
    recipe(monkeypatch, job(folders, tmp_path / "parts", *saving, "--resume_from_checkpoint", "last"))
    state = json.loads((tmp_path / "parts" / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["global_step"] == 2


def test_a_baseline_of_another_tail_is_not_taken(monkeypatch, folders, tmp_path, capsys):
    options = ("--save_strategy", "steps", "--save_steps", "1", "--baseline", "true", "--insert_after")
    recipe(monkeypatch, job(folders, tmp_path / "run", *options, "auto"))
    for checkpoint in (tmp_path / "run").glob("checkpoint-*"):  # as if it had ended behind its baseline
        shutil.rmtree(checkpoint)
    with pytest.raises(SystemExit) as ended:
        recipe(monkeypatch, job(folders, tmp_path / "run", *options, "embeddings", "--resume_from_checkpoint", "last"))
    assert ended.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.search("insert_after.*resnet.encoder.stages.0.*resnet.embedder", error)


def test_bad_images_are_named_or_left_out(monkeypatch, folders, tmp_path, capsys):
    shutil.copytree(folders / "data", tmp_path / "data")
    (tmp_path / "data" / "train" / "bee" / "1.png").write_bytes(b"no image")
    arguments = job(folders, tmp_path / "run", "--dataset_name", tmp_path / "data", "--max_steps", "4")
    with pytest.raises(SystemExit) as left:
        recipe(monkeypatch, arguments)
    assert left.value.code == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    assert "row 5" in error[0]
    assert "bee/1.png" in error[0]
    arguments = job(folders, tmp_path / "again", "--dataset_name", tmp_path / "data", "--max_steps", "4")
    recipe(monkeypatch, [*arguments, "--skip_bad_images", "true"])
    assert "bee/1.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epsilon", "0"], "epsilon"),
        (["--num_steps", "-1"], "num_steps"),
        (["--num_perturbations", "0"], "num_perturbations"),
        (["--num_perturbations", "9"], "num_perturbations (9)"),
        (["--max_stepps", "2"], "max_steps"),
        (["--insert_after", "resnet.encoder.stages.7"], "'resnet.encoder.stages.7'"),
        (["--insert_after", "classifier.1"], "classifier.1"),
        (["--dataset_name", "no/such/folder"], "no/such/folder"),
        (["--eval_split", "test"], "validation"),
        (["--label_column", "kind"], "label_column"),
        (["--model_name_or_path", "no/such/folder"], "no/such/folder"),
        (["--streaming", "true", "--max_steps", "-1"], "max_steps: "),
        (["--cache_stem_features", "true"], "cache_stem_features: augmented"),
        (["--cache_stem_features", "true", "--augmentation", "augmix"], "cache_stem_features: augmented"),
        (["--augmentation", "triviallaugment"], "augmentation: there is no 'triviallaugment'; did you mean"),
        (["--augmentation", "prime", "--augment", "false"], "augment: "),
        (["--augmentation", "trivialaugment"], 'pip install "advbn_hf[augmentation]"'),
        (["--augmented_branch", "clean"], "augmented_branch: "),
        (["--augmentation_times", "2"], "augmentation_times: 2 needs an augmentation beyond crop and flip"),
        (
            ["--augmentation", "prime", "--augmentation_times", "0"],
            "augmentation_times must be a whole number from 1 on, got 0",
        ),
        (["--crop_flip", "false"], "crop_flip: "),
        (["--augmentation", "prime", "--augmented_branch", "auxilary"], "augmented_branch: "),
        (
            ["--augmentation", "prime", "--augmented_branch", "clean", "--auxiliary_norms", "false"],
            "augmented_branch: ",
        ),
        (["--cache_stem_features", "true", "--streaming", "true"], "cache_stem_features: a stream"),
        (
            ["--cache_stem_features", "true", "--augment", "false", "--freeze_stem", "false"],
            "cache_stem_features: the stem",
        ),
        (["--max_eval_samples", "0"], "max_eval_samples"),
        (["--image_size", "0"], "image_size"),
        (["--suite", "no/such.yaml"], "suite: "),
        (["--resume_from_checkpoint", "nowhere"], "resume_from_checkpoint: "),
        (["--backbone_config", "{}"], "model_name_or_path: "),
        (["--license", "Apache License 2.0"], "license"),
        (["--do_predict", "true"], "do_predict: "),
    ],
)
def test_mistakes_end_in_one_line_before_any_work(monkeypatch, folders, tmp_path, capsys, options, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setitem(sys.modules, "torchvision.transforms", None)  # as if it were missing
    with pytest.raises(SystemExit) as left:
        recipe(monkeypatch, job(folders, tmp_path / "run", *options))
    assert left.value.code == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(error) == 1
    assert error[0].startswith("error: ")
    assert message in error[0]
    assert not (tmp_path / "run").exists()


def test_a_model_of_one_channel_is_refused(monkeypatch, folders, tmp_path, capsys):
    shutil.copytree(folders / "model", tmp_path / "grey")
    grey = ResNetConfig.from_pretrained(tmp_path / "grey", num_channels=1)
    ResNetForImageClassification(grey).save_pretrained(tmp_path / "grey")
    options = ("--model_name_or_path", tmp_path / "grey", "--augmentation", "prime")
    with pytest.raises(SystemExit) as left:
        recipe(monkeypatch, job(folders, tmp_path / "run", *options))
    assert left.value.code == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(error) == 1 and "num_channels 1" in error[0]
    assert not (tmp_path / "run").exists()


def test_nobody_trains_what_could_not_be_pushed(monkeypatch, folders, tmp_path, capsys, hub):
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    with pytest.raises(SystemExit) as left:
        recipe(monkeypatch, job(folders, tmp_path / "run", "--push_to_hub", "true"))
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert "error: run: " in error and "hf auth login" in error
    assert not (tmp_path / "run").exists()


def test_another_run_is_not_written_over(monkeypatch, folders, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text("[]")
    with pytest.raises(InputError, match="output_dir"):
        monkeypatch.setattr(sys, "argv", ["finetune.py", *job(folders, tmp_path / "run")])
        finetune.main()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["results.json"]
    (tmp_path / "run" / "results.json").rename(tmp_path / "run" / ".run.lock")  # what a killed run may leave
    finetune.main()


@pytest.mark.slow
def test_exit_code_without_a_traceback(folders, tmp_path):
    done = subprocess.run(
        [sys.executable, str(RECIPE), *job(folders, tmp_path / "run", "--epsilon", "-1")],
        env={**os.environ, "PYTHONPATH": str(RECIPE.parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert re.fullmatch("error: epsilon .*-1.0\n", done.stderr)
