"""The embedded benchmark: real handwriting in one training style and five unseen ones, generated where it is used.

The handwriting is scikit-learn's `load_digits`: 1,797 scans of 8x8 from "Optical Recognition of Handwritten Digits" of
the UCI repository. No scan is in two splits.
"""

import numpy as np
from datasets import Dataset
from sklearn.datasets import load_digits

from ...errors import check_choice
from .rendering import MEAN_OVER, STYLES, Glyphs, render

__all__ = ["MEAN_OVER", "STYLES", "load_embedded", "scan_indices"]

# Split -> its scans, a range of the fixed permutation.
_SCANS = {"train": slice(0, 1000), "validation": slice(1000, 1200), "test": slice(1200, None)}


def scan_indices(split: str) -> np.ndarray:
    """The scans of `sklearn.datasets.load_digits` that a split draws, in its order.

    Args:
        split: "train" (1000 scans), "validation" (200) or "test" (597).

    Returns:
        Row numbers of `load_digits().images`; no two splits share one.

    Raises:
        InputError: there is no such split.
    """
    check_choice("split", split, _SCANS)
    return np.random.RandomState(0).permutation(1797)[_SCANS[split]]  # RandomState: the same in every NumPy


def load_embedded(style: str = "clean", split: str = "train", num_images: int | None = None, seed: int = 0) -> Dataset:
    """Makes one set of the embedded benchmark; see `rendering.render` for what it returns and raises.

    Args:
        style: one of `STYLES`. All but "clean" are unseen: they have no training split.
        split: "train", "validation" (drawn from scans kept out of training; choose settings on it) or "test".
        num_images: how many images; by default 4000, 1000 and 2000 for the three splits.
        seed: seed of poses, colours, noise and all else that is drawn at random, but not of the choice of scans.
    """
    return render("embedded", _scans, style, split, num_images, seed)


def _scans(split: str) -> Glyphs:
    digits, rows = load_digits(), scan_indices(split)
    return Glyphs(digits.images[rows] / 16, digits.target[rows], tuple(str(digit) for digit in range(10)))
