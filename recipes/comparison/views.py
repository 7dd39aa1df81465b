"""What a method sees of each image, as the model's input: the image itself, an augmented view, or several."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from advbn_hf.data.augmentation.augmix import augmix
from advbn_hf.data.augmentation.named import augmentation_called
from advbn_hf.data.augmentation.prime import prime
from advbn_hf.errors import InputError

from .peers.apr import apr_s

ViewName = Literal[
    "image", "image and two augmix", "augmix", "apr_s", "prime", "randaugment", "randconv", "trivialaugment"
]

BLACK, WHITE = -1.0, 1.0  # in the model's input
_OF_NUMPY = {"augmix": augmix, "apr_s": apr_s, "prime": prime}  # levels that need no rounding


@dataclass(frozen=True)
class Views:
    """What is seen of each image, and how strongly it is augmented.

    Args:
        name: of the views.
        times: how often an augmentation is applied, one to the result of the other; at least 1.
        share: of the images that are augmented, drawn anew for each batch, in (0, 1]; the others stay.

    Raises:
        InputError: a value is out of its range, or a setting of the augmentation is given where there is none.
    """

    name: ViewName = "image"
    times: int = 1
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in get_args(ViewName):
            raise InputError(f"views must be one of {', '.join(get_args(ViewName))}, got {self.name!r}")
        if type(self.times) is not int or self.times < 1:
            raise InputError(f"view_times must be a whole number from 1 on, got {self.times!r}")
        if not 0 < self.share <= 1:
            raise InputError(f"view_share must be above 0 and at most 1, got {self.share!r}")
        if self.name == "image" and (self.times, self.share) != (1, 1):
            raise InputError("view_times and view_share are of methods that augment images")


def to_input(pixels: np.ndarray) -> Tensor:
    """Levels (N, H, W, 3) in 0..255 as the model's input: float32 (N, 3, H, W) in [-1, 1]."""
    levels = torch.from_numpy(pixels).movedim(-1, 1).float()
    return BLACK + (WHITE - BLACK) * levels / 255


class Collator:
    """Makes batches of the views that a method trains on; images are neither cropped nor flipped.

    Args:
        views: of each image.
        seed: of the augmentation.

    Raises:
        InputError: if the views need a library that is missing.
    """

    def __init__(self, views: Views, seed: int) -> None:
        self.views = views
        self.rng = np.random.default_rng(seed)
        self._of_numpy = augmix if views.name == "image and two augmix" else _OF_NUMPY.get(views.name)
        if views.name != "image" and self._of_numpy is None:
            self._on_image, self._on_input = augmentation_called(views.name, views.times)

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """A batch of B rows.

        Args:
            rows: `{"pixels": uint8 (H, W, 3), "labels": int}`.

        Returns:
            "pixel_values", float32 (B, 3, H, W), or (3 B, 3, H, W) with both augmented views after the images, and
            "labels", int64 (B,).
        """
        pixels = np.stack([row["pixels"] for row in rows])
        if self.views.name == "image":
            views = [to_input(pixels)]
        elif self.views.name == "image and two augmix":
            views = [to_input(pixels), self._augmented(pixels), self._augmented(pixels)]
        else:
            views = [self._augmented(pixels)]
        labels = torch.tensor([row["labels"] for row in rows])
        return {"pixel_values": torch.cat(views), "labels": labels}

    def _augmented(self, pixels: np.ndarray) -> Tensor:
        values = to_input(pixels)
        chosen = np.arange(len(pixels))
        if self.views.share < 1:
            chosen = np.flatnonzero(self.rng.random(len(pixels)) < self.views.share)
        images = [Image.fromarray(image) for image in pixels[chosen]]
        if not images:
            return values
        if self._of_numpy is not None:
            values[chosen] = to_input(np.stack([self._by_numpy(image) for image in images]))
            return values
        with torch.random.fork_rng(devices=[]):  # the others draw from torch's global generator, each image in turn
            torch.default_generator.manual_seed(int(self.rng.integers(2**63)))
            levels = np.stack([np.asarray(self._on_image(image)) for image in images])
            values[chosen] = torch.stack([self._on_input(inputs) for inputs in to_input(levels)])
        return values

    def _by_numpy(self, image: Image.Image) -> np.ndarray:
        for _ in range(self.views.times - 1):
            image = Image.fromarray(np.rint(self._of_numpy(image, self.rng)).astype(np.uint8))
        return self._of_numpy(image, self.rng)
