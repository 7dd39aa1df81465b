"""What a comparison found, as files: the table, all numbers, and plots."""

import dataclasses
import json
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from advbn_hf.utils.files import write_atomically
from advbn_hf.utils.tables import align_markdown

from . import tuning
from .data.unseen import UNSEEN
from .datasets import DATASETS
from .grid import Trial
from .plots import plot_cost, plot_gains
from .questions import answers, difference
from .summary import MEAN, Entry, summarize

BUDGETS = {"steps": "equal steps", "time": "equal time"}
# Header -> branch and set of the columns after the gain, where a method has them.
_FURTHER = {
    "unseen": ("clean", UNSEEN),
    "inverted": ("clean", "inverted"),
    "auxiliary: clean": ("auxiliary", "clean"),
    "auxiliary: shifts": ("auxiliary", MEAN),
    "average: shifts": ("average", MEAN),
    "re-estimated: shifts": ("re-estimated", MEAN),
    "soup: shifts": ("soup", MEAN),
    "interpolated with base: clean": ("interpolated", "clean"),
    "interpolated with base: shifts": ("interpolated", MEAN),
    "adapted (sees test images): shifts": ("adapted", MEAN),
}


def write_report(trials: Sequence[Trial], settings: dict[str, Any], reference: str, folder: Path) -> list[Path]:
    """Writes comparison.json, comparison.md and plots: the gains, and at equal steps the costs.

    Args:
        trials: with their results.
        settings: what they have in common.
        reference: the method that gains are over.
        folder: where to.

    Returns:
        The files.
    """
    entries = summarize(trials, reference)
    files = [folder / "comparison.json", folder / "comparison.md"]
    content = {
        "settings": settings,
        "trials": [dataclasses.asdict(trial) for trial in trials],
        "summary": [dataclasses.asdict(entry) for entry in entries],
    }
    write_atomically(files[0], json.dumps(content, indent=1) + "\n")
    sections = []
    group_of = attrgetter("dataset", "model", "budget")
    for group, members in groupby(sorted(entries, key=group_of), key=group_of):
        members = list(members)
        title = f"{group[0]}, {group[1]}, {BUDGETS[group[2]]}"
        measured = {entry.set for entry in members}
        shifts = ", ".join(name for name in DATASETS[group[0]].shifts if name in measured)
        sections.append(f"## {title}\n\nShifts are the mean of {shifts}.\n\n{to_markdown(members, reference)}\n")
        files.append(folder / f"gains-{'-'.join(group)}.png")
        tuned = tuning.to_markdown([trial for trial in trials if group_of(trial) == group])
        if tuned:
            sections.append(f"### Settings chosen without the shift that is reported: {title}\n\n{tuned}\n")
        plot_gains(members, title, reference, files[-1])
        if group[2] == "steps":  # at equal time there is one cost
            files.append(folder / f"cost-{'-'.join(group)}.png")
            plot_cost(members, title, reference, files[-1])
    about = attrgetter("model", "budget")
    for (model, budget), members in groupby(sorted(trials, key=about), key=about):
        sections.append(f"## Questions: {model}, {BUDGETS[budget]}\n\n{answers(list(members))}\n")
    head = (
        f"Accuracy in % on the {settings['split']} split, mean and standard deviation over seeds. Gains are paired "
        f"differences to {reference} in points, with 95 % intervals over seeds (paired t), and so are the answers to "
        f"the questions. Cost is that of a step relative to {reference}'s, and without views, where the augmented "
        "images are ready, as a loader's workers make them for a GPU. Unseen are plasma noise, sine waves and "
        "checkerboard cutouts on clean images, which no setting was chosen on; they are not among the shifts. Adapted "
        "is the clean branch with batch norm statistics of the set that is measured. Unless a column says otherwise: "
        "the clean branch.\n"
    )
    write_atomically(files[1], "\n".join([head, *sections]))
    return files


def to_markdown(entries: Sequence[Entry], reference: str) -> str:
    """The table of one dataset, model and budget.

    Args:
        entries: of them; one line a method, in their order.
        reference: the method that gains are over.
    """
    places = {(entry.branch, entry.set) for entry in entries}
    columns = {title: place for title, place in _FURTHER.items() if place in places}
    header = [
        "method",
        "seeds",
        "clean",
        "shifts",
        f"gain over {reference}",
        *columns,
        "steps",
        "ms/step",
        "cost",
        "cost without views",
    ]
    lines = [header]
    of_method: dict[str, dict[tuple[str, str], Entry]] = {}
    for entry in entries:
        of_method.setdefault(entry.method, {})[entry.branch, entry.set] = entry
    for method, found in of_method.items():
        shifts = found["clean", MEAN]
        further = [_value(found[place]) if place in found else "" for place in columns.values()]
        cost = [str(shifts.steps), f"{shifts.step_ms:.0f}", f"{shifts.cost:.2f}", f"{shifts.cost_without_views:.2f}"]
        accuracies = [_value(found["clean", "clean"]), _value(shifts)]
        lines.append(
            [method, str(shifts.seeds), *accuracies, difference(shifts.gain, shifts.interval), *further, *cost]
        )
    return align_markdown(lines)


def _value(entry: Entry) -> str:
    return f"{entry.mean:.1f}" + ("" if entry.std is None else f" ± {entry.std:.1f}")
