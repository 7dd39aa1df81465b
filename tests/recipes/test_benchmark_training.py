"""The training benchmark in small: it compares what it says it compares; no time is asserted."""

import json
import re
import sys

import benchmark
import pytest
import torch
from benchmarking import training as benchmark_training
from builders import images_and_labels, tiny_convnext, tiny_resnet, tiny_vit

from advbn_hf import AdvBNForImageClassification
from advbn_hf.method.losses import Objective
from advbn_hf.utils.cli import run

MODELS = {"resnet": tiny_resnet, "convnext": tiny_convnext, "vit": tiny_vit}


@pytest.mark.parametrize("name", MODELS)
def test_straightforward_and_ours_find_the_same_multipliers_and_losses(name):
    pixel_values, labels = images_and_labels()
    outputs, adversarial, gradients = [], [], []
    for model_class in (benchmark_training.StraightforwardForImageClassification, AdvBNForImageClassification):
        model = model_class.from_backbone(MODELS[name]().double(), benchmark_training.PUBLISHED).train()
        tail, seen = model.split.tail, []
        model.split.tail = lambda recording, features, within, tail=tail, seen=seen: (
            seen.append(features),
            tail(recording, features, within),
        )[1]
        outputs.append(model(pixel_values=pixel_values.double(), labels=labels))
        outputs[-1].loss.backward()
        adversarial.append([features.detach() for features in seen if features is not None])
        gradients.append({key: weight.grad for key, weight in model.named_parameters() if weight.grad is not None})
    assert len(adversarial[0]) == len(adversarial[1]) == 7  # six steps and the result
    for straightforward, ours in zip(*adversarial, strict=True):
        torch.testing.assert_close(ours, straightforward)
    torch.testing.assert_close(
        outputs[1].loss.double(), outputs[0].loss.double(), rtol=1e-5, atol=0
    )  # ours is float32
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)


def recipe(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--only", "training", *map(str, options)])
    run(benchmark.main)


@pytest.mark.slow
def test_in_small(monkeypatch, tmp_path, capsys):
    file = tmp_path / "new" / "benchmark.json"
    options = ["--models", "resnet_small", "--methods", "plain", "all_images", "recommended", "--switches", "none"]
    options += ["--precisions", "fp32", "--train_batch_size", "4", "--repeats", "2", "--output_file", file]
    recipe(monkeypatch, *options)
    written = json.loads(file.read_text())["training"]
    plain, ours, half = written["records"]
    assert (written["batch_size"], plain["method"], ours["method"]) == (4, "plain", "all_images")
    assert plain["ratio"] == [1, 1, 1]
    assert len(ours["seconds"]) == 2
    ratios = [one / other for one, other in zip(ours["seconds"], plain["seconds"], strict=True)]
    assert ours["ratio"] == [round(value, 4) for value in (sum(ratios) / 2, min(ratios), max(ratios))]
    assert ours["memory_mb"] > 0
    # Behind a stem both run once: 8/3 passes of the tail instead of one, and 4/3 with the batch shared out.
    assert half["operations_ratio"] - 1 == pytest.approx((ours["operations_ratio"] - 1) / 5, rel=0.1)
    assert "recommended" in capsys.readouterr().out


@pytest.mark.parametrize("switches", ["channels_last", "compiled"])
def test_switches_reach_the_model(switches, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or model)
    compiled = []
    step = benchmark_training.Step("resnet_small", "recommended", switches, 2, torch.device("cpu"))
    step("bf16")
    assert bool(compiled) == (switches == "compiled")
    recording = step.model.split.stem(pixel_values=step.images)
    channels_last = recording.features.is_contiguous(memory_format=torch.channels_last)
    assert channels_last == (switches == "channels_last")
    perturbed, _ = step.model.perturb(recording, Objective(step.labels))
    assert perturbed.stride() == recording.features.stride()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "alexnet"], "models: .*'alexnet'"),
        (["--methods", "paper"], "methods: plain"),
        (["--train_batch_size", "0"], "train_batch_size"),
    ],
)
def test_mistakes(monkeypatch, capsys, options, message):
    with pytest.raises(SystemExit) as left:
        recipe(monkeypatch, *options)
    assert left.value.code == 2
    assert re.search(f"error: {message}", capsys.readouterr().err)
