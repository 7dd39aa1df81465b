"""JSON and YAML that somebody else wrote: plain values, or one line that says what is wrong with the file."""

import json
import os
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError

_MOST_VALUES = 1_000_000


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file.

    Args:
        path: the file.

    Returns:
        Dictionaries, lists, texts, numbers, bools and None.

    Raises:
        InputError: the file cannot be read, or is not JSON in UTF-8.
    """
    text = _read_text(path, "JSON")
    try:
        return json.loads(text)
    except RecursionError as error:
        raise InputError(f"{path}: not valid JSON (nested too deeply)") from error
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error


def read_yaml(path: str | os.PathLike) -> Any:
    """Reads a YAML file. Tags that make objects are refused, and aliases that make billions of values.

    Args:
        path: the file.

    Returns:
        Dictionaries, lists, texts, numbers, bools, dates and None.

    Raises:
        InputError: the file cannot be read, or is not such YAML in UTF-8.
    """
    text = _read_text(path, "YAML")
    try:
        content = yaml.safe_load(text)
        if _size(content, {}) > _MOST_VALUES:
            raise InputError(f"{path}: holds more than {_MOST_VALUES:,} values; leave out some aliases (*name)")
        repr(content)  # fails on whole numbers of more digits than Python writes, as a message would that cites one
        return content
    except InputError:
        raise
    except RecursionError as error:
        raise InputError(f"{path}: not valid YAML: nested too deeply") from error
    # PyYAML lets through what Python says of a number, a date or a bool that is none.
    except (yaml.YAMLError, ValueError, KeyError, AttributeError, IndexError, OverflowError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error


def _size(value: Any, known: dict[int, int]) -> int:
    """Number of values in a document, each as often as aliases repeat it.

    Args:
        value: the document.
        known: sizes by `id`, so that nothing is counted twice.
    """
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = 1 + sum(
            _size(inner, known) for inner in (value.values() if isinstance(value, dict) else value)
        )
    return known[id(value)]


def _read_text(path: str | os.PathLike, kind: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not valid {kind} ({error})") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
