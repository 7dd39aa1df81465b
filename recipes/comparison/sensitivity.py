"""How the gain of a method depends on each setting of it and of its training, one at a time."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from advbn_hf.errors import InputError
from advbn_hf.utils.tables import align_markdown

from .grid import Grid, Settings, Trial
from .methods import method_called
from .summary import MEAN, Entry, summarize

_TRAINING = {"learning_rate": (int, float), "batch_size": (int,), "steps": (int,)}  # all others are the method's


@dataclass(frozen=True)
class Variation:
    """One setting and the values to try; all else stays as it is.

    Args:
        setting: a field of the method's config, or one of "learning_rate", "batch_size", "steps".
        values: to try; the one in force may be among them.
    """

    setting: str
    values: tuple[Any, ...]

    @classmethod
    def read(cls, text: str) -> "Variation":
        """From "SETTING=VALUE VALUE ..."."""
        if not (found := re.fullmatch(r"(\w+)=(.*\S.*)", text)):
            raise InputError(f"vary: {text!r} is not SETTING=VALUE VALUE ...")
        values = tuple(yaml.safe_load(value) for value in found[2].split())
        for value in values:
            if found[1] in _TRAINING and not (type(value) in _TRAINING[found[1]] and value > 0):
                raise InputError(f"vary: {found[1]} must be a number above 0, got {value}")
        return cls(found[1], values)


@dataclass(frozen=True)
class Change:
    """One value of one setting.

    Args:
        setting, value: see `Variation`.
        method: with the value, as `method_called` reads it.
        settings: of the comparison, with the value.
        in_force: whether it is the value with which all other settings are tried.
    """

    setting: str
    value: Any
    method: str
    settings: Settings
    in_force: bool


@dataclass(frozen=True)
class Point:
    """What a method gains with one value of one setting, over the reference with the same training.

    Args:
        setting, value, in_force: see `Change`.
        shifts: the clean branch under shifts.
        clean: the clean branch on clean images.
    """

    setting: str
    value: Any
    in_force: bool
    shifts: Entry
    clean: Entry


def changes(variations: Sequence[Variation], method: str, settings: Settings) -> Iterator[Change]:
    """All values of all settings.

    Args:
        variations: what to try.
        method: one of `METHODS`.
        settings: in force.

    Raises:
        InputError: if the method has no such setting, or a value is out of its range.
    """
    for variation in variations:
        setting = variation.setting
        for value in variation.values:
            varied, changed = method, settings
            if setting == "steps":
                changed = dataclasses.replace(settings, steps=value)
            elif setting in _TRAINING:
                tuning = dataclasses.replace(settings.tuning, **{setting: value})
                changed = dataclasses.replace(settings, tuning=tuning)
            elif method_called(f"{method}:{setting}={value}").config != method_called(method).config:
                varied = f"{method}:{setting}={value}"
            yield Change(setting, value, varied, changed, (varied, changed) == (method, settings))


def make_point(change: Change, grid: Grid, dataset: str, model: str, seeds: Sequence[int]) -> Point:
    """Makes the trials with a change that are not stored yet, and sums them up."""
    methods = (change.settings.reference, change.method)
    trials = [grid.make(Trial(method, dataset, model, seed, "steps")) for seed in seeds for method in methods]
    entries = summarize(trials, change.settings.reference)
    found = {entry.set: entry for entry in entries if (entry.method, entry.branch) == (change.method, "clean")}
    return Point(change.setting, change.value, change.in_force, found[MEAN], found["clean"])


def to_markdown(points: Sequence[Point]) -> str:
    """A table: one line for each value of each setting, the value in force in bold."""
    lines = [["setting", "value", "dataset", "seeds", "shifts", "gain", "clean", "gain on clean", "cost"]]
    for point in points:
        value = f"**{point.value}**" if point.in_force else f"{point.value}"
        numbers = [
            text for entry in (point.shifts, point.clean) for text in (f"{entry.mean:.1f}", f"{entry.gain:+.1f}")
        ]
        line = [point.setting, value, point.shifts.dataset, str(point.shifts.seeds)]
        lines.append([*line, *numbers, f"{point.shifts.cost:.2f}"])
    return align_markdown(lines)
