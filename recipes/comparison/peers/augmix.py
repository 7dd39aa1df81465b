"""AugMix (Hendrycks et al., ICLR 2020): random chains of simple operations, mixed with the image itself.

The versions of timm and torchvision need torchvision, which is an optional extra here; this one needs PIL alone.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

WIDTH, DEPTH = 3, 3  # chains, and the most operations in one
SEVERITY = 3  # of 10
ALPHA = 1.0  # of the Dirichlet and Beta distributions


def augmix(image: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """One augmented view, algorithm 1 of the paper.

    Args:
        image: RGB, H x W.
        rng: draws operations, their strengths and the weights of the mixture.

    Returns:
        float32 (H, W, 3) in 0..255.
    """
    weights, share = rng.dirichlet([ALPHA] * WIDTH), rng.beta(ALPHA, ALPHA)
    mixture = (1 - share) * np.asarray(image, dtype=np.float32)
    for weight in weights:
        augmented = image
        for operation in rng.choice(len(OPERATIONS), rng.integers(1, DEPTH, endpoint=True)):
            augmented = OPERATIONS[operation](augmented, rng)
        mixture += np.float32(share * weight) * np.asarray(augmented, dtype=np.float32)
    return mixture


# Each takes an image and a generator that draws its strength: up to SEVERITY / 10 of the strongest of AutoAugment's.
# Those that ImageNet-C measures (contrast, brightness, sharpness, colour) are not among them, as in the paper.


def _strength(strongest: float, rng: np.random.Generator) -> float:
    return rng.uniform(0.1, SEVERITY) / 10 * strongest


def _signed(strongest: float, rng: np.random.Generator) -> float:
    return _strength(strongest, rng) * rng.choice((-1, 1))


def _moved(image: Image.Image, *coefficients: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)


OPERATIONS: tuple[Callable[[Image.Image, np.random.Generator], Image.Image], ...] = (
    lambda image, rng: ImageOps.autocontrast(image),
    lambda image, rng: ImageOps.equalize(image),
    lambda image, rng: ImageOps.posterize(image, 4 - int(_strength(4, rng))),
    lambda image, rng: ImageOps.solarize(image, 256 - int(_strength(256, rng))),
    lambda image, rng: image.rotate(_signed(30, rng), Image.Resampling.BILINEAR),
    lambda image, rng: _moved(image, 1, _signed(0.3, rng), 0, 0, 1, 0),  # sheared along x
    lambda image, rng: _moved(image, 1, 0, 0, _signed(0.3, rng), 1, 0),  # and y
    lambda image, rng: _moved(image, 1, 0, _signed(image.width / 3, rng), 0, 1, 0),  # shifted along x
    lambda image, rng: _moved(image, 1, 0, 0, 0, 1, _signed(image.height / 3, rng)),  # and y
)
