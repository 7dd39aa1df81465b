"""Small models and data that the tests share."""

import torch
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from advbn_hf.norms import two_branch_norms


def tiny_resnet(num_labels: int = 5, seed: int = 0) -> ResNetForImageClassification:
    """A ResNet of four stages, with batch norm."""
    torch.manual_seed(seed)
    return ResNetForImageClassification(
        ResNetConfig(
            embedding_size=8,
            hidden_sizes=[8, 16, 24, 32],
            depths=[1, 2, 1, 1],
            layer_type="basic",
            num_labels=num_labels,
            image_size=32,
        )
    )


def tiny_convnext(num_labels: int = 5, seed: int = 0) -> ConvNextForImageClassification:
    """A ConvNeXt of four stages, with layer norm."""
    torch.manual_seed(seed)
    return ConvNextForImageClassification(
        ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], num_labels=num_labels, image_size=32)
    )


def tiny_vit(num_labels: int = 5, seed: int = 0, **settings: float) -> ViTForImageClassification:
    """A ViT of four blocks, with layer norm."""
    torch.manual_seed(seed)
    return ViTForImageClassification(
        ViTConfig(
            hidden_size=16,
            num_hidden_layers=4,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=32,
            patch_size=8,
            num_labels=num_labels,
            **settings,
        )
    )


def pictures_and_labels(
    num: int = 8, num_labels: int = 5, size: int = 32, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise (num, 3, size, size) with a shift per class, and labels (num,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_labels, (num,), generator=generator)
    return torch.randn(num, 3, size, size, generator=generator) + labels[:, None, None, None] / 4, labels


def rows(num: int, **settings: int) -> list[dict]:
    """The same as a data set that a Trainer takes."""
    return [
        {"pixel_values": picture, "labels": label.item()}
        for picture, label in zip(*pictures_and_labels(num, **settings), strict=True)
    ]


def models_equal(one: PreTrainedModel | torch.nn.Module, other: PreTrainedModel | torch.nn.Module) -> bool:
    """Whether two modules hold the same tensors under the same names, bit for bit."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def move_auxiliary_norms(model: torch.nn.Module) -> None:
    """Makes the branches of a model differ, as training does: at first they are copies."""
    for norm in two_branch_norms(model).values():
        for weight in norm.auxiliary.parameters():
            weight.data += 0.1
