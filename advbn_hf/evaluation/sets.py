"""The sets of a suite, opened: their rows, classes and parts, where a part is one shift at one severity."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasets import Dataset

from ..data.loading import check_labels, class_names, load_images
from ..errors import InputError
from ..shifts.generate import check_shift, severities, shift_images
from ..shifts.released import find_corruptions, load_corruption
from .labels import LabelMatch, match_labels
from .suites import SetEntry


class Part(NamedTuple):
    """What is evaluated at a time.

    Args:
        shift: name of the shift; None for the images as they are.
        severity: its severity; None where it has none.
    """

    shift: str | None = None
    severity: int | None = None

    def __str__(self) -> str:
        return " ".join(str(value) for value in self if value is not None)


@dataclass(frozen=True)
class LoadedSet:
    """A set whose rows are there.

    Args:
        entry: what the suite says of it.
        parts: what there is to evaluate.
        names: names of its classes in the order of its labels; None where they have none.
        max_samples: how many rows to take, the same ones of every part; None for all.
        base: the rows without a shift; None for released corruptions, which have files of their own.
        folders: released corruptions: the folder of each part.
    """

    entry: SetEntry
    parts: tuple[Part, ...]
    names: list[str] | None
    max_samples: int | None
    base: Dataset | None
    folders: dict[Part, Path]

    def source(self, part: Part) -> Dataset:
        """The rows that a part is made of, before its shift."""
        if self.base is not None:
            return self.base
        rows = load_corruption(self.folders[part])
        if class_names(rows) != self.names:
            raise InputError(
                f"{self.folders[part]} has other classes than {self.folders[self.parts[0]]}; fix the folder"
            )
        return _sample(rows, self.max_samples)

    def rows(self, part: Part, num_proc: int | None = None) -> Dataset:
        """The rows of a part, shifted.

        Args:
            part: one of `parts`.
            num_proc: processes that shift images which are not in the cache yet.

        Returns:
            A dataset with "image" and "label".
        """
        rows = self.source(part)
        if part.shift is None or part in self.folders:
            return rows
        return shift_images(
            rows, part.shift, part.severity, seed=self.entry.seed, size=self.entry.size, num_proc=num_proc
        )

    def match(self, model_labels: list[str]) -> LabelMatch | None:
        """The model's class for each of the set's; None where labels without names are the model's numbers.

        Args:
            model_labels: names of the model's classes in the order of its logits.

        Raises:
            InputError: a class of the set is none of the model's, or rows have labels outside the classes.
        """
        check_labels(self.source(self.parts[0]), len(self.names or model_labels))
        return None if self.names is None else match_labels(model_labels, self.names, self.entry.labels)


def load_set(entry: SetEntry, max_samples: int | None = None) -> LoadedSet:
    """Finds or loads the rows of a set. Shifts are made when they are asked for.

    Args:
        entry: what the suite says.
        max_samples: take so many rows, drawn once and for all; by default all.

    Returns:
        The set.

    Raises:
        InputError: the dataset cannot be reached or has not what the entry names; begins with the set's name.
    """
    try:
        if entry.layout is not None:
            return _open_released(entry, max_samples)
        parts = find_parts(entry)
        base = load_images(**entry.location)
        return LoadedSet(entry, parts, class_names(base), max_samples, _sample(base, max_samples), {})
    except InputError as error:
        raise InputError(f"set {entry.name!r}: {error}") from error


def find_parts(entry: SetEntry) -> tuple[Part, ...]:
    """The parts of a set whose shifts are generated.

    Args:
        entry: what the suite says.

    Raises:
        InputError: a shift's library is not installed.
    """
    parts = []
    for shift in entry.shift:
        available = severities(shift)
        parts += [Part(shift, severity) for severity in (available and (entry.severities or available)) or (None,)]
    for part in parts:
        check_shift(*part)
    return tuple(parts) or (Part(),)


def _open_released(entry: SetEntry, max_samples: int | None) -> LoadedSet:
    found = find_corruptions(entry.dataset)
    for shift in entry.shift:
        if shift not in found:
            raise InputError(f"shift: {entry.dataset} has no {shift!r}; it has {', '.join(found)}")
    folders = {
        Part(shift, severity): folder
        for shift, by_severity in found.items()
        for severity, folder in by_severity.items()
        if (not entry.shift or shift in entry.shift) and (not entry.severities or severity in entry.severities)
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
