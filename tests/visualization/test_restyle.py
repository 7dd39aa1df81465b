"""Worst and random styles: what the settings say, and nothing left behind."""

import pytest
import torch
import torch.nn.functional as F
from builders import images_and_labels, move_auxiliary_norms, tiny_resnet

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, InputError
from advbn_hf.visualization.restyle import restyle


@pytest.fixture
def model():
    model = AdvBNForImageClassification.from_backbone(tiny_resnet(), AdvBNConfig.paper()).eval()
    move_auxiliary_norms(model.backbone)
    return model


def test_worst_styles_hurt_more_than_random_ones_and_more_so_at_larger_epsilon(model):
    images, labels = images_and_labels(16)
    recording = model.split.stem(pixel_values=images)

    def loss(epsilon, ascend):
        features = restyle(model, recording, labels, epsilon, ascend=ascend, seed=0)
        return F.cross_entropy(model.tail_logits(recording, features, "auxiliary"), labels).item()

    clean = F.cross_entropy(model.tail_logits(recording, None, "auxiliary"), labels).item()
    assert clean < loss(0.3, True) < loss(1.1, True)
    assert loss(1.1, False) < loss(1.1, True)


def test_a_random_style_is_the_draw_of_its_seed_and_grows_with_epsilon(model):
    images, labels = images_and_labels(4)
    recording = model.split.stem(pixel_values=images)
    drawn = torch.rand(4, 2, 8, generator=torch.Generator().manual_seed(5)).transpose(0, 1)
    mean = recording.features.mean((2, 3), keepdim=True)
    for epsilon in (0.2, 0.6):
        scale, shift = 1 + epsilon * (2 * drawn[..., None, None] - 1).flip(0)
        expected = ((recording.features - mean) * scale + mean * shift).relu()
        got = restyle(model, recording, labels, epsilon, ascend=False, seed=5)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_settings_and_random_numbers_are_as_before(model):
    images, labels = images_and_labels(4)
    recording = model.split.stem(pixel_values=images)
    config, state = model.advbn_config, model.generator.get_state()
    restyle(model, recording, labels, 0.5, ascend=True, seed=1)
    with pytest.raises(InputError, match="epsilon"):
        restyle(model, recording, labels, 0, ascend=True, seed=1)
    assert model.advbn_config == config
    assert torch.equal(model.generator.get_state(), state)
    assert all(weight.grad is None for weight in model.parameters())
