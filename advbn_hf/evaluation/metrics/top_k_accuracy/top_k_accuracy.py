"""Top-k accuracy with its 95 % interval."""

import datasets
import evaluate
import numpy as np

from advbn_hf.errors import InputError
from advbn_hf.evaluation.statistics import wilson_interval

_DESCRIPTION = "Share of images whose label is among the k highest scores, with a 95 % interval (Wilson 1927)."
_CITATION = ""
_INPUTS = """
Args:
    predictions: scores of all classes for each image, (N, C), such as logits; or, for k = 1, predicted
        classes, (N,).
    references: labels, (N,).
    k: how many of the highest scores count, 1 to C; of equal scores the lower class comes first.

Returns:
    top_k_accuracy: a fraction in [0, 1].
    n: number of images.
    low, high: the ends of the 95 % interval.

Raises:
    InputError: k or a label is out of range, a score is not a number, or there is no image.
"""


class TopKAccuracy(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        references = datasets.Value("int64")
        scores = datasets.Features(
            {"predictions": datasets.Sequence(datasets.Value("float32")), "references": references}
        )
        classes = datasets.Features({"predictions": datasets.Value("int64"), "references": references})
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation=_CITATION, inputs_description=_INPUTS, features=[scores, classes]
        )

    def _compute(self, predictions: list, references: list[int], k: int = 1) -> dict[str, float]:
        given, labels = np.asarray(predictions), np.asarray(references)
        if len(labels) == 0:
            raise InputError("references: there is no image to measure")
        correct = np.equal(given, labels) if given.ndim == 1 else _among_top(given, labels, k)
        if given.ndim == 1 and k != 1:
            raise InputError(f"k: must be 1 where predictions are classes, not {k}; pass the scores of all classes")
        accuracy = float(correct.mean())
        low, high = wilson_interval(accuracy, len(correct))
        return {"top_k_accuracy": accuracy, "n": len(correct), "low": low, "high": high}


def _among_top(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    classes = scores.shape[1]
    if not 1 <= k <= classes:
        raise InputError(f"k: must be between 1 and the number of classes, {classes}, not {k}")
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(f"references: must be within 0..{classes - 1}, the classes of predictions")
    if np.isnan(scores).any():
        raise InputError("predictions: some scores are not a number")
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    before = (scores > own) | ((scores == own) & (np.arange(classes) < labels[:, None]))
    return before.sum(axis=1) < k
