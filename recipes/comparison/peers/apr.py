"""APR-S: amplitude and phase of two views of an image, recombined (Chen et al., ICCV 2021).

Networks follow the amplitude of an image, people its phase: with another amplitude, the label stays.
"""

import numpy as np
from PIL import Image

from advbn_hf.data.augmentation.augmix import OPERATIONS


def recombine(amplitude_of: np.ndarray, phase_of: np.ndarray) -> np.ndarray:
    """F^-1(|F(a)| exp(i arg F(b))), F the Fourier transform over height, width and channels together.

    Args:
        amplitude_of: a, (H, W, C).
        phase_of: b, likewise.

    Returns:
        float64 (H, W, C); may exceed the range of both.

    Example:
        >>> image = np.random.default_rng(0).random((4, 4, 3))
        >>> np.allclose(recombine(image, image), image)
        True
    """
    amplitude, phase = np.abs(np.fft.fftn(amplitude_of)), np.angle(np.fft.fftn(phase_of))
    return np.fft.ifftn(amplitude * np.exp(1j * phase)).real


def apr_s(image: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """One augmented view, as in the authors' own code.

    The image goes through one random operation of AugMix; in half of the cases through a second one too, and then the
    amplitude of either of both views is joined with the phase of the other.

    Args:
        image: RGB, H x W.
        rng: draws operations, their strengths and the view that gives its amplitude.

    Returns:
        float32 (H, W, 3) in 0..255.

    Example:
        >>> apr_s(Image.new("RGB", (32, 32)), np.random.default_rng(0)).shape
        (32, 32, 3)
    """
    first = OPERATIONS[rng.integers(len(OPERATIONS))](image, rng)
    if rng.random() < 0.5:
        return np.asarray(first, dtype=np.float32)
    views = [first, OPERATIONS[rng.integers(len(OPERATIONS))](first, rng)]
    amplitude, phase = rng.permutation([0, 1])
    return recombine(np.asarray(views[amplitude]), np.asarray(views[phase])).clip(0, 255).astype(np.float32)
