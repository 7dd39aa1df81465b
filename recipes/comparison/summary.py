"""From trials to numbers: means and standard deviations over seeds, and paired gains over a reference method."""

import statistics
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scipy.stats import ttest_rel

from .datasets import DATASETS
from .grid import Trial

MEAN = "shifts"  # the mean of the sets that `ShiftedSets.shifts` names


@dataclass(frozen=True)
class Entry:
    """One method's accuracy on one set, in %, over the seeds.

    Args:
        dataset, model, budget, method: as in `Trial`.
        branch: as from `fine_tuning.measure`.
        set: one of the dataset's, or "shifts" for their mean.
        seeds: how many.
        mean: over the seeds.
        std: standard deviation over the seeds; None for a single one.
        gain: mean difference, in points, to the reference's clean branch with the same seeds; None where it has none.
        interval: the gain's 95 % interval by the paired t test; None for less than two seeds.
        cost: of a step, in steps of the reference.
        cost_without_views: the same where views are ready.
        step_ms: of a step, in milliseconds.
        steps: of the fine-tuning.
    """

    dataset: str
    model: str
    budget: str
    method: str
    branch: str
    set: str
    seeds: int
    mean: float
    std: float | None
    gain: float | None
    interval: tuple[float, float] | None
    cost: float
    cost_without_views: float
    step_ms: float
    steps: int


def paired_gain(
    values: Mapping[int, float], reference: Mapping[int, float]
) -> tuple[float | None, tuple[float, float] | None]:
    """Mean difference of values with the same seeds, and its 95 % interval by the paired t test (Student, 1908).

    Args:
        values: seed -> value.
        reference: seed -> value.

    Returns:
        The difference, None without a common seed; the interval, None with less than two.

    Example:
        >>> paired_gain({0: 5.0, 1: 6.0}, {0: 4.0, 1: 5.0})
        (1.0, (1.0, 1.0))
    """
    seeds = sorted(values.keys() & reference.keys())
    if not seeds:
        return None, None
    ours, theirs = ([side[seed] for seed in seeds] for side in (values, reference))
    gain = statistics.mean(one - other for one, other in zip(ours, theirs, strict=True))
    if len(seeds) < 2:
        return gain, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where the gains hardly differ
        low, high = ttest_rel(ours, theirs).confidence_interval(0.95)
    return gain, (float(low), float(high))


def summarize(trials: Iterable[Trial], reference: str) -> list[Entry]:
    """An entry for each dataset, model, budget, method, branch and set, in the order of the trials.

    Args:
        trials: with their results.
        reference: the method that gains are over.
    """
    by_seed: dict[tuple[str, str, str, str], dict[int, Trial]] = {}
    for trial in trials:
        by_seed.setdefault((trial.dataset, trial.model, trial.budget, trial.method), {})[trial.seed] = trial
    entries = []
    for (dataset, model, budget, method), seeds in by_seed.items():
        others = by_seed.get((dataset, model, budget, reference), {})
        first = next(iter(seeds.values())).result
        measured: dict[str, dict[str, None]] = {}  # not all seeds have all: some were made by an earlier version
        for trial in seeds.values():
            for branch, accuracies in trial.result["accuracy"].items():
                measured.setdefault(branch, {}).update(dict.fromkeys(accuracies))
        for branch, names in measured.items():
            for name in (*names, MEAN):
                values = values_by_seed(seeds, branch, name)
                gain, interval = paired_gain(values, values_by_seed(others, "clean", name))
                entries.append(
                    Entry(
                        dataset=dataset,
                        model=model,
                        budget=budget,
                        method=method,
                        branch=branch,
                        set=name,
                        seeds=len(values),
                        mean=statistics.mean(values.values()),
                        std=statistics.stdev(values.values()) if len(values) > 1 else None,
                        gain=gain,
                        interval=interval,
                        cost=first["cost"],
                        cost_without_views=first["cost_without_views"],
                        step_ms=first["step_ms"],
                        steps=first["steps"],
                    )
                )
    return entries


def values_by_seed(seeds: Mapping[int, Trial], branch: str, name: str) -> dict[int, float]:
    """Accuracy, in %, of a branch on a set with each seed.

    Args:
        seeds: seed -> trial.
        branch: as from `fine_tuning.measure`.
        name: of a set, or "shifts" for their mean.

    Returns:
        Seed -> accuracy; seeds whose trials have no such branch or set are left out.
    """
    values = {}
    for seed, trial in seeds.items():
        accuracies = trial.result["accuracy"].get(branch, {})
        names = DATASETS[trial.dataset].shifts if name == MEAN else (name,)
        if found := [accuracies[name] for name in names if name in accuracies]:
            values[seed] = 100 * statistics.mean(found)
    return values
