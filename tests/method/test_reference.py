"""One training step of a ResNet-18 against numbers computed by the algorithm as first published.

The weights, inputs and labels come from `reference_formula`; the numbers are in `reference/resnet18_cut1.safetensors`.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from reference_formula import formula_batch, formula_state_dict
from safetensors.torch import load_file

from advbn_hf import AdvBNForImageClassification
from advbn_hf.convert import convert_state_dict
from advbn_hf.method import attack
from advbn_hf.method.losses import Objective

REFERENCE = load_file(Path(__file__).parents[1] / "reference" / "resnet18_cut1.safetensors")
TAIL = "resnet.encoder.stages.1.layers.0.layer"
AFTER_STEP = [("clean", "classifier.1.weight", "head.fc.weight")]
AFTER_STEP += [("clean", f"{TAIL}.0.convolution.weight", "head.layer2_0.conv1.weight")]
AFTER_STEP += [
    (branch, f"{TAIL}.{k - 1}.normalization.running_{value}", f"head.layer2_0.{norm}{k}.running_{value}")
    for branch, norm in (("clean", "clean_bn"), ("auxiliary", "adv_bn"))
    for k in (1, 2)
    for value in ("mean", "var")
]


def relative_error(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.fixture(scope="module")
def state_dict():
    return formula_state_dict(depths=(2, 2, 2, 2), cut=1)


@pytest.fixture
def model(state_dict):
    clean, auxiliary, config = convert_state_dict(state_dict)
    config = replace(config, num_perturbations=1)  # the reference has one process
    return AdvBNForImageClassification.from_branches(clean, auxiliary, config)


@pytest.fixture(scope="module")
def batch():
    return formula_batch()


def test_features_and_logits(model, batch):
    with torch.no_grad():
        features = model.split.stem(pixel_values=batch[0]).features
        assert relative_error(features, REFERENCE["features"]) < 1e-3
        for branch in ("clean", "auxiliary"):
            logits = model.eval()(pixel_values=batch[0], branch=branch).logits
            assert relative_error(logits, REFERENCE[f"logits_{branch}"]) < 1e-3


def test_multipliers_after_each_step(model, batch, monkeypatch):
    pixel_values, labels = batch
    found = []
    ascend = attack.ascend
    monkeypatch.setattr(attack, "ascend", lambda *args, **kwargs: found.append(ascend(*args, **kwargs)) or found[-1])

    config = model.train().advbn_config
    recording = model.split.stem(pixel_values=pixel_values)
    for steps in range(1, config.num_steps + 1):
        model.advbn_config = replace(config, num_steps=steps)
        model.perturb(recording, Objective(labels))

    expected = torch.stack([REFERENCE["multiplier_mean"], REFERENCE["multiplier_std"]], dim=1)
    equal = torch.isclose(torch.stack(found).squeeze(2), expected, atol=1e-5).float().mean(dim=(1, 2))
    assert len(equal) == 6
    assert equal.min() >= 0.98


def test_losses_weights_and_statistics_of_one_step(model, batch, state_dict):
    pixel_values, labels = batch
    tail = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(tail, lr=1e-3, momentum=0.9, weight_decay=1e-4)

    output = model.train()(pixel_values=pixel_values, labels=labels)
    output.loss.backward()
    optimizer.step()

    assert relative_error(output.clean_loss, REFERENCE["train_loss_clean"]) < 1e-3
    assert relative_error(output.adversarial_loss, REFERENCE["train_loss_adversarial"]) < 1e-3
    branches = {branch: model.export(branch) for branch in ("clean", "auxiliary")}
    for branch, key, name in AFTER_STEP:
        expected = REFERENCE[f"after_step.{name}"]
        rows = slice(len(expected))  # the reference holds the first rows of head.fc
        before, found = state_dict[name][rows], branches[branch].state_dict()[key][rows]
        assert relative_error(found, expected) < 1e-3, name
        # A step changes a weight by as little as 3e-5 of it, so the change is compared too.
        assert relative_error(found - before, expected - before) < 1e-2, name
    with torch.no_grad():
        for branch, plain in branches.items():
            assert relative_error(plain(pixel_values).logits, REFERENCE[f"after_step.logits_{branch}"]) < 1e-3, branch
