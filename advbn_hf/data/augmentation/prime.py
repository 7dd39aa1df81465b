"""PRIME (Modas et al., ECCV 2022): chains of smooth random maps of space, colour and frequency.

Without its consistency loss, which takes three passes. All strengths are drawn up to the published ones for ImageNet.
"""

import math

import numpy as np
from PIL import Image
from scipy import ndimage

from .chains import Operation, mixed_chains

_HIGHEST = 500  # frequency of a colour map or a displacement
_BAND = 20  # frequencies in one colour map
_TEMPERATURE = 0.05  # variance of a colour map's coefficients
_SIGMA = 4.0  # standard deviation of a filter's weights


def prime(image: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """One augmented view.

    Args:
        image: RGB, H x W.
        rng: draws maps, their strengths and the weights of the mixture.

    Returns:
        float32 (H, W, 3) in 0..255.

    Example:
        >>> prime(Image.new("RGB", (32, 32)), np.random.default_rng(0)).shape
        (32, 32, 3)
    """
    return 255 * mixed_chains(np.asarray(image, dtype=np.float32) / 255, OPERATIONS, rng)


def random_colours(levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A smooth map of each channel's levels.

    c + sum_k b_k sin(pi k c), clamped to 0..1, over up to 20 consecutive frequencies k of 1..500, with b_k from
    N(0, T) for each channel and T uniform in 0..0.05.

    Args:
        levels: float32 (H, W, C) in 0..1.
        rng: draws frequencies and coefficients.

    Returns:
        Like `levels`.
    """
    highest, temperature = rng.integers(1, _HIGHEST, endpoint=True), rng.uniform(0, _TEMPERATURE)
    lowest = rng.integers(1, highest, endpoint=True)
    moved = levels.copy()
    for frequency in range(lowest, min(lowest + _BAND, highest + 1)):
        coefficients = rng.normal(0, math.sqrt(temperature), levels.shape[-1]).astype(np.float32)
        moved += coefficients * np.sin(np.float32(math.pi * frequency) * levels)
    return moved.clip(0, 1)


def random_filter(levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A 3 x 3 filter, the same for every channel, of identity plus N(0, s^2), s uniform in 0..4; clamped to 0..1.

    Args:
        levels: float32 (H, W, C) in 0..1.
        rng: draws the filter.

    Returns:
        Like `levels`; there are zeros around the image.
    """
    kernel = rng.normal(0, rng.uniform(0, _SIGMA), (3, 3))
    kernel[1, 1] += 1
    return ndimage.correlate(levels, kernel[..., None], mode="constant").clip(0, 1)


def random_displacement(levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A smooth displacement of the pixels, bilinear, of maximum entropy (Petrini et al., NeurIPS 2021).

    Its parts along x and y are, relative to the image, sum_ij c_ij sin(i pi x) sin(j pi y) with c_ij from
    N(0, T / (i^2 + j^2)), over i^2 + j^2 <= cut^2. T lies between 1 / (pi n^2 ln cut), half a pixel, and
    4 / (pi^3 cut^2 ln cut), beyond which the image would fold; cut is 2 to 500.

    Args:
        levels: float32 (H, W, C) in 0..1.
        rng: draws cut, T and coefficients.

    Returns:
        Like `levels`; nothing moves at the border.
    """
    height, width = levels.shape[:2]
    largest = rng.integers(3, _HIGHEST, endpoint=True)
    cut = 2 + int(rng.beta(0.5, 0.5) * (largest - 1))
    half_pixel = 1 / (math.pi * min(height, width) ** 2 * math.log(cut))
    folding = 4 / (math.pi**3 * cut**2 * math.log(cut))
    temperature = half_pixel + rng.beta(0.5, 0.5) * max(folding - half_pixel, 0)
    down, right = (side * math.sqrt(temperature) * _random_field(height, width, cut, rng) for side in (height, width))
    rows, columns = np.mgrid[:height, :width]
    places = np.stack([rows - down, columns - right])
    channels = [
        ndimage.map_coordinates(channel, places, order=1, mode="nearest") for channel in levels.T.swapaxes(1, 2)
    ]
    return np.stack(channels, axis=-1)


def _random_field(height: int, width: int, cut: int, rng: np.random.Generator) -> np.ndarray:
    """(H, W): the sum over sines at a temperature of 1, 0 at the border."""
    frequencies = np.arange(1, cut + 1)
    radius = np.hypot(frequencies[:, None], frequencies)
    coefficients = rng.normal(size=(cut, cut)) * (radius <= cut) / radius
    of_rows, of_columns = (
        np.sin(math.pi * np.outer(np.linspace(0, 1, side), frequencies)) for side in (height, width)
    )
    return of_rows @ coefficients @ of_columns.T


OPERATIONS: tuple[Operation, ...] = (random_displacement, random_colours, random_filter)
