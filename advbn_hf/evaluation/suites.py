"""Suites: YAML files that list sets of images to evaluate on. Their schema:

sets:                      the sets, in the order in which they are evaluated and reported; each has
  - name                   its name in reports; no two sets share one
    dataset                Hub id, folder, or "embedded"; without it, `dataset_name` of the command line
    config                 configuration of the dataset; of "embedded", the style
    revision               branch, tag or commit on the Hub
    split                  split ("validation" by default)
    image_column           column of the images (by default found by its type)
    label_column           column of the labels (by default found by its type)
    layout                 "imagenet-c": dataset is a folder of released ImageNet-C files, nested by category
                           (CATEGORY/CORRUPTION/SEVERITY/CLASS/FILE) or flat (CORRUPTION/SEVERITY/CLASS/FILE)
    shift                  name of a shift or of a group of them ("corruptions", "extra_corruptions", "filters",
                           "plain"), or list of names, to apply to the images; with layout, a selection of the
                           folder's
    severities             list of severities, 1 to 5 (by default all of the shift)
    size                   pixels: as for ImageNet-C, the shorter side is resized to 8/7 of it and the central square
                           cropped before the shift (by default images keep their size)
    seed                   seed of the shift (0 by default)
    branch                 branch of an AdvBN model to report first: "clean" (default) or "auxiliary"
    labels                 mapping from the set's classes to the model's, where names and synset ids do not match
    preprocessing          "processor": the checkpoint's own (default); "none": scale the values to the model's range,
                           but do not resize or crop, for images of the model's size
    mce                    over a set of corruptions, the mean corruption error, divided by the errors of "alexnet" or
                           of the "baseline" (none by default)
    clean                  name of the set without corruptions, for the relative mean corruption error
defaults:                  the same keys but name, for all sets that do not set them
mean_over:                 names of the sets to average in a last row
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ..backbones.norms import BRANCHES, Branch
from ..errors import InputError, check_choice, suggestion
from ..shifts.generate import GROUPS, shift_label, shift_names
from ..shifts.imagenet_c import SEVERITIES
from ..utils.documents import read_yaml
from ..utils.files import shipped
from ..utils.predicates import is_integer, is_line

Preprocessing = Literal["processor", "none"]
Normaliser = Literal["alexnet", "baseline"]


@dataclass(frozen=True)
class SetEntry:
    """One set of a suite; the fields are explained at the top of this file.

    Raises:
        InputError: a field has the wrong type or value.
    """

    name: str
    dataset: str | None = None
    config: str | None = None
    revision: str | None = None
    split: str = "validation"
    image_column: str | None = None
    label_column: str | None = None
    layout: Literal["imagenet-c"] | None = None
    shift: tuple[str, ...] = ()
    severities: tuple[int, ...] | None = None
    size: int | None = None
    seed: int = 0
    branch: Branch = "clean"
    labels: Mapping[str, str | int] | None = None
    preprocessing: Preprocessing = "processor"
    mce: Normaliser | None = None
    clean: str | None = None

    def __post_init__(self) -> None:
        for name in ("name", "split"):
            _require(is_line(getattr(self, name)), name, "a text", getattr(self, name))
        for name in ("dataset", "config", "revision", "image_column", "label_column", "clean"):
            value = getattr(self, name)
            _require(value is None or is_line(value), name, "a text", value)
        shifts = (self.shift,) if isinstance(self.shift, str) else self.shift
        _require(isinstance(shifts, list | tuple), "shift", "a name or a list of names", shifts)
        expanded = [name for shift in shifts for name in (GROUPS.get(shift, (shift,)) if is_line(shift) else (shift,))]
        object.__setattr__(self, "shift", tuple(expanded))
        if self.severities is not None:
            _require(isinstance(self.severities, list | tuple) and self.severities, "severities", "a list of numbers",
                     self.severities)  # fmt: skip
            object.__setattr__(self, "severities", tuple(self.severities))
        for name, choices in (
            ("layout", (None, "imagenet-c")),
            ("branch", BRANCHES),
            ("preprocessing", get_args(Preprocessing)),
            ("mce", (None, *get_args(Normaliser))),
        ):
            requirement = " or ".join(str(choice) for choice in choices if choice is not None)
            _require(getattr(self, name) in choices, name, requirement, getattr(self, name))
        _require(self.size is None or is_integer(self.size, least=1), "size", "a number of pixels", self.size)
        _require(is_integer(self.seed, least=0), "seed", "a whole number of 0 or more", self.seed)
        _require(self.labels is None or isinstance(self.labels, Mapping), "labels", "a mapping", self.labels)
        self._check_shifts()

    def _check_shifts(self) -> None:
        # The corruptions of a released folder are known once it is read.
        known = self.shift if self.layout else shift_names()
        for shift in self.shift:
            if shift not in known:
                raise InputError(f"shift: there is no {shift!r}; {suggestion(shift, [*known, *GROUPS])}")
        for severity in self.severities or ():
            if severity not in SEVERITIES or isinstance(severity, bool):
                raise InputError(f"severities: must be {SEVERITIES[0]} to {SEVERITIES[-1]}, not {severity!r}")

    @property
    def location(self) -> dict[str, str | None]:
        """Keyword arguments of `load_images` and `inspect_images`."""
        fields = ("split", "config", "revision", "image_column", "label_column")
        return {"name": self.dataset, **{field: getattr(self, field) for field in fields}}

    @property
    def title(self) -> str:
        """The records' `set`: its name, and where shifted images come from, since their files differ."""
        if self.layout:
            return f"{self.name} (released)" if self.name == "ImageNet-C" else f"{self.name} (ImageNet-C, released)"
        labels = dict.fromkeys(shift_label(shift) for shift in self.shift)
        return f"{self.name} ({'; '.join(labels)})" if labels else self.name


@dataclass(frozen=True)
class Suite:
    """Sets to evaluate on.

    Args:
        sets: the sets; no two have one name.
        mean_over: names of sets for a last row with their mean.

    Raises:
        InputError: two sets have one name, or a named set does not exist.
    """

    sets: tuple[SetEntry, ...]
    mean_over: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.sets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"sets: two have the name {twice[0]!r}; give each its own")
        references = [("mean_over", name) for name in self.mean_over]
        references += [(f"set {entry.name!r}: clean", entry.clean) for entry in self.sets if entry.clean]
        for field, name in references:
            check_choice(field, name, names)

    def only(self, names: list[str]) -> "Suite":
        """The same suite with some of its sets.

        Args:
            names: names of the sets to keep, in any order.

        Raises:
            InputError: there is no set of such a name.
        """
        known = [entry.name for entry in self.sets]
        for name in names:
            check_choice("sets", name, known)
        kept = [
            dataclasses.replace(entry, clean=entry.clean if entry.clean in names else None)
            for entry in self.sets
            if entry.name in names
        ]
        return Suite(tuple(kept), self.mean_over if set(self.mean_over) <= set(names) else ())


def load_suite(
    name_or_path: str | Path,
    overrides: Mapping[str, Any] | None = None,
    dataset: Mapping[str, Any] | None = None,
) -> Suite:
    """Reads a suite and checks all that can be checked without data.

    Args:
        name_or_path: name of a suite that comes with the package, or a YAML file.
        overrides: values for keys of sets, such as "dataset" and "split", that replace the suite's defaults.
        dataset: the same for sets that name no dataset otherwise, if there are any.

    Returns:
        The suite.

    Raises:
        InputError: there is no such suite, or its file cannot be read or breaks the schema; names the file, the set
            and the key.

    Example:
        >>> [entry.name for entry in load_suite("embedded").sets]
        ['clean', 'filters', 'corruptions', 'stylized', 'sketch', 'inverted']
    """
    by_name = {path.stem: path for path in sorted(shipped("recipes/suites").glob("*.yaml"))}
    path = by_name.get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        raise InputError(f"suite: there is no suite or file {name_or_path}; shipped are {', '.join(by_name)}")
    content = read_yaml(path)
    try:
        return _read_suite(content, dict(overrides or {}), dict(dataset or {}))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _read_suite(content: object, overrides: dict[str, Any], dataset: dict[str, Any]) -> Suite:
    _check_keys(content, ("sets", "defaults", "mean_over"), "a suite")
    keys = [field.name for field in dataclasses.fields(SetEntry)]
    defaults = content.get("defaults") or {}
    for values, where in ((defaults, "defaults"), (overrides, "overrides")):
        _check_keys(values, [key for key in keys if key != "name"], where)
    listed = content.get("sets")
    if not isinstance(listed, list) or not listed:
        raise InputError("sets: must be a list of sets, each with a name")
    entries = []
    for number, values in enumerate(listed, start=1):
        _check_keys(values, keys, f"set {number}")
        if "name" not in values:
            raise InputError(f"set {number}: has no name")
        try:
            values = {**defaults, **overrides, **values}
            entry = SetEntry(**(values if "dataset" in values else {**dataset, **values}))
        except InputError as error:
            raise InputError(f"set {values['name']!r}: {error}") from error
        if entry.dataset is None:
            raise InputError(f"set {entry.name!r}: has no dataset; write one, or pass dataset_name")
        entries.append(entry)
    if "dataset" in overrides and all(entry.dataset != overrides["dataset"] for entry in entries):
        raise InputError("dataset: every set names its own; leave out dataset_name, or choose another suite")
    mean_over = content.get("mean_over") or []
    if not isinstance(mean_over, list):
        raise InputError("mean_over: must be a list of names of sets")
    return Suite(tuple(entries), tuple(mean_over))


def _check_keys(values: object, known: list[str] | tuple[str, ...], where: str) -> None:
    if not isinstance(values, dict):
        raise InputError(f"{where}: must be a mapping with the keys {', '.join(known)}")
    for key in values:
        if key not in known:
            raise InputError(f"{where}: unknown key {key!r}; {suggestion(key, known)}")


def _require(condition: object, field: str, requirement: str, value: object) -> None:
    if not condition:
        raise InputError(f"{field}: must be {requirement}, not {value!r}")
