"""Checks before anything runs: which sets of a suite can be reached, and whether their classes are the model's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..data.loading import SourceInfo, inspect_images
from ..errors import InputError
from ..utils.tables import align_text
from .labels import count_matches
from .models import EvaluatedModel
from .sets import load_set, shifts_of
from .suites import SetEntry


@dataclass(frozen=True)
class SetCheck:
    """What is known of a set before it is evaluated.

    Args:
        name: the set's name.
        info: its columns, size and classes; None if it cannot be reached.
        shifts: number of shifts and severities of them to evaluate under.
        overlap: how many of its classes are the models', as text.
        problem: why it cannot be evaluated, in one line; None if it can.
    """

    name: str
    info: SourceInfo | None
    shifts: int
    overlap: str
    problem: str | None


def check_set(entry: SetEntry, models: Sequence[EvaluatedModel]) -> SetCheck:
    """Tries to reach a set. Of a dataset on the Hub only the first rows are read.

    Args:
        entry: the set.
        models: the models whose classes it must have.

    Returns:
        The result, with the problem if there is one.
    """
    info, shifts = None, 0
    try:
        info, shifts = _inspect(entry)
        overlap = [_overlap(entry, info, evaluated) for evaluated in models]
    except InputError as error:
        return SetCheck(entry.name, info, shifts, "", str(error).removeprefix(f"set {entry.name!r}: "))
    short = [f"{matched} of {all_classes} classes" for matched, all_classes in filter(None, overlap)
             if matched < all_classes]  # fmt: skip
    counts = ["names not known yet" if counts is None else f"{counts[0]} of {counts[1]} classes" for counts in overlap]
    problem = f"labels: only {short[0]} are the model's; map the others by the set's labels" if short else None
    return SetCheck(entry.name, info, shifts, ", ".join(dict.fromkeys(counts)), problem)


def check_table(checks: Sequence[SetCheck]) -> str:
    """Shows checks in a terminal: a table, then a line for each set that cannot be evaluated.

    Args:
        checks: from `check_set`.
    """
    grid = [["set", "reached", "rows", "shifts", "columns", "labels"]]
    for check in checks:
        rows = "" if check.info is None else f"{check.info.num_rows:,}" if check.info.num_rows else "not recorded"
        columns = ", ".join(check.info.columns) if check.info else ""
        reached = "yes" if check.info else "no"
        grid.append([check.name, reached, rows, str(check.shifts or ""), columns, check.overlap])
    problems = [f"{check.name}: {check.problem}" for check in checks if check.problem]
    return "\n".join([align_text(grid), *problems])


def _inspect(entry: SetEntry) -> tuple[SourceInfo, int]:
    """Columns, size and classes, and the number of shifts. Local data is read; of the Hub's, the first rows alone."""
    if entry.layout is not None or entry.dataset == "embedded":
        loaded = load_set(entry)
        rows = len(loaded.source(loaded.shifts[0]))
        return SourceInfo(("image", "label"), rows, loaded.names), len(loaded.shifts)
    shifts = shifts_of(entry)
    info = inspect_images(**entry.location)
    if Path(entry.dataset).exists():
        loaded = load_set(entry)
        info = replace(info, num_rows=len(loaded.source(shifts[0])), names=loaded.names)
    return info, len(shifts)


def _overlap(entry: SetEntry, info: SourceInfo, evaluated: EvaluatedModel) -> tuple[int, int] | None:
    """Matched classes of all of the set's; None where names are not known or there are none."""
    if info.names is None:
        return None
    return count_matches(evaluated.class_names, info.names, entry.labels), len(info.names)
