"""Looks before anything runs: which sets of a suite can be reached, and whether their classes are the model's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..data.loading import SourceInfo, inspect_images
from ..errors import InputError
from ..utils.tables import align_text
from .labels import count_matches
from .models import EvaluatedModel
from .sets import find_parts, load_set
from .suites import SetEntry


@dataclass(frozen=True)
class SetCheck:
    """What there is to say of a set before it is evaluated.

    Args:
        name: the set's name.
        info: its columns, size and classes; None if it cannot be reached.
        parts: how many shifts and severities of them are to be evaluated.
        overlap: how its classes fit the models', in words.
        problem: why it cannot be evaluated, in one line; None if it can.
    """

    name: str
    info: SourceInfo | None
    parts: int
    overlap: str
    problem: str | None


def check_set(entry: SetEntry, models: Sequence[EvaluatedModel]) -> SetCheck:
    """Reaches for a set. Of a dataset on the Hub only the head is read.

    Args:
        entry: the set.
        models: the models whose classes it must have.

    Returns:
        What was found.
    """
    info, parts = None, 0
    try:
        info, parts = _inspect(entry)
        overlap = [_overlap(entry, info, evaluated) for evaluated in models]
    except InputError as error:
        return SetCheck(entry.name, info, parts, "", str(error).removeprefix(f"set {entry.name!r}: "))
    short = [f"{found} of {wanted} classes" for found, wanted in filter(None, overlap) if found < wanted]
    said = ["names not known yet" if fit is None else f"{fit[0]} of {fit[1]} classes" for fit in overlap]
    problem = f"labels: only {short[0]} are the model's; map the others by the set's labels" if short else None
    return SetCheck(entry.name, info, parts, ", ".join(dict.fromkeys(said)), problem)


def check_table(checks: Sequence[SetCheck]) -> str:
    """Shows what was found in a terminal: a table, then a line for each set that cannot be evaluated.

    Args:
        checks: from `check_set`.
    """
    grid = [["set", "reached", "rows", "parts", "columns", "labels"]]
    for check in checks:
        rows = "" if check.info is None else f"{check.info.num_rows:,}" if check.info.num_rows else "not written down"
        columns = ", ".join(check.info.columns) if check.info else ""
        reached = "yes" if check.info else "no"
        grid.append([check.name, reached, rows, str(check.parts or ""), columns, check.overlap])
    problems = [f"{check.name}: {check.problem}" for check in checks if check.problem]
    return "\n".join([align_text(grid), *problems])


def _inspect(entry: SetEntry) -> tuple[SourceInfo, int]:
    """What is there, and how many parts it has. What lies here is read; of what does not, the head alone."""
    if entry.layout is not None or entry.dataset == "embedded":
        found = load_set(entry)
        rows = len(found.source(found.parts[0]))
        return SourceInfo(("image", "label"), rows, found.names), len(found.parts)
    parts = find_parts(entry)
    info = inspect_images(**entry.location)
    if Path(entry.dataset).exists():
        found = load_set(entry)
        info = replace(info, num_rows=len(found.source(parts[0])), names=found.names)
    return info, len(parts)


def _overlap(entry: SetEntry, info: SourceInfo, evaluated: EvaluatedModel) -> tuple[int, int] | None:
    """Matched classes of all of the set's; None where names are not known or there are none."""
    if info.names is None:
        return None
    return count_matches(evaluated.class_names, info.names, entry.labels), len(info.names)
