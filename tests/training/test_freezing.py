"""What trains: the stem, where it is not frozen, through both losses; and nothing that was frozen before."""

import copy

import pytest
import torch
import torch.nn.functional as F
from builders import images_and_labels
from tiny_models import IMAGE_SIZE, NUM_LABELS, tiny_model

from advbn_hf import AdvBNConfig, AdvBNForImageClassification
from advbn_hf.backbones.model_outputs import logits_of
from advbn_hf.backbones.norms import two_branch_norms

IMAGES, LABELS = images_and_labels(4, NUM_LABELS, IMAGE_SIZE)
CLASSES = ["ResNet", "ConvNext", "EfficientNet", "MobileViT", "PvtV2", "Swin", "ViT", "Dinov2", "Beit"]


@pytest.mark.parametrize("name", CLASSES)
def test_an_unfrozen_stem_learns_from_both_losses(name):
    backbone = tiny_model(f"{name}ForImageClassification").double()  # some gradients are zero but for rounding
    images = IMAGES.double()
    for module in backbone.modules():
        if "drop" in type(module).__name__.lower():
            module.p = module.drop_prob = 0.0  # so that the model on its own computes the same as within the wrapper
    plain = copy.deepcopy(backbone).train()
    config = AdvBNConfig(freeze_stem=False, adversarial_share=1.0)
    model = AdvBNForImageClassification.from_backbone(backbone, config).train()
    output = model(images, LABELS)
    stem = {path: weight for path, weight in backbone.named_parameters() if is_in_stem(weight, model)}
    clean, adversarial = (
        torch.autograd.grad(loss, stem.values(), retain_graph=True, allow_unused=True)
        for loss in (output.clean_loss, output.adversarial_loss)
    )
    output.loss.backward()
    F.cross_entropy(logits_of(plain(pixel_values=images)), LABELS).backward()
    of_plain = dict(plain.named_parameters())
    learning = 0
    for (path, weight), one, other in zip(stem.items(), clean, adversarial, strict=True):
        expected = of_plain[path].grad
        assert [one is None, other is None] == [expected is None] * 2, path
        if expected is not None:
            learning += bool(one.any() and other.any())
            assert_near(weight.grad, one + other)
            assert_near(one, expected)
    assert learning > len(stem) / 2
    statistics = dict(plain.named_buffers())
    for path, buffer in backbone.named_buffers():
        if path in statistics:  # those of the stem's norms, which a step may move once
            torch.testing.assert_close(buffer, statistics[path])


def is_in_stem(weight, model):
    return any(weight is other for other in model.split.stem_weights)


def assert_near(one, other):
    assert (one - other).norm() <= 1e-6 * other.norm() + 1e-12


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("freeze_stem", [True, False])
def test_what_was_frozen_stays_frozen_in_both_branches(name, freeze_stem):
    backbone = tiny_model(f"{name}ForImageClassification")
    frozen = {path for index, (path, _) in enumerate(backbone.named_parameters()) if index % 2}
    for path in frozen:
        backbone.get_parameter(path).requires_grad_(False)
    model = AdvBNForImageClassification.from_backbone(backbone, AdvBNConfig(freeze_stem=freeze_stem))
    for path, weight in backbone.named_parameters():
        plain_path = path.replace(".clean.", ".").replace(".auxiliary.", ".")
        trains = plain_path not in frozen and not (freeze_stem and is_in_stem(weight, model))
        assert weight.requires_grad == trains, path
    assert two_branch_norms(model)
    assert all(weight.requires_grad for weight in model.export().parameters())
