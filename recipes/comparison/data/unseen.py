"""Shifts that no setting of any method was chosen on: plasma noise, sine waves and checkerboard cutouts.

They differ in kind from the comparison's other sets, which change how things are drawn. Such corruptions are those by
which Mintun et al. (NeurIPS 2021) tell robustness from likeness to the augmentation; formulas and strengths are ours.
"""

from collections.abc import Callable

import numpy as np

UNSEEN = "unseen"  # name of the set

_PLASMA, _WAVE, _GREY = 0.2, 0.25, 0.5  # strengths and level, of levels in 0..1


def unseen(pixels: np.ndarray, seed: int = 0) -> np.ndarray:
    """One of the three shifts for each image, drawn by the seed and the image's row alone.

    Args:
        pixels: uint8 (N, H, W, 3), clean images.
        seed: of kinds and their random parts.

    Returns:
        Like `pixels`.

    Example:
        >>> unseen(np.zeros((2, 32, 32, 3), dtype=np.uint8)).shape
        (2, 32, 32, 3)
    """
    shifted = np.empty_like(pixels)
    for row, image in enumerate(pixels):
        rng = np.random.default_rng([seed, row])
        levels = SHIFTS[rng.integers(len(SHIFTS))](image / 255, rng)
        shifted[row] = np.rint(255 * levels.clip(0, 1))
    return shifted


def with_plasma(levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """x + 0.2 p, p coloured noise whose amplitude falls as 1 / frequency.

    p is white noise filtered by 1 / |k| along height and width, without its constant part, and of standard deviation
    1 over the image; k is in cycles per pixel. Each channel has noise of its own.

    Args:
        levels: (H, W, 3) in 0..1.
        rng: draws the white noise, standard normal.

    Returns:
        (H, W, 3), not clipped.
    """
    height, width = levels.shape[:2]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    frequency[0, 0] = np.inf
    spectrum = np.fft.fft2(rng.normal(size=levels.shape), axes=(0, 1)) / frequency[..., None]
    plasma = np.fft.ifft2(spectrum, axes=(0, 1)).real
    return levels + _PLASMA * plasma / plasma.std()


def with_waves(levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """x + 0.25 sin(2 pi (f (r sin t + c cos t) + o)), a grey grating.

    r and c are row and column over the shorter side.

    Args:
        levels: (H, W, 3) in 0..1.
        rng: draws f in 3..12 cycles, the direction t in 0..pi and the phase o in 0..1, all uniform.

    Returns:
        (H, W, 3), not clipped.
    """
    cycles, direction, phase = rng.uniform((3, 0, 0), (12, np.pi, 1))
    rows, columns = np.mgrid[: levels.shape[0], : levels.shape[1]] / min(levels.shape[:2])
    along = rows * np.sin(direction) + columns * np.cos(direction)
    return levels + _WAVE * np.sin(2 * np.pi * (cycles * along + phase))[..., None]


def with_checkerboard(levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Grey (0.5) where floor(n r + a) + floor(n c + b) is even: every second square of a checkerboard.

    r and c are row and column over the shorter side, so n squares lie along it.

    Args:
        levels: (H, W, 3) in 0..1.
        rng: draws n, an integer in 5..10, and the offsets a and b, uniform in 0..1.

    Returns:
        (H, W, 3) in 0..1.
    """
    squares, offsets = rng.integers(5, 10, endpoint=True), rng.uniform(size=(2, 1, 1))
    places = np.mgrid[: levels.shape[0], : levels.shape[1]] / min(levels.shape[:2])
    even = np.floor(squares * places + offsets).sum(axis=0) % 2 == 0
    return np.where(even[..., None], _GREY, levels)


SHIFTS: tuple[Callable[[np.ndarray, np.random.Generator], np.ndarray], ...] = (
    with_plasma,
    with_waves,
    with_checkerboard,
)
