"""Models between two models, running statistics that fit them, and norms between both branches'."""

import copy

import pytest
import torch
from builders import images_and_labels, tiny_convnext, tiny_resnet
from torch import nn

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, InputError
from advbn_hf.backbones.interpolation import interpolated, re_estimate_statistics
from advbn_hf.backbones.norms import two_branch_norms


def changed(model, seed=0):
    """Another model of the same shapes, with other running statistics too."""
    generator = torch.Generator().manual_seed(seed)
    other = copy.deepcopy(model)
    for tensor in other.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand(tensor.shape, generator=generator))
    return other


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_weights_and_statistics_lie_between(share):
    first = tiny_resnet()
    second = changed(first)
    before = copy.deepcopy(first.state_dict())
    model = interpolated(first, second, share)
    assert type(model) is type(first) and not model.training
    for name, tensor in model.state_dict().items():
        expected = (1 - share) * before[name].double() + share * second.state_dict()[name].double()
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-6)
        assert torch.equal(first.state_dict()[name], before[name])


def test_models_of_other_shapes_or_classes_are_refused():
    renamed = tiny_resnet()
    renamed.config.id2label = {index: f"kind {index}" for index in range(renamed.config.num_labels)}
    for other, message in (
        (tiny_resnet(num_labels=3), "classifier"),
        (tiny_convnext(), "architecture"),
        (renamed, "classes"),
    ):
        with pytest.raises(InputError, match=message):
            interpolated(tiny_resnet(), other, 0.5)
    with pytest.raises(InputError, match="share"):
        interpolated(tiny_resnet(), tiny_resnet(), 1.5)


@pytest.mark.parametrize("training", [False, True])
def test_statistics_are_those_of_the_images(training):
    """Of the first norm, against the features before it; and nothing else changes."""
    model = changed(tiny_resnet()).train(training)
    path, norm = next((path, part) for path, part in model.named_modules() if isinstance(part, nn.BatchNorm2d))
    before, momentum = copy.deepcopy(dict(model.named_parameters())), norm.momentum
    images = images_and_labels(16)[0]
    seen = []
    handle = norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    re_estimate_statistics(model, images.split(4))
    handle.remove()
    means = torch.stack([features.mean((0, 2, 3)) for features in seen]).mean(0)
    variances = torch.stack([features.var((0, 2, 3)) for features in seen]).mean(0)
    torch.testing.assert_close(norm.running_mean, means, rtol=1e-4, atol=1e-5, msg=path)
    torch.testing.assert_close(norm.running_var, variances, rtol=1e-4, atol=1e-5, msg=path)
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    assert norm.momentum == momentum
    assert all(part.training == training for part in model.modules())


def test_statistics_need_images_where_there_are_batch_norms():
    model = tiny_convnext()
    before = copy.deepcopy(model.state_dict())
    re_estimate_statistics(model, [])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(InputError, match="no image"):
        re_estimate_statistics(tiny_resnet(), [])
    with pytest.raises(InputError, match="one image"):
        re_estimate_statistics(tiny_resnet(), images_and_labels(1)[0][None])


@pytest.mark.parametrize("make", [tiny_resnet, tiny_convnext])
def test_a_soup_s_norms_lie_between_those_of_both_branches(make):
    model = AdvBNForImageClassification.from_backbone(make(), AdvBNConfig()).eval()
    for norm in two_branch_norms(model.backbone).values():
        norm.auxiliary.load_state_dict(changed(norm.auxiliary).state_dict())
    soup = model.export("soup", weight=0.25).state_dict()
    clean, auxiliary = (model.export(branch).state_dict() for branch in ("clean", "auxiliary"))
    differ = [name for name in clean if not torch.equal(clean[name], auxiliary[name])]
    assert differ
    for name, tensor in soup.items():
        if name in differ:
            expected = 0.75 * clean[name].double() + 0.25 * auxiliary[name].double()
            torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-6)
        else:
            assert torch.equal(tensor, clean[name])
    images = images_and_labels(4)[0]
    assert torch.equal(model.export("soup", weight=0)(images).logits, model.export("clean")(images).logits)
    assert torch.equal(model.export("soup", weight=1)(images).logits, model.export("auxiliary")(images).logits)


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_soup_s_weight_is_a_share(weight):
    model = AdvBNForImageClassification.from_backbone(tiny_resnet(), AdvBNConfig())
    with pytest.raises(InputError, match="weight"):
        model.export("soup", weight=weight)
