"""Metrics as modules of `evaluate`, loaded from this folder: nothing is downloaded."""

from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import check_choice

if TYPE_CHECKING:
    import evaluate

METRICS = ("top_k_accuracy", "mean_corruption_error", "expected_calibration_error")


def load_metric(name: str) -> "evaluate.EvaluationModule":
    """Loads one of our metrics.

    Args:
        name: one of `METRICS`.

    Returns:
        The module, with `compute`, `add` and `add_batch`; `evaluate.load` of the metric's folder returns the same.

    Raises:
        InputError: there is no such metric.
    """
    # Not above: while a recipe is being imported, its folder is on the path, and evaluate.py there hides the library.
    import evaluate

    check_choice("metric", name, METRICS)
    return evaluate.load(str(Path(__file__).parent / name), module_type="metric")
