"""A linear probe: the optimum of its loss, and nothing but the head changes."""

import json

import torch
from comparison.datasets import load_decoded
from comparison.linear_probe import train_linear_probe
from comparison.models import MODELS
from comparison.views import to_input
from torch.nn.functional import cross_entropy

from advbn_hf.backbones.loading import new_classifier
from advbn_hf.backbones.tracing import evaluating


def test_a_linear_probe_minimises_the_loss_of_its_head():
    images = load_decoded("digits", "clean", "train", 60)
    model = new_classifier(json.dumps(MODELS["resnet"]), list(images.names))[0].train()
    pixel_values = to_input(images.pixels)

    def loss() -> torch.Tensor:
        with evaluating(model):
            return cross_entropy(model(pixel_values).logits, images.labels)

    head = model.classifier[-1]
    before = loss()
    train_linear_probe(model, images, decay=0.01, iterations=500)
    assert model.training
    assert loss() < before
    (loss() + 0.005 * head.weight.square().sum()).backward()
    assert head.weight.grad.abs().max() < 1e-3
    assert head.bias.grad.abs().max() < 1e-3
