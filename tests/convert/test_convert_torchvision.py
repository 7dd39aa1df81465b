"""Plain torchvision ResNets become checkpoints with both branches, under ImageNet's names."""

import json
import re

import convert
import pytest
import torch
from functional_resnet import functional_logits
from reference_formula import formula_state_dict, formula_tensor
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForImageClassification

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, InputError
from advbn_hf.convert import convert_state_dict, load_checkpoint

WIDTHS = (8, 12, 16, 20)
DEPTHS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


def published(depth, num_classes=10):
    return formula_state_dict(DEPTHS[depth], WIDTHS, bottleneck=depth >= 50, cut=1, num_classes=num_classes)


def torchvision(state, counts=True):
    """The clean branch of a published state dict under torchvision's names."""
    renamed = {}
    for key, value in state.items():
        if "adv_bn" in key or (not counts and "num_batches" in key):
            continue
        key = key.replace("feature_x.0.", "conv1.").replace("feature_x.1.", "bn1.").replace("head.", "")
        key = re.sub(r"feature_x\.4\.", "layer1.", key)
        key = re.sub(r"layer(\d)_(\d+)", r"layer\1.\2", key)
        key = key.replace("downsample.conv", "downsample.0").replace("downsample.clean_bn", "downsample.1")
        renamed[key.replace("clean_bn", "bn")] = value
    return renamed


@pytest.mark.parametrize("depth", DEPTHS)
def test_both_branches_give_the_logits_of_a_plain_resnet(depth):
    state = published(depth)
    clean, auxiliary, config = convert_state_dict(torchvision(state))
    assert config == AdvBNConfig()
    x = formula_tensor("x", (2, 3, 64, 64))
    expected = functional_logits(state, x, "clean", DEPTHS[depth], cut=1)
    for model in (clean, auxiliary):
        with torch.no_grad():
            torch.testing.assert_close(model(x).logits, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    assert clean.config.id2label[9] == "LABEL_9"


def test_old_files_without_counts_and_wrapped_ones(tmp_path):
    state = torchvision(published(18), counts=False)
    assert {"conv1.weight", "bn1.running_mean", "layer2.0.downsample.1.bias", "fc.bias"} <= state.keys()
    torch.save(
        {"epoch": 90, "state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "a.pth"
    )
    save_file(state, tmp_path / "a.safetensors")
    models = [load_checkpoint(tmp_path / name).state_dict() for name in ("a.pth", "a.safetensors")]
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])


def test_the_recipe_gives_imagenet_its_names(tmp_path, monkeypatch, capsys):
    torch.save(torchvision(published(18, num_classes=1000)), tmp_path / "resnet.pth")
    monkeypatch.setattr("sys.argv", ["convert.py", str(tmp_path / "resnet.pth"), str(tmp_path / "out")])
    convert.main()
    assert "1000 classes" in capsys.readouterr().out
    for where in ({}, {"subfolder": "auxiliary"}):
        config = AutoConfig.from_pretrained(tmp_path / "out", **where)
        # As microsoft/resnet-50 has them; two classes of ImageNet are called crane.
        names = {0: "tench, Tinca tinca", 134: "crane", 282: "tiger cat", 517: "crane", 639: "maillot, tank suit"}
        names[999] = "toilet tissue, toilet paper, bathroom tissue"
        assert {index: config.id2label[index] for index in names} == names
        assert len(config.id2label) == 1000
        assert config.label2id["tench, Tinca tinca"] == 0
    model = AdvBNForImageClassification.from_pretrained(tmp_path / "out")
    assert model.advbn_config.insert_after == "resnet.embedder"
    assert AutoModelForImageClassification.from_pretrained(tmp_path / "out").num_labels == 1000
    assert json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())["crop_pct"] == 0.875


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"layer1.0.conv1.weight": s["layer1.0.conv1.weight"][:4]}, "'layer1.0.conv1.weight' has shape"),
        (lambda s: {k: v for k, v in s.items() if k != "fc.weight"}, "'fc.weight' is missing"),
        (lambda s: {k: v for k, v in s.items() if "layer3" not in k}, "'layer3.0.conv2.weight' is missing"),
        (lambda s: s | {"layer1.0.se.fc.weight": torch.ones(1)}, "'layer1.0.se.fc.weight' is unexpected"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(InputError, match=re.escape(message)) as error:
        convert_state_dict(change(torchvision(published(18))))
    assert "expected a torchvision ResNet" in str(error.value)
