"""What a method sees of each image, as the model's input: the image itself, augmented views, or both."""

from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from advbn_hf.data.augmentation.augmix import augmix

Views = Literal["image", "augmix", "image and two augmix"]

BLACK, WHITE = -1.0, 1.0  # in the model's input


def to_input(pixels: np.ndarray) -> Tensor:
    """Levels (N, H, W, 3) in 0..255 as the model's input: float32 (N, 3, H, W) in [-1, 1]."""
    levels = torch.from_numpy(pixels).movedim(-1, 1).float()
    return BLACK + (WHITE - BLACK) * levels / 255


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

        Args:
            rows: `{"pixels": uint8 (H, W, 3), "labels": int}`.

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
