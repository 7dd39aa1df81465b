"""Each peer against the formula of its paper, computed independently."""

import math

import numpy as np
import pytest
import torch
from builders import BACKBONES, batch, tiny_convnext, tiny_resnet
from comparison.methods import METHODS, method_called
from comparison.peers.advprop import PUBLISHED, AdvPropForImageClassification
from comparison.peers.augmix_jsd import jensen_shannon
from comparison.peers.dsu import scatter_styles
from comparison.peers.mixstyle import mix_styles

from advbn_hf import InputError
from advbn_hf.method.losses import Objective


@pytest.mark.parametrize("channel_axis", [1, -1])
def test_mixstyle_by_loops(channel_axis):
    torch.manual_seed(0)
    features, partners, weight = torch.randn(3, 5, 4, 4), torch.tensor([2, 0, 1]), torch.tensor([0.1, 0.5, 1.0])
    laid_out = features if channel_axis == 1 else features.movedim(1, -1)
    mixed = mix_styles(laid_out, partners, weight, channel_axis)
    mixed = mixed if channel_axis == 1 else mixed.movedim(-1, 1)
    for image in range(3):
        for channel in range(5):
            own, other = (features[i, channel].numpy() for i in (image, int(partners[image])))
            share = weight[image].item()
            std = share * own.std() + (1 - share) * other.std()
            expected = (own - own.mean()) / own.std() * std + share * own.mean() + (1 - share) * other.mean()
            np.testing.assert_allclose(mixed[image, channel].numpy(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed[2], features[2], rtol=1e-4, atol=1e-5)


def test_dsu_by_loops():
    torch.manual_seed(0)
    features, noise = torch.randn(6, 3, 4, 4) * 2 + 1, torch.randn(2, 6, 3)
    scattered = scatter_styles(features, noise, 1).numpy()
    means, stds = features.numpy().mean(axis=(2, 3)), features.numpy().std(axis=(2, 3))
    for image in range(6):
        for channel in range(3):
            beta = means[image, channel] + noise[0, image, channel].item() * means[:, channel].std()
            gamma = stds[image, channel] + noise[1, image, channel].item() * stds[:, channel].std()
            own = features[image, channel].numpy()
            expected = gamma * (own - means[image, channel]) / stds[image, channel] + beta
            np.testing.assert_allclose(scattered[image, channel], expected, rtol=1e-3, atol=1e-3)


def test_jensen_shannon_by_hand():
    sure, unsure = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.5, 0.5]])
    mixture = [0.7, 0.3]
    expected = sum(
        0.5 * p * math.log(p / m)
        for prediction in (sure, unsure)
        for p, m in zip(prediction[0].tolist(), mixture, strict=True)
    )
    assert jensen_shannon(sure.log(), unsure.log()).item() == pytest.approx(expected, rel=1e-5)
    assert jensen_shannon(sure.log(), sure.log() + 3).item() == pytest.approx(0, abs=1e-6)


def test_advprop_is_pgd_on_pixels_through_the_auxiliary_branch():
    pixel_values, labels = batch()
    model = AdvPropForImageClassification.from_backbone(tiny_resnet(), PUBLISHED).train()
    start = pixel_values + PUBLISHED.epsilon * (
        2 * torch.rand(pixel_values.shape, generator=torch.Generator().manual_seed(7)) - 1
    )
    network = model.export("auxiliary")  # in eval mode, a plain model: nothing of ours computes what is expected
    expected = torch.minimum(torch.maximum(start, pixel_values - 8 / 255), pixel_values + 8 / 255).clamp(-1, 1)
    for _ in range(5):
        expected = expected.detach().requires_grad_()
        torch.nn.functional.cross_entropy(network(expected).logits, labels).backward()
        moved = expected + 2 / 255 * expected.grad.sign()
        expected = torch.minimum(torch.maximum(moved, pixel_values - 8 / 255), pixel_values + 8 / 255).clamp(-1, 1)
    model.generator.manual_seed(7)
    attacked = model.attacked_pixels(pixel_values, Objective(labels))
    assert (attacked - expected.detach()).abs().gt(1e-5).float().mean() < 0.01
    assert (attacked - pixel_values).abs().max() <= 8 / 255 + 1e-6
    assert all(weight.grad is None for weight in model.parameters())
    output = model(pixel_values=pixel_values, labels=labels)
    torch.testing.assert_close(output.loss, output.clean_loss + output.adversarial_loss)


@pytest.mark.parametrize("backbone", ["resnet", "convnext"])
def test_normalization_perturbation_by_loops(backbone, monkeypatch):
    pixel_values, labels = batch()
    model = method_called("np:probability=1").wrap(BACKBONES[backbone]()).train()
    features = model.split.stem(pixel_values=pixel_values).features
    model.manual_seed(0)  # so that it draws no seed
    torch.manual_seed(5)
    torch.rand(())  # whether the batch is perturbed
    drawn = (1 + 0.75 * torch.randn(2, *features.shape[:2])).numpy()
    seen = []
    monkeypatch.setattr(
        model, "tail_logits", lambda *given, run=model.tail_logits: seen.append(given[1]) or run(*given)
    )
    torch.manual_seed(5)
    output = model(pixel_values=pixel_values, labels=labels)
    torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(output.logits, labels))
    for image in range(len(features)):
        for channel in range(features.shape[1]):
            own = features[image, channel].numpy()
            expected = (own - own.mean()) * drawn[1, image, channel] + own.mean() * drawn[0, image, channel]
            expected = np.maximum(expected, 0) if backbone == "resnet" else expected
            np.testing.assert_allclose(seen[0][image, channel].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_normalization_perturbation_leaves_half_of_the_batches():
    pixel_values, labels = batch()
    model = METHODS["np"].wrap(tiny_convnext()).train()
    plain = METHODS["plain"].wrap(tiny_convnext()).train()(pixel_values=pixel_values, labels=labels).loss
    torch.manual_seed(0)
    losses = [model(pixel_values=pixel_values, labels=labels).loss for _ in range(40)]
    assert 10 < sum(torch.allclose(loss, plain) for loss in losses) < 30


def restyled(monkeypatch, name, backbone):
    """Shapes and channel axes of the features that get other styles in one step, whatever the probability."""
    model = method_called(f"{name},probability=1").wrap(backbone).train()
    seen = []
    original = type(model).with_random_styles
    monkeypatch.setattr(
        type(model),
        "with_random_styles",
        lambda self, features, axis: seen.append((tuple(features.shape[1:]), axis)) or original(self, features, axis),
    )
    pixel_values, labels = batch()
    model(pixel_values=pixel_values, labels=labels).loss.backward()
    return model, seen


@pytest.mark.parametrize("backbone", BACKBONES)
def test_styles_are_changed_after_every_stage(backbone, monkeypatch):
    stages = []
    base = BACKBONES[backbone]()
    of = "layers" if backbone == "vit" else "stages"
    layers = [module for name, module in base.named_modules() if name.split(".")[-2:-1] == [of]]
    hooks = [layer.register_forward_hook(lambda _, __, output: stages.append(output)) for layer in layers]
    base(batch()[0])
    for hook in hooks:
        hook.remove()
    shapes = [tuple((output if torch.is_tensor(output) else output[0]).shape[1:]) for output in stages]
    assert len(shapes) == 4
    model, seen = restyled(monkeypatch, "mixstyle_places:alpha=0.3", BACKBONES[backbone]())
    assert [shape for shape, _ in seen] == shapes[:-1]
    assert not any(module._forward_hooks for module in model.backbone.modules())
    embeddings = tuple(model.split.stem(pixel_values=batch()[0]).features.shape[1:])
    _, seen = restyled(monkeypatch, "dsu_places:freeze_stem=true", BACKBONES[backbone]())
    assert [shape for shape, _ in seen] == [embeddings, *shapes]
    assert {axis for _, axis in seen} <= ({-1} if backbone == "vit" else {1})


def test_places_in_a_frozen_stem_are_left_out(monkeypatch):
    model, seen = restyled(monkeypatch, "dsu_places:insert_after=auto", tiny_resnet())
    assert len(seen) == 4
    assert list(model.places) == [f"resnet.encoder.stages.{stage}" for stage in (1, 2, 3)]
    with pytest.raises(InputError, match="insert_after"):
        method_called("mixstyle_places:insert_after=resnet.encoder.stages.2").wrap(tiny_resnet())


def test_styles_at_a_place_are_what_the_next_stage_sees(monkeypatch):
    """With a fixed change instead of a random style, the logits are those of a network changed after three stages."""
    pixel_values, labels = batch()
    model = method_called("mixstyle_places:probability=1").wrap(tiny_convnext()).train()
    monkeypatch.setattr(type(model), "with_random_styles", lambda self, features, axis: features / 2 + axis)
    found = model(pixel_values=pixel_values, labels=labels)
    plain = tiny_convnext().eval()
    for stage in plain.convnext.encoder.stages[:3]:
        stage.register_forward_hook(lambda _, __, output: output / 2 + 1)
    torch.testing.assert_close(found.logits, plain(pixel_values).logits)
