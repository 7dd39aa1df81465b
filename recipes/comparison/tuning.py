"""What a method's settings give on a shift that they were not chosen on."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from advbn_hf.utils.tables import align_markdown

from .data.unseen import UNSEEN
from .datasets import DATASETS
from .grid import Trial
from .summary import values_by_seed


@dataclass(frozen=True)
class LeftOut:
    """A method on one shift, with the setting that is best on the others.

    Args:
        chosen: the setting, as `method_called` reads it.
        values: seed -> accuracy in % of the clean branch on the shift.
    """

    chosen: str
    values: dict[int, float]


def leave_one_out(trials: Sequence[Trial]) -> dict[str, dict[str, LeftOut]]:
    """For each method and shift: its best setting on all other shifts, and what that has on this one.

    "Unseen" is never chosen on. Settings are compared by their mean over the seeds that all of them have.

    Args:
        trials: of one dataset, model and budget, with their results; those of a method differ in settings and seed.

    Returns:
        Method -> shift -> what was chosen; methods whose settings have no seed or less than two
        shifts in common are left out.
    """
    found: dict[str, dict[str, LeftOut]] = {}
    by_setting: dict[str, dict[str, dict[int, Trial]]] = {}
    for trial in trials:
        settings = by_setting.setdefault(trial.method.partition(":")[0], {})
        settings.setdefault(trial.method, {})[trial.seed] = trial
    for method, settings in by_setting.items():
        common = set.intersection(*(set(seeds) for seeds in settings.values()))
        if not common:
            continue
        runs = [seeds[seed].result["accuracy"]["clean"] for seeds in settings.values() for seed in common]
        measured = set.intersection(*(set(run) for run in runs))  # earlier versions measured fewer
        shifts = [name for name in DATASETS[trials[0].dataset].shifts if name in measured]
        if len(shifts) < 2:
            continue
        reported = [*shifts, *({UNSEEN} & measured)]
        values = {
            (setting, shift): values_by_seed({seed: seeds[seed] for seed in common}, "clean", shift)
            for setting, seeds in settings.items()
            for shift in reported
        }
        found[method] = {}
        for left_out in reported:
            others = [shift for shift in shifts if shift != left_out]
            means = {
                setting: statistics.mean(statistics.mean(values[setting, shift].values()) for shift in others)
                for setting in settings
            }
            chosen = max(means, key=means.__getitem__)
            found[method][left_out] = LeftOut(chosen, values[chosen, left_out])
    return found


def to_markdown(trials: Sequence[Trial]) -> str:
    """A table with a line a method, best first; empty where no method has more than one setting.

    Args:
        trials: see `leave_one_out`.
    """
    tried: dict[str, set[str]] = {}
    for trial in trials:
        tried.setdefault(trial.method.partition(":")[0], set()).add(trial.method)
    found = leave_one_out(trials)
    if not found or max(len(tried[method]) for method in found) == 1:
        return ""
    names = list(dict.fromkeys(shift for by_shift in found.values() for shift in by_shift))
    lines = []
    for method, by_shift in found.items():
        shifts = [shift for shift in by_shift if shift != UNSEEN]
        seeds = by_shift[shifts[0]].values
        means = [statistics.mean(by_shift[shift].values[seed] for shift in shifts) for seed in seeds]
        spread = f" ± {statistics.stdev(means):.1f}" if len(means) > 1 else ""
        each = [f"{statistics.mean(by_shift[name].values.values()):.1f}" if name in by_shift else "" for name in names]
        chosen = sorted({by_shift[shift].chosen.partition(":")[2] or "as it is" for shift in shifts})
        cells = [method, str(len(tried[method])), f"{statistics.mean(means):.1f}{spread}", *each, "; ".join(chosen)]
        lines.append((statistics.mean(means), cells))
    ranked = [cells for _, cells in sorted(lines, key=lambda line: -line[0])]
    return align_markdown([["method", "settings tried", "mean", *names, "chosen"], *ranked])
