"""`recipes/interpolate.py` from outside: a plain checkpoint between two, and every mistake in one line."""

import sys

import interpolate
import pytest
import torch
from builders import models_equal, tiny_resnet
from transformers import AutoImageProcessor, AutoModelForImageClassification, ViTImageProcessorPil

from advbn_hf import AdvBNConfig, AdvBNForImageClassification
from advbn_hf.backbones.loading import load_processor
from advbn_hf.backbones.norms import two_branch_norms
from advbn_hf.utils.cli import run

CLASSES = ("ant", "bee", "cat", "dog", "eel")


@pytest.fixture
def models(tmp_path):
    """A base model, and an AdvBN checkpoint of the same classes."""
    names = {"id2label": dict(enumerate(CLASSES)), "label2id": {name: index for index, name in enumerate(CLASSES)}}
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    for folder, seed in (("base", 1), ("tuned", 2)):
        torch.manual_seed(seed)
        model = tiny_resnet(num_labels=5)
        model.config.update(names)
        for weight in model.parameters():
            weight.data += torch.rand_like(weight) / 10
        if folder == "tuned":
            model = AdvBNForImageClassification.from_backbone(model, AdvBNConfig())
            model.save_pretrained(tmp_path / folder, processor=processor)
        else:
            model.save_pretrained(tmp_path / folder)
            processor.save_pretrained(tmp_path / folder)
    return tmp_path


def recipe(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["interpolate.py", *map(str, arguments)])
    run(interpolate.main)


def load(folder):
    return AutoModelForImageClassification.from_pretrained(folder)


def test_weights_are_interpolated_and_the_processor_is_there(monkeypatch, models, capsys):
    recipe(monkeypatch, models / "base", models / "tuned", "--alpha", 0.25, "--output_dir", models / "out")
    base, tuned, model = (load(models / name).state_dict() for name in ("base", "tuned", "out"))
    for name, tensor in model.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, 0.75 * base[name] + 0.25 * tuned[name], rtol=1e-5, atol=1e-6)
    assert load(models / "out").config.id2label == dict(enumerate(CLASSES))
    assert AutoImageProcessor.from_pretrained(models / "out").size["height"] == 32
    assert "0.75" in capsys.readouterr().out


def test_statistics_are_re_estimated_on_a_dataset(monkeypatch, models, folders):
    arguments = (models / "base", models / "tuned/auxiliary")
    recipe(monkeypatch, *arguments, "--output_dir", models / "out")
    dataset = ("--dataset_name", folders / "data", "--num_images", 19, "--batch_size", 8)
    recipe(monkeypatch, *arguments, "--output_dir", models / "fitted", *dataset)
    plain, fitted = (load(models / name).state_dict() for name in ("out", "fitted"))
    differ = {name.rpartition(".")[2] for name in plain if not torch.equal(plain[name], fitted[name])}
    assert differ == {"running_mean", "running_var", "num_batches_tracked"}
    assert {int(tensor) for name, tensor in fitted.items() if "num_batches" in name} == {2}


def test_both_branches_make_a_soup(monkeypatch, models):
    model = AdvBNForImageClassification.from_pretrained(models / "tuned")
    for norm in two_branch_norms(model.backbone).values():
        norm.auxiliary.weight.data += 1
    model.save_pretrained(models / "tuned", processor=load_processor(models / "tuned"))
    recipe(monkeypatch, models / "tuned", models / "tuned/auxiliary", "--alpha", 0.3, "--output_dir", models / "out")
    assert models_equal(load(models / "out"), model.export("soup", weight=0.3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--alpha", "1.5"], "alpha"),
        (["--alpha", "nan"], "alpha"),
        (["--num_images", "1"], "num_images"),
        (["--batch_size", "0"], "batch_size"),
        (["--alfa", "1"], "--alfa"),
        (["--dataset_name", "no/such/folder"], "no/such/folder"),
        (["--output_dir", "base"], "output_dir"),
    ],
)
def test_mistakes_end_in_one_line(monkeypatch, models, capsys, options, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(models)
    with pytest.raises(SystemExit) as left:
        recipe(monkeypatch, "base", "tuned", "--output_dir", "out", *options)
    assert left.value.code == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert len(error) == 1 and message in error[0]
    assert not (models / "out").exists()


def test_models_that_do_not_fit_are_named(monkeypatch, models, capsys):
    tiny_resnet(num_labels=3).save_pretrained(models / "other")
    for base in ("other", "nowhere"):
        with pytest.raises(SystemExit) as left:
            recipe(monkeypatch, models / base, models / "tuned", "--output_dir", models / "out")
        assert left.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert "classifier" in errors[0] and "nowhere" in errors[1]
    assert not (models / "out").exists()
