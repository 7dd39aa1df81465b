"""Mean corruption error and relative mean corruption error."""

from collections.abc import Mapping
from math import fsum
from statistics import fmean

import datasets
import evaluate

from advbn_hf.errors import InputError

# AlexNet's top-1 errors on ImageNet-C, means over the severities 1 to 5, as published with Hendrycks and Dietterich
# (2019); and on the clean validation set, of the same weights (torchvision's first, 56.55 % right).
ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
ALEXNET_CLEAN_ERROR = 0.4345
_SEVERITIES = [1, 2, 3, 4, 5]

_DESCRIPTION = (
    "Error under corruption in percent of a baseline's, by default AlexNet's: the mean over the corruptions of "
    "(sum of the errors over the severities) / (the same of the baseline). The relative one takes the clean error off "
    "every error first, on both sides."
)
_CITATION = """\
@inproceedings{hendrycks2019benchmarking,
  title={Benchmarking Neural Network Robustness to Common Corruptions and Perturbations},
  author={Hendrycks, Dan and Dietterich, Thomas},
  booktitle={International Conference on Learning Representations},
  year={2019}
}"""
_INPUTS = """
Args:
    corruptions: the corruption of each measurement.
    severities: its severity.
    errors: the model's error there, 1 - accuracy, in [0, 1].
    clean_error: the model's error without corruption, for the relative mean corruption error.
    baseline_errors: a baseline's error for each corruption, mean over the same severities; by default AlexNet's, which
        needs exactly the 15 corruptions of ImageNet-C at severities 1 to 5.
    baseline_clean_error: the baseline's error without corruption.

Returns:
    mean_corruption_error: in percent of the baseline.
    relative_mean_corruption_error: the same without the clean errors; only if both clean errors are known.
    corruption_errors: corruption -> error in percent of the baseline's.

Raises:
    InputError: an error is outside [0, 1], a measurement is missing or there twice, or the baseline has other
        corruptions or no errors.
"""


class MeanCorruptionError(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features(
            {
                "corruptions": datasets.Value("string"),
                "severities": datasets.Value("int64"),
                "errors": datasets.Value("float64"),
            }
        )
        return evaluate.MetricInfo(
            description=_DESCRIPTION, citation=_CITATION, inputs_description=_INPUTS, features=features
        )

    def _compute(
        self,
        corruptions: list[str],
        severities: list[int],
        errors: list[float],
        clean_error: float | None = None,
        baseline_errors: Mapping[str, float] | None = None,
        baseline_clean_error: float | None = None,
    ) -> dict[str, float | dict[str, float]]:
        measured = _group(corruptions, severities, errors)
        if baseline_errors is None:
            _check_complete(measured)
            baseline_errors, baseline_clean_error = ALEXNET_ERRORS, ALEXNET_CLEAN_ERROR
        if set(baseline_errors) != set(measured):
            differing = ", ".join(sorted(set(baseline_errors) ^ set(measured)))
            raise InputError(f"baseline_errors: must have the corruptions of the model; these differ: {differing}")
        count = len(next(iter(measured.values())))
        # Sums and not means, so that a model against itself is 100 without rounding.
        sums = {name: fsum(by_severity.values()) for name, by_severity in measured.items()}
        shares = {name: _percent(name, total, count * baseline_errors[name]) for name, total in sums.items()}
        result: dict[str, float | dict[str, float]] = {
            "mean_corruption_error": fmean(shares.values()),
            "corruption_errors": shares,
        }
        if clean_error is not None and baseline_clean_error is not None:
            clean, baseline_clean = count * clean_error, count * baseline_clean_error
            result["relative_mean_corruption_error"] = fmean(
                _percent(name, total - clean, count * baseline_errors[name] - baseline_clean)
                for name, total in sums.items()
            )
        return result


def _group(corruptions: list[str], severities: list[int], errors: list[float]) -> dict[str, dict[int, float]]:
    measured: dict[str, dict[int, float]] = {}
    for name, severity, error in zip(corruptions, severities, errors, strict=True):
        if not 0 <= error <= 1:
            raise InputError(f"errors: {name} at severity {severity} must be a fraction in [0, 1], not {error}")
        if severity in measured.setdefault(name, {}):
            raise InputError(f"corruptions: {name} at severity {severity} occurs twice")
        measured[name][severity] = error
    if not measured:
        raise InputError("corruptions: there is no measurement")
    if len({tuple(sorted(by_severity)) for by_severity in measured.values()}) > 1:
        raise InputError("severities: every corruption must have the same ones")
    return measured


def _check_complete(measured: dict[str, dict[int, float]]) -> None:
    differing = sorted(set(ALEXNET_ERRORS) ^ set(measured))
    if differing or sorted(next(iter(measured.values()))) != _SEVERITIES:
        raise InputError(
            "corruptions: AlexNet's errors are for the 15 of ImageNet-C at severities 1 to 5; leave out or add "
            f"{', '.join(differing) or 'severities'}, or give baseline_errors"
        )


def _percent(name: str, error: float, baseline: float) -> float:
    if baseline <= 0:
        raise InputError(f"baseline_errors: {name} must be above 0, and above the clean error, to be divided by")
    return 100 * (error / baseline)
