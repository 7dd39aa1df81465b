"""From predictions to records: accuracy, calibration, mean corruption error, and paired tests against a baseline."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

import numpy as np
from transformers.utils import logging

from ..backbones.norms import BRANCHES
from ..errors import InputError
from .inference import KEPT
from .metrics import load_metric
from .predictions import Predictions
from .records import P_VALUE, Record
from .runner import MeasuredSet
from .sets import Shift
from .statistics import calibration_error, mcnemar, mean_gain_p_value

logger = logging.get_logger(__name__)

ACCURACY, TOP5, ECE = "accuracy", "top5_accuracy", "ece"
_REFERENCES = ("base", "baseline")  # models that others are compared with, and not the reverse
_UNSHIFTED = Shift()


class ScoredColumn(NamedTuple):
    """Predictions that are scored together: of a model, of one of its branches, or of the mean of both.

    Args:
        evaluated: name of the evaluated model.
        column: a key of `Predictions.by_column`.
        model: the records' `model`.
        branch: the records' `branch`.
    """

    evaluated: str
    column: str
    model: str
    branch: str | None


def score(measured: Sequence[MeasuredSet]) -> list[Record]:
    """Turns the predictions for a suite into records.

    A set under several shifts has records of each shift, and of the complete set with the means over its shifts. The
    latter's `n` is the number of images under one shift: those under the others are the same ones, so that its 95 %
    interval is wide enough (a mean's standard deviation is at most the mean of the standard deviations, and Wilson's
    interval is widest at the mean accuracy).

    Args:
        measured: from `run_suite`.

    Returns:
        For each set, shift and model: "accuracy", "top5_accuracy" (where there are more than five classes) and "ece";
        beside a baseline "gain_p_value", of McNemar's test under one shift and of a t-test of the images' mean gains
        over several; for sets that ask for it "mce" and "relative_mce", in per cent of the errors of AlexNet or of the
        baseline.
    """
    records: list[Record] = []
    for measured_set in measured:
        columns = _columns(measured_set)
        by_shift = {shift: _score_shift(measured_set, shift, columns) for shift in measured_set.predictions}
        for shift, scored in by_shift.items():
            records += [] if shift == _UNSHIFTED else scored
        records += _score_set(measured_set, columns, by_shift)
    for measured_set in measured:
        if measured_set.entry.mce is not None:
            records += _corruption_errors(measured_set, measured, records)
    return records


def _columns(measured_set: MeasuredSet) -> list[ScoredColumn]:
    """Model by model, with the branch to report first before the other."""
    columns = []
    for name, predictions in next(iter(measured_set.predictions.values())).items():
        branches = sorted(BRANCHES, key=lambda branch: branch != measured_set.entry.branch)
        for column in ("plain", *branches, "mean"):
            if column in predictions.by_column:
                model = f"{name} (mean of branches)" if column == "mean" else name
                columns.append(ScoredColumn(name, column, model, column if column in BRANCHES else None))
    return columns


def _score_shift(measured_set: MeasuredSet, shift: Shift, columns: list[ScoredColumn]) -> list[Record]:
    records = []
    for column in columns:
        predictions = measured_set.predictions[shift][column.evaluated]
        right = predictions.correct(column.column).numpy()
        values = {ACCURACY: right.mean()}
        if measured_set.num_classes > KEPT:
            values[TOP5] = predictions.correct(column.column, KEPT).numpy().mean()
        values[ECE] = calibration_error(predictions.by_column[column.column].confidence.numpy(), right)
        reference = _reference(columns, column)
        if reference is not None:
            values[P_VALUE] = mcnemar(*_paired(measured_set.predictions[shift], column, reference))
        records += [
            _record(measured_set, shift, column, metric, value, len(right)) for metric, value in values.items()
        ]
    return records


def _score_set(
    measured_set: MeasuredSet, columns: list[ScoredColumn], by_shift: Mapping[Shift, list[Record]]
) -> list[Record]:
    """Means over the shifts; the same records where there is but one."""
    if len(by_shift) == 1:
        (scored,) = by_shift.values()
        return [replace(record, shift=None, severity=None) for record in scored]
    gathered: dict[tuple[str, str | None, str], list[Record]] = defaultdict(list)
    for record in (record for scored in by_shift.values() for record in scored if record.metric != P_VALUE):
        gathered[record.model, record.branch, record.metric].append(record)
    records = []
    for column in columns:
        for metric in (ACCURACY, TOP5, ECE):
            if scored := gathered.get((column.model, column.branch, metric)):
                n, mean = min(record.n for record in scored), fmean(record.value for record in scored)
                records.append(_record(measured_set, _UNSHIFTED, column, metric, mean, n))
        reference = _reference(columns, column)
        if reference is not None:
            gains = _gain_of_each_image(measured_set, column, reference)
            p_value = mean_gain_p_value(gains)
            records.append(_record(measured_set, _UNSHIFTED, column, P_VALUE, p_value, len(gains)))
    return records


def _reference(columns: list[ScoredColumn], column: ScoredColumn) -> ScoredColumn | None:
    """The baseline's first column; None for what is a reference itself, or without a baseline."""
    if column.evaluated in _REFERENCES:
        return None
    return _baseline(columns)


def _baseline(columns: list[ScoredColumn]) -> ScoredColumn | None:
    return next((column for column in columns if column.evaluated == "baseline"), None)


def _paired(
    predictions: Mapping[str, Predictions], column: ScoredColumn, reference: ScoredColumn
) -> tuple[np.ndarray, np.ndarray]:
    """Whether both were right, on the images that both could decode."""
    ours, theirs = predictions[column.evaluated], predictions[reference.evaluated]
    _, left, right = np.intersect1d(ours.rows, theirs.rows, assume_unique=True, return_indices=True)
    return ours.correct(column.column).numpy()[left], theirs.correct(reference.column).numpy()[right]


def _gain_of_each_image(measured_set: MeasuredSet, column: ScoredColumn, reference: ScoredColumn) -> np.ndarray:
    """Mean over the shifts of 1 where only the column was right and -1 where only the reference was, (n,)."""
    rows, gains = [], []
    for predictions in measured_set.predictions.values():
        rows.append(np.intersect1d(predictions[column.evaluated].rows, predictions[reference.evaluated].rows))
        ours, theirs = _paired(predictions, column, reference)
        gains.append(ours.astype(int) - theirs.astype(int))
    rows, gains = np.concatenate(rows), np.concatenate(gains)
    counts = np.bincount(rows)
    return (np.bincount(rows, weights=gains) / np.maximum(counts, 1))[counts > 0]


def _record(
    measured_set: MeasuredSet, shift: Shift, column: ScoredColumn, metric: str, value: float, n: int
) -> Record:
    title = measured_set.entry.title
    return Record(column.model, title, shift.name, shift.severity, column.branch, metric, float(value), n)


def _corruption_errors(
    measured_set: MeasuredSet, measured: Sequence[MeasuredSet], records: Sequence[Record]
) -> list[Record]:
    """Mean corruption error and, where the suite has the set without corruptions, the relative one; in per cent."""
    entry, columns = measured_set.entry, _columns(measured_set)
    clean = next((other.entry.title for other in measured if other.entry.name == entry.clean), None)
    errors: dict[ScoredColumn, dict[Shift, float]] = {column: {} for column in columns}
    clean_errors: dict[ScoredColumn, float] = {}
    for record in records:
        column = next((column for column in columns if column[2:] == (record.model, record.branch)), None)
        if record.metric != ACCURACY or column is None:
            continue
        if record.set == entry.title and record.shift is not None:
            errors[column][Shift(record.shift, record.severity)] = 1 - record.value
        elif record.set == clean and record.shift is None:
            clean_errors[column] = 1 - record.value
    against: dict[str, object] = {}
    if entry.mce == "baseline":
        baseline = _baseline(columns)
        if baseline is None:
            return []
        by_name = defaultdict(list)
        for shift, error in errors[baseline].items():
            by_name[shift.name].append(error)
        against = {
            "baseline_errors": {name: fmean(values) for name, values in by_name.items()},
            "baseline_clean_error": clean_errors.get(baseline),
        }
    scored = []
    metric = load_metric("mean_corruption_error")
    for column in columns:
        names, severities = zip(*errors[column], strict=True)
        given = {"corruptions": list(names), "severities": list(severities), "errors": list(errors[column].values())}
        n = min(len(predictions[column.evaluated].rows) for predictions in measured_set.predictions.values())
        for name, key, clean_error in (
            ("mce", "mean_corruption_error", None),
            ("relative_mce", "relative_mean_corruption_error", clean_errors.get(column)),
        ):
            try:
                result = metric.compute(**given, **against, clean_error=clean_error)
            except InputError as error:  # a baseline without errors, say; all other results stand
                logger.warning(f"{entry.title}: no {name} of {column.model}: {error}")
            else:
                scored += [_record(measured_set, _UNSHIFTED, column, name, result[key], n)] if key in result else []
    return scored
