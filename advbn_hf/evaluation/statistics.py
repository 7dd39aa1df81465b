"""Two models on the same images: is one better, or is it noise?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.stats import binomtest

from ..errors import InputError


@dataclass(frozen=True)
class PairedTest:
    """What `mcnemar` found.

    Args:
        difference: Accuracy of the first model minus that of the second, in [-1, 1].
        interval: The difference's 95 % confidence interval.
        p_value: How probable a difference at least as large is between models that are equally good.
        n: Number of images.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float
    n: int


def mcnemar(correct_a: Sequence[bool], correct_b: Sequence[bool]) -> PairedTest:
    """Compares two models on the same images, which tells more than two separate intervals.

    The exact test of McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 12 (1947): of the images that only one model got right, each should have half. The
    interval is the adjusted Wald one of Bonett and Price, "Adjusted Wald confidence interval for a difference of
    binomial proportions based on paired data", Journal of Educational and Behavioral Statistics 37 (2012).

    Args:
        correct_a: Whether the first model was right on each image, (N,).
        correct_b: The same for the second model and the same images in the same order, (N,).

    Returns:
        The difference of a to b with its interval and p-value.

    Raises:
        InputError: The two have different lengths, are empty or are not true or false.
    """
    a, b = _as_bool("correct_a", correct_a), _as_bool("correct_b", correct_b)
    if len(a) != len(b) or len(a) == 0:
        raise InputError(f"correct_a, correct_b: must be of one length of 1 or more, not {len(a)} and {len(b)}")
    n, only_a, only_b = len(a), int((a & ~b).sum()), int((~a & b).sum())
    differing = only_a + only_b
    p_value = float(binomtest(only_a, differing).pvalue) if differing else 1.0

    share_a, share_b = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    centre = share_a - share_b
    half = NormalDist().inv_cdf(0.975) * math.sqrt((share_a + share_b - centre**2) / (n + 2))
    return PairedTest((only_a - only_b) / n, (max(-1.0, centre - half), min(1.0, centre + half)), p_value, n)


def _as_bool(field: str, values: Sequence[bool]) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1 or not (array.dtype == bool or np.isin(array, (0, 1)).all()):
        raise InputError(f"{field}: must be a list of true and false, one for each image")
    return array.astype(bool)


def wilson_interval(value: float, n: int) -> tuple[float, float]:
    """95 % confidence interval of an accuracy.

    The score interval of E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22 (1927); recommended over the textbook interval by Brown, Cai and
    DasGupta, "Interval estimation for a binomial proportion", Statistical Science 16 (2001).

    Args:
        value: the accuracy, a fraction in [0, 1].
        n: number of images, 1 or more.

    Returns:
        The lower and the upper end, within [0, 1].
    """
    z = NormalDist().inv_cdf(0.975)
    centre = (value + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(value * (1 - value) / n + z**2 / (4 * n**2))
    # The ends are exact at 0 and 1; only rounding could carry them past the value.
    return max(0.0, min(centre - half, value)), min(1.0, max(centre + half, value))


BINS = 15  # as in Guo et al., "On Calibration of Modern Neural Networks", ICML 2017


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """The mean over bins of confidence, weighted by their images, of |accuracy - mean confidence|; Guo, eq. 3.

    Args:
        confidence: probability of the predicted class, (N,), in [0, 1].
        correct: whether the prediction was right, bool (N,).

    Returns:
        A fraction in [0, 1]; bins are (i / 15, (i + 1) / 15].
    """
    confidence = np.asarray(confidence)
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))
