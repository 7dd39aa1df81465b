"""The datasets that are compared on, as tensors in memory, and batches of their views."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from advbn_hf.data.embedded.digits import load_embedded

from .data.characters import load_characters
from .data.patterns import load_patterns
from .methods import Views
from .peers.advprop import HIGHEST, LOWEST
from .peers.augmix import augmix

DATASETS: dict[str, Callable[..., datasets.Dataset]] = {
    "digits": load_embedded,
    "characters": load_characters,
    "patterns": load_patterns,
}


@dataclass(frozen=True, eq=False)
class ImageSplits(torch.utils.data.Dataset):
    """One set, decoded.

    Args:
        pixels: uint8 (N, H, W, 3).
        labels: int64 (N,).
        names: of the classes.
    """

    pixels: np.ndarray
    labels: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pixels": self.pixels[index], "labels": int(self.labels[index])}


@cache
def load_splits(dataset: str, style: str, split: str, num_images: int | None) -> ImageSplits:
    """One style of a split of one of `DATASETS`."""
    rows = DATASETS[dataset](style, split, num_images)
    pixels = np.stack([np.asarray(image) for image in rows["image"]])
    return ImageSplits(pixels, torch.tensor(rows["label"][:]), tuple(rows.features["label"].names))


def to_input(pixels: np.ndarray) -> Tensor:
    """Levels (N, H, W, 3) in 0..255 as the model's input: float32 (N, 3, H, W) in [-1, 1]."""
    levels = torch.from_numpy(pixels).movedim(-1, 1).float()
    return LOWEST + (HIGHEST - LOWEST) * levels / 255


class Collator:
    """Makes batches of the views that a method trains on.

    Args:
        views: as in `Method`.
        seed: of the augmentation.
    """

    def __init__(self, views: Views, seed: int) -> None:
        self.views = views
        self.rng = np.random.default_rng(seed)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """A batch of B rows.

        Returns:
            "pixel_values", float32 (B, 3, H, W), or (3 B, 3, H, W) with both augmented views after the images, and
            "labels", int64 (B,).
        """
        pixels = np.stack([row["pixels"] for row in rows])
        if self.views == "image":
            views = [pixels]
        elif self.views == "augmix":
            views = [self._augmented(pixels)]
        else:
            views = [pixels, self._augmented(pixels), self._augmented(pixels)]
        labels = torch.tensor([row["labels"] for row in rows])
        return {"pixel_values": torch.cat([to_input(view) for view in views]), "labels": labels}

    def _augmented(self, pixels: np.ndarray) -> np.ndarray:
        return np.stack([augmix(Image.fromarray(image), self.rng) for image in pixels])
