"""Small models and data that the tests share."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

from advbn_hf import AdvBNForImageClassification
from advbn_hf.backbones.norms import two_branch_norms


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


# One of each kind of norm and of features.
BACKBONES = {"resnet": tiny_resnet, "convnext": tiny_convnext, "vit": tiny_vit}


def images_and_labels(
    num: int = 8, num_labels: int = 5, size: int = 32, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise (num, 3, size, size) with a shift per class, and labels (num,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_labels, (num,), generator=generator)
    return torch.randn(num, 3, size, size, generator=generator) + labels[:, None, None, None] / 4, labels


def batch(count: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """The same with values in [-1, 1], as images have that were normalised by a half."""
    pixel_values, labels = images_and_labels(count)
    return pixel_values.clamp(-1, 1), labels


def rows(num: int, **settings: int) -> list[dict]:
    """The same as a dataset for a Trainer."""
    return [
        {"pixel_values": image, "labels": label.item()}
        for image, label in zip(*images_and_labels(num, **settings), strict=True)
    ]


class EpochRows(list):
    """The same rows, with `set_epoch`; records the epochs in which they are read."""

    def __init__(self, num: int) -> None:
        super().__init__(rows(num))
        self.epoch, self.read_in = None, []

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict:
        self.read_in.append(self.epoch)
        return super().__getitem__(index)


def models_equal(one: PreTrainedModel | torch.nn.Module, other: PreTrainedModel | torch.nn.Module) -> bool:
    """Whether two modules hold the same tensors under the same names, bit for bit."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def move_auxiliary_norms(model: torch.nn.Module) -> None:
    """Makes the branches of a model differ, as after training; in a new model they are equal."""
    for norm in two_branch_norms(model).values():
        for weight in norm.auxiliary.parameters():
            weight.data += 0.1


def save_digit_models(folder: Path) -> None:
    """Two models of ten classes "0" to "9" for images of 32 pixels: "advbn" with unlike branches, and "plain"."""
    names = {index: str(index) for index in range(10)}
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    for seed, name in enumerate(("advbn", "plain")):
        model = tiny_resnet(num_labels=10, seed=seed)
        model.config.id2label, model.config.label2id = names, {label: index for index, label in names.items()}
        if name == "plain":
            model.save_pretrained(folder / name)
            processor.save_pretrained(folder / name)
            continue
        branched = AdvBNForImageClassification.from_backbone(model)
        for norm in two_branch_norms(branched.backbone).values():
            torch.nn.init.normal_(norm.auxiliary.weight, 1, 0.5)
            torch.nn.init.normal_(norm.auxiliary.bias, 0, 0.5)
        branched.save_pretrained(folder / name, processor=processor)


def save_images(folder: Path, classes: Sequence[str], per_class: int, size: int = 40, seed: int = 0) -> None:
    """A folder for each class with images of noise."""
    random = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            image = Image.fromarray(random.integers(0, 255, (size, size, 3), dtype=np.uint8))
            image.save(folder / name / f"{index}.png")
