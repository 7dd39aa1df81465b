"""Augmentations by their names, each as what happens to a cropped image and to the model's input."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...errors import InputError, check_choice
from ...utils.predicates import is_integer
from .augmix import augmix
from .prime import prime
from .randconv import randconv

OnImage = Callable[[Image.Image], Image.Image]
OnInput = Callable[[Tensor], Tensor]

_OF_TORCHVISION = {"trivialaugment": "TrivialAugmentWide", "randaugment": "RandAugment"}
_OURS = {"augmix": augmix, "prime": prime}
AUGMENTATIONS = ("crop_flip", *_OF_TORCHVISION, *_OURS, "randconv")


def augmentation_called(name: str, times: int = 1) -> tuple[OnImage, OnInput]:
    """What an augmentation does after crop and flip; all random numbers come from torch's global generator.

    TrivialAugment (Müller and Hutter, ICCV 2021) and RandAugment (Cubuk et al., NeurIPS 2020) are torchvision's, with
    its default settings.

    Args:
        name: one of `AUGMENTATIONS`.
        times: how often it is applied, each time to the result of the last; at least 1.

    Returns:
        A function of RGB images, which keeps their size, and one of the model's input, float32 (C, H, W). Both can be
        pickled.

    Raises:
        InputError: there is no such augmentation, torchvision is missing, or `times` is no whole number from 1 on.

    Example:
        >>> on_image, on_input = augmentation_called("prime")
        >>> on_image(Image.new("RGB", (40, 32))).size
        (40, 32)
    """
    check_choice("augmentation", name, AUGMENTATIONS)
    if not is_integer(times, least=1):
        raise InputError(f"augmentation_times must be a whole number from 1 on, got {times!r}")
    if name in _OF_TORCHVISION:
        return partial(_repeated, _from_torchvision(name), times), _unchanged
    if name in _OURS:
        return partial(_repeated, partial(_drawn, _OURS[name]), times), _unchanged
    return _unchanged, partial(_repeated, randconv, times) if name == "randconv" else _unchanged


def _from_torchvision(name: str) -> OnImage:
    try:
        from torchvision.transforms import v2  # pyrefly: ignore[missing-import]
    except (ImportError, RuntimeError) as error:  # the latter where it was built for another torch
        raise InputError(
            f'augmentation: {name} needs torchvision; pip install "advbn_hf[augmentation]", or choose another'
        ) from error
    return getattr(v2, _OF_TORCHVISION[name])()


def _drawn(function: Callable[[Image.Image, np.random.Generator], np.ndarray], image: Image.Image) -> Image.Image:
    """A function of ours, seeded by torch's global generator, as an image of 8 bits."""
    seed = int(torch.randint(torch.iinfo(torch.int64).max, ()))
    levels = function(image, np.random.default_rng(seed))
    return Image.fromarray(np.rint(levels).clip(0, 255).astype(np.uint8))


def _repeated(function: Callable[[Any], Any], times: int, value: Any) -> Any:
    for _ in range(times):
        value = function(value)
    return value


def _unchanged(value: Any) -> Any:
    return value
