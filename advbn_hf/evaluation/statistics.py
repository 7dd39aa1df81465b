"""What accuracies and confidences are worth: intervals, paired tests, calibration."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from scipy.stats import binomtest, ttest_1samp

from ..errors import InputError

BINS = 15  # as in Guo et al., "On Calibration of Modern Neural Networks", ICML 2017


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

    Example:
        >>> [round(end, 3) for end in wilson_interval(0.7, 100)]
        [0.604, 0.781]
    """
    z = NormalDist().inv_cdf(0.975)
    centre = (value + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(value * (1 - value) / n + z**2 / (4 * n**2))
    # The ends are exact at 0 and 1; only rounding could carry them past the value.
    return max(0.0, min(centre - half, value)), min(1.0, max(centre + half, value))


def mcnemar(correct_a: Sequence[bool], correct_b: Sequence[bool]) -> float:
    """P-value of two models being equally good, from the same images, which tells more than two separate intervals.

    The exact test of McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 12 (1947): of the images that only one model got right, each should have half.

    Args:
        correct_a: whether the first model was right on each image, (N,).
        correct_b: the same for the second model and the same images in the same order, (N,).

    Returns:
        How probable a difference at least as large is between equally good models, in [0, 1].

    Raises:
        InputError: the two have different lengths, are empty or are not true or false.

    Example:
        >>> mcnemar([True, True, True, True, False], [False, False, False, True, False])
        0.25
    """
    a, b = _as_bool("correct_a", correct_a), _as_bool("correct_b", correct_b)
    if len(a) != len(b) or len(a) == 0:
        raise InputError(f"correct_a, correct_b: must be of one length of 1 or more, not {len(a)} and {len(b)}")
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def mean_gain_p_value(gains: np.ndarray) -> float:
    """P-value of no gain on average, of a two-sided t-test over the images.

    Args:
        gains: mean gain of each image over the shifts that it was shown under, (N,), in [-1, 1]. Shifts show the same
            images, so that images are independent, but not predictions.

    Returns:
        A probability in [0, 1].
    """
    if np.ptp(gains) == 0:  # the t-test needs some variance
        return float(gains[0] == 0)
    return float(ttest_1samp(gains, 0).pvalue)


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


def _as_bool(field: str, values: Sequence[bool]) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1 or not (array.dtype == bool or np.isin(array, (0, 1)).all()):
        raise InputError(f"{field}: must be a list of true and false, one for each image")
    return array.astype(bool)
