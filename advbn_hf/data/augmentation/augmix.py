"""AugMix (Hendrycks et al., ICLR 2020): chains of simple operations, mixed with the image itself.

The versions of timm and torchvision need torchvision, which is an optional extra here; this one needs PIL alone.
"""

import numpy as np
from PIL import Image, ImageOps

from .chains import Operation, mixed_chains

_SMALL = 64  # pixels: up to there the published severity is 3 of 10 (CIFAR), beyond it 1 (ImageNet)


def augmix(image: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """One augmented view.

    Args:
        image: RGB, H x W.
        rng: draws operations, their strengths and the weights of the mixture.

    Returns:
        float32 (H, W, 3) in 0..255.

    Example:
        >>> augmix(Image.new("RGB", (32, 32)), np.random.default_rng(0)).shape
        (32, 32, 3)
    """
    return mixed_chains(image, OPERATIONS, rng)


def _strength(strongest: float, image: Image.Image, rng: np.random.Generator) -> float:
    """Up to severity / 10 of the strongest of AutoAugment's."""
    severity = 3 if max(image.size) <= _SMALL else 1
    return rng.uniform(0.1, severity) / 10 * strongest


def _signed(strongest: float, image: Image.Image, rng: np.random.Generator) -> float:
    return _strength(strongest, image, rng) * rng.choice((-1, 1))


def _moved(image: Image.Image, *coefficients: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)


# Each takes an image and a generator that draws its strength. Those that ImageNet-C measures (contrast, brightness,
# sharpness, colour) are not among them, as in the paper.
OPERATIONS: tuple[Operation, ...] = (
    lambda image, rng: ImageOps.autocontrast(image),
    lambda image, rng: ImageOps.equalize(image),
    lambda image, rng: ImageOps.posterize(image, 4 - int(_strength(4, image, rng))),
    lambda image, rng: ImageOps.solarize(image, 256 - int(_strength(256, image, rng))),
    lambda image, rng: image.rotate(_signed(30, image, rng), Image.Resampling.BILINEAR),
    lambda image, rng: _moved(image, 1, _signed(0.3, image, rng), 0, 0, 1, 0),  # sheared along x
    lambda image, rng: _moved(image, 1, 0, 0, _signed(0.3, image, rng), 1, 0),  # and y
    lambda image, rng: _moved(image, 1, 0, _signed(image.width / 3, image, rng), 0, 1, 0),  # shifted along x
    lambda image, rng: _moved(image, 1, 0, 0, 0, 1, _signed(image.height / 3, image, rng)),  # and y
)
