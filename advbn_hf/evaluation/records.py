"""Measurements as flat records, and the file that holds them."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields

from ..backbones.norms import BRANCHES
from ..errors import InputError
from ..utils.documents import read_json
from ..utils.files import write_atomically
from ..utils.predicates import is_integer, is_line, is_number

P_VALUE = "gain_p_value"  # the metric of a paired test's records


@dataclass(frozen=True)
class Record:
    """One measured number. Fields that do not apply are None.

    Args:
        model: "advbn", "baseline" (plain fine-tuning with the same steps), "base" (before fine-tuning) or a name.
        set: name of the set of images, for example "clean" or "filters".
        shift: name of the shift within the set, where the record is about that one only.
        severity: severity of the shift, 1 or more.
        branch: "clean" or "auxiliary"; None for a model without branches.
        metric: name of the metric, for example "accuracy".
        value: the number; finite. An accuracy is a fraction in [0, 1].
        n: number of images that it was measured on.

    Raises:
        InputError: a field has the wrong type or is out of range.
    """

    model: str
    set: str
    shift: str | None
    severity: int | None
    branch: str | None
    metric: str
    value: float
    n: int | None

    def __post_init__(self) -> None:
        for name in ("model", "set", "metric"):
            _require(is_line(getattr(self, name)), name, getattr(self, name), "a line of text")
        _require(self.shift is None or is_line(self.shift), "shift", self.shift, "a line of text, or null")
        _require(self.branch in (None, *BRANCHES), "branch", self.branch, '"clean", "auxiliary" or null')
        _require(is_number(self.value), "value", self.value, "a finite number")
        if self.metric == "accuracy":
            _require(0 <= self.value <= 1, "value", self.value, "a fraction between 0 and 1 for an accuracy")
        for name in ("severity", "n"):
            count = getattr(self, name)
            _require(count is None or is_integer(count, least=1), name, count, "a whole number of 1 or more, or null")


def write_results(path: str | os.PathLike, records: Iterable[Record]) -> None:
    """Writes records as a JSON list, one record a line, in the order given. The file is replaced atomically.

    Args:
        path: the file, usually `results.json` in the folder of a run. Its folder must exist.
        records: the records.
    """
    lines = [f"  {json.dumps(asdict(record), allow_nan=False, ensure_ascii=False)}" for record in records]
    text = "[\n" + ",\n".join(lines) + "\n]\n" if lines else "[]\n"
    write_atomically(path, text)


def read_results(path: str | os.PathLike) -> list[Record]:
    """Reads what `write_results` wrote, or anyone else in the same format, and checks it.

    Args:
        path: the file.

    Returns:
        The records in the order of the file.

    Raises:
        InputError: the file is missing or not a JSON list of records; names the file, the record (counted from 1) and
            the field.
    """
    rows = read_json(path)
    if not isinstance(rows, list):
        raise InputError(f"{path}: must hold a list of records, not {type(rows).__name__}")
    return [_read_record(row, f"{path}: record {number}") for number, row in enumerate(rows, start=1)]


def _read_record(row: object, where: str) -> Record:
    names = [field.name for field in fields(Record)]
    if not isinstance(row, dict):
        raise InputError(f"{where}: must be an object with the fields {', '.join(names)}")
    for name in names:
        if name not in row:
            raise InputError(f"{where}: field {name!r} is missing (write null if it does not apply)")
    for name in row:
        if name not in names:
            raise InputError(f"{where}: unknown field {name!r}; the fields are {', '.join(names)}")
    try:
        return Record(**row)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _require(condition: bool, field: str, value: object, requirement: str) -> None:
    if not condition:
        raise InputError(f"field {field!r} must be {requirement}, not {value!r}")
