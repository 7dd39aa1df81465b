"""The sets of a suite, loaded: their rows, classes and shifts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from accelerate import PartialState
from datasets import Dataset

from ..data.loading import check_labels, class_names, load_images
from ..errors import InputError
from ..shifts.generate import check_shift, severities, shift_images
from ..shifts.released import find_corruptions, load_corruption
from .labels import LabelMatch, match_labels
from .models import EvaluatedModel
from .suites import SetEntry, Suite


class Shift(NamedTuple):
    """A shift at one severity: what a set is evaluated under at a time.

    Args:
        name: name of the shift; None for the images as they are.
        severity: its severity; None where it has none.
    """

    name: str | None = None
    severity: int | None = None

    def __str__(self) -> str:
        return " ".join(str(value) for value in self if value is not None)


@dataclass(frozen=True)
class LoadedSet:
    """A set whose rows are there.

    Args:
        entry: its entry in the suite.
        shifts: the shifts to evaluate under.
        names: names of its classes in the order of its labels; None where they have none.
        max_samples: how many rows to take, the same ones under every shift; None for all.
        base: the rows without a shift; None for released corruptions, which have files of their own.
        folders: the folder of each released corruption.
    """

    entry: SetEntry
    shifts: tuple[Shift, ...]
    names: list[str] | None
    max_samples: int | None
    base: Dataset | None
    folders: dict[Shift, Path]

    def source(self, shift: Shift) -> Dataset:
        """The rows to which a shift is applied, or the released ones."""
        if self.base is not None:
            return self.base
        rows = load_corruption(self.folders[shift])
        if class_names(rows) != self.names:
            raise InputError(
                f"{self.folders[shift]} has other classes than {self.folders[self.shifts[0]]}; fix the folder"
            )
        return _sample(rows, self.max_samples)

    def rows(self, shift: Shift, num_proc: int | None = None) -> Dataset:
        """The rows under a shift.

        Args:
            shift: one of `shifts`.
            num_proc: processes that shift images which are not in the cache yet.

        Returns:
            A dataset with "image" and "label".
        """
        rows = self.source(shift)
        if shift.name is None or shift in self.folders:
            return rows
        return shift_images(
            rows, shift.name, shift.severity, seed=self.entry.seed, size=self.entry.size, num_proc=num_proc
        )

    def match(self, model_labels: list[str]) -> LabelMatch | None:
        """The model's class for each of the set's; None where labels without names are the model's numbers.

        Args:
            model_labels: names of the model's classes in the order of its logits.

        Raises:
            InputError: a class of the set is none of the model's, or rows have labels outside the classes.
        """
        check_labels(self.source(self.shifts[0]), len(self.names or model_labels))
        return None if self.names is None else match_labels(model_labels, self.names, self.entry.labels)


def load_sets(suite: Suite, max_samples: int | None = None) -> list[LoadedSet]:
    """Loads every set of a suite. The first process goes first, so that the others find its downloads.

    Args:
        suite: the sets.
        max_samples: rows to take of each set, drawn at random with a fixed seed; by default all.

    Raises:
        InputError: as `load_set`.
    """
    with PartialState().main_process_first():
        return [load_set(entry, max_samples) for entry in suite.sets]


def load_set(entry: SetEntry, max_samples: int | None = None) -> LoadedSet:
    """Finds or loads the rows of a set. Shifts are generated when their rows are asked for.

    Args:
        entry: the set's entry in the suite.
        max_samples: rows to take, drawn at random with a fixed seed; by default all.

    Returns:
        The set.

    Raises:
        InputError: the dataset cannot be reached or lacks what the entry names; begins with the set's name.
    """
    try:
        if entry.layout is not None:
            return _load_released(entry, max_samples)
        shifts = shifts_of(entry)
        base = load_images(**entry.location)
        return LoadedSet(entry, shifts, class_names(base), max_samples, _sample(base, max_samples), {})
    except InputError as error:
        raise InputError(f"set {entry.name!r}: {error}") from error


def shifts_of(entry: SetEntry) -> tuple[Shift, ...]:
    """The generated shifts of a set, each at each of its severities; one that does nothing where there are none.

    Args:
        entry: the set's entry in the suite.

    Raises:
        InputError: a shift's library is not installed.
    """
    shifts = []
    for name in entry.shift:
        available = severities(name)
        shifts += [Shift(name, severity) for severity in (available and (entry.severities or available)) or (None,)]
    for shift in shifts:
        check_shift(*shift)
    return tuple(shifts) or (Shift(),)


def match_classes(sets: Sequence[LoadedSet], models: Sequence[EvaluatedModel]) -> list[dict[str, LabelMatch | None]]:
    """Matches the classes of every set to those of every model.

    Args:
        sets: from `load_sets`.
        models: the models.

    Returns:
        For each set, the match by the models' names.

    Raises:
        InputError: the classes of a set are not the model's; begins with the set's name.
    """
    matches = []
    for loaded in sets:
        try:
            matches.append({evaluated.name: loaded.match(evaluated.class_names) for evaluated in models})
        except InputError as error:
            raise InputError(f"set {loaded.entry.name!r}: {error}") from error
    return matches


def _load_released(entry: SetEntry, max_samples: int | None) -> LoadedSet:
    released = find_corruptions(entry.dataset)
    for name in entry.shift:
        if name not in released:
            raise InputError(f"shift: {entry.dataset} has no {name!r}; it has {', '.join(released)}")
    folders = {
        Shift(name, severity): folder
        for name, by_severity in released.items()
        for severity, folder in by_severity.items()
        if (not entry.shift or name in entry.shift) and (not entry.severities or severity in entry.severities)
    }
    if not folders:
        raise InputError(f"severities: {entry.dataset} has none of {', '.join(map(str, entry.severities or ()))}")
    names = class_names(load_corruption(next(iter(folders.values()))))
    return LoadedSet(entry, tuple(folders), names, max_samples, None, folders)


def _sample(rows: Dataset, max_samples: int | None) -> Dataset:
    """The same rows for every model. Not the first ones, which may all be of one class."""
    if max_samples is None or max_samples >= len(rows):
        return rows
    return rows.select(np.sort(np.random.default_rng(0).permutation(len(rows))[:max_samples]))
