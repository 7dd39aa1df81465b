"""Expected calibration error: how far confidence is from accuracy."""

import numpy as np

BINS = 15  # as in Guo et al., "On Calibration of Modern Neural Networks", ICML 2017


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """The mean over bins of confidence, weighted by their pictures, of |accuracy - mean confidence|; Guo, eq. 3.

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
