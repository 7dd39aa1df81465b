"""The example of a network of one's own, in `recipes/custom_model.py`."""

import json
import sys

import custom_model
import pytest
import torch
from builders import images_and_labels, move_auxiliary_norms
from custom_model import NetworkConfig, NetworkForImageClassification
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

from advbn_hf import AdvBNForImageClassification
from advbn_hf.utils.cli import run

PICTURES, LABELS = images_and_labels(size=48)


def wrapped():
    torch.manual_seed(0)
    network = NetworkForImageClassification(NetworkConfig(width=8, num_labels=5))
    return AdvBNForImageClassification.from_backbone(network)


def test_it_trains_and_its_branches_load_as_plain_models(tmp_path):
    model = wrapped()
    assert model.advbn_config.insert_after == "network.stages.0"
    assert model.split.rectified
    model.train()(PICTURES, LABELS).loss.backward()
    reached = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert reached == {name for name, _ in model.named_parameters() if ".stages.0." not in name}
    move_auxiliary_norms(model)
    model.eval().save_pretrained(tmp_path)
    for branch, subfolder in (("clean", ""), ("auxiliary", "auxiliary")):
        plain = AutoModelForImageClassification.from_pretrained(tmp_path, subfolder=subfolder)
        assert type(plain) is NetworkForImageClassification
        with torch.no_grad():
            assert torch.equal(plain(PICTURES).logits, model(PICTURES, branch=branch).logits)
    assert AdvBNForImageClassification.from_pretrained(tmp_path).advbn_config == model.advbn_config


def test_config_tells_how_to_rebuild_the_network(tmp_path):
    wrapped().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["model_type"], config["width"], "auto_map" in config) == ("my_network", 8, False)
    assert AutoConfig.from_pretrained(tmp_path).image_size == 48


@pytest.mark.slow
def test_the_recipe(tmp_path, monkeypatch, capsys):
    options = ["--output_dir", tmp_path, "--max_steps", 2, "--use_cpu", "true", "--report_to", "none"]
    monkeypatch.setattr(sys, "argv", ["custom_model.py", *map(str, options)])
    run(custom_model.main)
    assert "auxiliary: NetworkForImageClassification perturbed after network.stages.0" in capsys.readouterr().out
    assert AutoImageProcessor.from_pretrained(tmp_path).size["height"] == 48
