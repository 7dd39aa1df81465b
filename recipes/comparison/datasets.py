"""The datasets that are compared on, as tensors in memory."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor

from advbn_hf.data.embedded.digits import load_embedded

from .data.characters import load_characters
from .data.patterns import load_patterns

DATASETS: dict[str, Callable[..., datasets.Dataset]] = {
    "digits": load_embedded,
    "characters": load_characters,
    "patterns": load_patterns,
}


@dataclass(frozen=True, eq=False)
class DecodedImages(torch.utils.data.Dataset):
    """One style of a split, decoded.

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
def load_decoded(dataset: str, style: str, split: str, num_images: int | None) -> DecodedImages:
    """Draws one style of a split and keeps it in memory.

    Args:
        dataset: one of `DATASETS`.
        style: one of `STYLES`.
        split: "train", "validation" or "test".
        num_images: how many; None for all.
    """
    rows = DATASETS[dataset](style, split, num_images)
    pixels = np.stack([np.asarray(image) for image in rows["image"]])
    return DecodedImages(pixels, torch.tensor(rows["label"][:]), tuple(rows.features["label"].names))
