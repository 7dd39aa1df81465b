"""What a method sees of each image, as the model's input: the image itself, an augmented view, or several."""

from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from advbn_hf.data.augmentation.augmix import augmix
from advbn_hf.data.augmentation.named import augmentation_called
from advbn_hf.data.augmentation.prime import prime

from .peers.apr import apr_s

Views = Literal[
    "image", "image and two augmix", "augmix", "apr_s", "prime", "randaugment", "randconv", "trivialaugment"
]

BLACK, WHITE = -1.0, 1.0  # in the model's input
_OF_NUMPY = {"augmix": augmix, "apr_s": apr_s, "prime": prime}  # levels that need no rounding


def to_input(pixels: np.ndarray) -> Tensor:
    """Levels (N, H, W, 3) in 0..255 as the model's input: float32 (N, 3, H, W) in [-1, 1]."""
    levels = torch.from_numpy(pixels).movedim(-1, 1).float()
    return BLACK + (WHITE - BLACK) * levels / 255


class Collator:
    """Makes batches of the views that a method trains on; images are neither cropped nor flipped.

    Args:
        views: as in `Method`.
        seed: of the augmentation.

    Raises:
        InputError: if the views need a library that is missing.
    """

    def __init__(self, views: Views, seed: int) -> None:
        self.views = views
        self.rng = np.random.default_rng(seed)
        self._of_numpy = augmix if views == "image and two augmix" else _OF_NUMPY.get(views)
        if views != "image" and self._of_numpy is None:
            self._on_image, self._on_input = augmentation_called(views)

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
            views = [to_input(pixels)]
        elif self.views == "image and two augmix":
            views = [to_input(pixels), self._augmented(pixels), self._augmented(pixels)]
        else:
            views = [self._augmented(pixels)]
        labels = torch.tensor([row["labels"] for row in rows])
        return {"pixel_values": torch.cat(views), "labels": labels}

    def _augmented(self, pixels: np.ndarray) -> Tensor:
        images = [Image.fromarray(image) for image in pixels]
        if self._of_numpy is not None:
            return to_input(np.stack([self._of_numpy(image, self.rng) for image in images]))
        with torch.random.fork_rng(devices=[]):  # the others draw from torch's global generator, each image in turn
            torch.default_generator.manual_seed(int(self.rng.integers(2**63)))
            levels = np.stack([np.asarray(self._on_image(image)) for image in images])
            return torch.stack([self._on_input(values) for values in to_input(levels)])
