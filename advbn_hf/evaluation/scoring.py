"""From answers to records: accuracy, calibration, mean corruption error, and paired tests against a baseline."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

import numpy as np
from scipy.stats import ttest_1samp
from transformers.utils import logging

from ..backbones.norms import BRANCHES
from ..errors import InputError
from .inference import KEPT
from .metrics import load_metric
from .predictions import Predictions
from .records import P_VALUE, Record
from .runner import MeasuredSet
from .sets import Part
from .statistics import calibration_error, mcnemar

logger = logging.get_logger(__name__)

ACCURACY, TOP5, ECE = "accuracy", "top5_accuracy", "ece"


class Lane(NamedTuple):
    """A column of the report.

    Args:
        evaluated: name of the model that answered.
        answers: which of its answers: a key of `Predictions.answers`.
        model: the records' `model`.
        branch: the records' `branch`.
    """

    evaluated: str
    answers: str
    model: str
    branch: str | None


def score(measured: Sequence[MeasuredSet]) -> list[Record]:
    """Turns the answers to a suite into records.

    A set of several parts has records of each part, and of the whole set with the means over its parts. The latter's
    `n` is the number of images of one part: those of the others are the same ones, so that its 95 % interval is
    wide enough (a mean's deviation is at most the mean of the deviations, and Wilson's widest at the mean accuracy).

    Args:
        measured: from `run_suite`.

    Returns:
        For each set, part and model: "accuracy", "top5_accuracy" (where there are more than five classes) and "ece";
        beside a baseline "gain_p_value", of McNemar's test on a part and of a t-test of the images' mean gains on a
        set of several parts; for sets that ask for it "mce" and "relative_mce", in per cent of the errors of AlexNet
        or of the baseline.
    """
    records: list[Record] = []
    for found in measured:
        lanes = _lanes(found)
        by_part = {part: _score_part(found, part, lanes) for part in found.answers}
        for part, of_part in by_part.items():
            records += [] if part == Part() else of_part
        records += _score_set(found, lanes, by_part)
    for found in measured:
        if found.entry.mce is not None:
            records += _corruption_errors(found, measured, records)
    return records


def _lanes(found: MeasuredSet) -> list[Lane]:
    """The model's columns, with the branch to report first before the other, then the baseline's."""
    lanes = []
    for name, predictions in next(iter(found.answers.values())).items():
        branches = sorted(BRANCHES, key=lambda branch: branch != found.entry.branch)
        for answers in ("plain", *branches, "mean"):
            if answers in predictions.answers:
                model = f"{name} (mean of branches)" if answers == "mean" else name
                lanes.append(Lane(name, answers, model, answers if answers in BRANCHES else None))
    return lanes


def _score_part(found: MeasuredSet, part: Part, lanes: list[Lane]) -> list[Record]:
    records = []
    for lane in lanes:
        predictions = found.answers[part][lane.evaluated]
        right = predictions.correct(lane.answers).numpy()
        values = {ACCURACY: right.mean()}
        if found.num_classes > KEPT:
            values[TOP5] = predictions.correct(lane.answers, KEPT).numpy().mean()
        values[ECE] = calibration_error(predictions.answers[lane.answers].confidence.numpy(), right)
        reference = _reference(lanes, lane)
        if reference is not None:
            values[P_VALUE] = mcnemar(*_paired(found.answers[part], lane, reference)).p_value
        records += [_record(found, part, lane, metric, value, len(right)) for metric, value in values.items()]
    return records


def _score_set(found: MeasuredSet, lanes: list[Lane], by_part: Mapping[Part, list[Record]]) -> list[Record]:
    """Means over the parts; the same records where there is but one."""
    if len(by_part) == 1:
        (of_part,) = by_part.values()
        return [replace(record, shift=None, severity=None) for record in of_part]
    gathered: dict[tuple[str, str | None, str], list[Record]] = defaultdict(list)
    for record in (record for of_part in by_part.values() for record in of_part if record.metric != P_VALUE):
        gathered[record.model, record.branch, record.metric].append(record)
    records = []
    for lane in lanes:
        for metric in (ACCURACY, TOP5, ECE):
            if of_lane := gathered.get((lane.model, lane.branch, metric)):
                n = min(record.n for record in of_lane)
                records.append(_record(found, Part(), lane, metric, fmean(record.value for record in of_lane), n))
        reference = _reference(lanes, lane)
        if reference is not None:
            gains = _gain_of_each_image(found, lane, reference)
            records.append(_record(found, Part(), lane, P_VALUE, _mean_p_value(gains), len(gains)))
    return records


def _reference(lanes: list[Lane], lane: Lane) -> Lane | None:
    """The baseline's first column; None for the baseline itself or without one."""
    if lane.evaluated == "baseline":
        return None
    return next((other for other in lanes if other.evaluated == "baseline"), None)


def _paired(answers: Mapping[str, Predictions], lane: Lane, reference: Lane) -> tuple[np.ndarray, np.ndarray]:
    """Whether both were right, on the images that both answered."""
    ours, theirs = answers[lane.evaluated], answers[reference.evaluated]
    _, left, right = np.intersect1d(ours.rows, theirs.rows, assume_unique=True, return_indices=True)
    return ours.correct(lane.answers).numpy()[left], theirs.correct(reference.answers).numpy()[right]


def _gain_of_each_image(found: MeasuredSet, lane: Lane, reference: Lane) -> np.ndarray:
    """Mean over the parts of what the lane got right and the reference did not, and the reverse as -1; (n,)."""
    rows, gains = [], []
    for answers in found.answers.values():
        rows.append(np.intersect1d(answers[lane.evaluated].rows, answers[reference.evaluated].rows))
        ours, theirs = _paired(answers, lane, reference)
        gains.append(ours.astype(int) - theirs.astype(int))
    rows, gains = np.concatenate(rows), np.concatenate(gains)
    counts = np.bincount(rows)
    return (np.bincount(rows, weights=gains) / np.maximum(counts, 1))[counts > 0]


def _mean_p_value(gains: np.ndarray) -> float:
    """Of no gain on average. Parts show the same images, so that only images, not answers, are independent."""
    if np.ptp(gains) == 0:  # the t-test knows no spread to compare with
        return float(gains[0] == 0)
    return float(ttest_1samp(gains, 0).pvalue)


def _record(found: MeasuredSet, part: Part, lane: Lane, metric: str, value: float, n: int) -> Record:
    return Record(lane.model, found.entry.title, part.shift, part.severity, lane.branch, metric, float(value), n)


def _corruption_errors(found: MeasuredSet, measured: Sequence[MeasuredSet], records: Sequence[Record]) -> list[Record]:
    """Mean corruption error and, where the suite has the set without corruptions, the relative one; in per cent."""
    lanes = _lanes(found)
    clean = next((other.entry.title for other in measured if other.entry.name == found.entry.clean), None)
    errors: dict[Lane, dict[tuple[str | None, int | None], float]] = {lane: {} for lane in lanes}
    clean_errors: dict[Lane, float] = {}
    for record in records:
        lane = next((lane for lane in lanes if lane[2:] == (record.model, record.branch)), None)
        if record.metric != ACCURACY or lane is None:
            continue
        if record.set == found.entry.title and record.shift is not None:
            errors[lane][record.shift, record.severity] = 1 - record.value
        elif record.set == clean and record.shift is None:
            clean_errors[lane] = 1 - record.value
    against: dict[str, object] = {}
    if found.entry.mce == "baseline":
        reference = next((lane for lane in lanes if lane.evaluated == "baseline"), None)
        if reference is None:
            return []
        of_shift = defaultdict(list)
        for (shift, _), error in errors[reference].items():
            of_shift[shift].append(error)
        against = {
            "baseline_errors": {shift: fmean(values) for shift, values in of_shift.items()},
            "baseline_clean_error": clean_errors.get(reference),
        }
    scored = []
    metric = load_metric("mean_corruption_error")
    for lane in lanes:
        shifts, severities = zip(*errors[lane], strict=True)
        given = {"corruptions": list(shifts), "severities": list(severities), "errors": list(errors[lane].values())}
        n = min(len(predictions[lane.evaluated].rows) for predictions in found.answers.values())
        for name, key, clean_error in (
            ("mce", "mean_corruption_error", None),
            ("relative_mce", "relative_mean_corruption_error", clean_errors.get(lane)),
        ):
            try:
                result = metric.compute(**given, **against, clean_error=clean_error)
            except InputError as error:  # a baseline without errors, say; all other results stand
                logger.warning(f"{found.entry.title}: no {name} of {lane.model}: {error}")
            else:
                scored += [_record(found, Part(), lane, name, result[key], n)] if key in result else []
    return scored
