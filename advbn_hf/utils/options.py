"""Options of a recipe, from a YAML file and the command line."""

import argparse
import dataclasses
import difflib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn, get_args

import torch
from transformers import HfArgumentParser

from ..errors import InputError, check_choice, first_line
from .documents import read_yaml
from .files import shipped

_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")  # a number that YAML takes for text


class _Parser(HfArgumentParser):
    """Raises `InputError` where argparse would print its usage and exit, and reads `int | str` as text."""

    def error(self, message: str) -> NoReturn:
        raise InputError(" ".join(message.split()))

    @staticmethod
    def _parse_dataclass_field(parser: Any, field: dataclasses.Field) -> None:
        if (
            isinstance(field.type, UnionType)
            and str in get_args(field.type)
            and type(None) not in get_args(field.type)
        ):
            field.type = str
        HfArgumentParser._parse_dataclass_field(parser, field)


def parse(
    dataclass_types: Sequence[type], arguments: Sequence[str] | None = None, default_file: Path | None = None
) -> tuple[Any, ...]:
    """Reads `[CONFIG.yaml] [--option value ...]`; options override the file.

    A configuration that comes with the recipes may be given by its name, such as `quickstart`.

    Args:
        dataclass_types: dataclasses whose fields are the options.
        arguments: the command line without the program's name; `sys.argv[1:]` by default.
        default_file: the YAML file to run where there are no arguments at all.

    Returns:
        An instance of each dataclass.

    Raises:
        InputError: if a key is unknown, a value is out of its range, or the file cannot be read.

    Example:
        >>> from advbn_hf import AdvBNConfig
        >>> (config,) = parse((AdvBNConfig,), ["--epsilon", "0.5"])
        >>> config.epsilon
        0.5
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments and default_file is not None:
        arguments = [str(default_file)]
    parser = _Parser(dataclass_types, allow_abbrev=False)
    from_file: dict[str, Any] = {}
    if arguments and not arguments[0].startswith("-"):
        from_file = _read_yaml(_config_file(arguments.pop(0)), parser)
        _set_defaults(parser, from_file)
    _check_options(arguments, _names(parser))
    try:
        *parsed, remaining = parser.parse_args_into_dataclasses(
            arguments, return_remaining_strings=True, look_for_args_file=False
        )
    except InputError:
        raise
    except (ValueError, TypeError, ImportError) as error:
        given = [*from_file.items(), *pairwise(arguments)]
        raise InputError(_named(first_line(error), given)) from error
    if remaining:
        raise InputError(f"unexpected value {remaining[0]!r}; a YAML file comes first, then --option value")
    return tuple(parsed)


@contextmanager
def refused_options(settings: Any) -> Iterator[None]:
    """Has what libraries raise of their options within the block end in one line that names the option if it can.

    Args:
        settings: the dataclass that holds the options.

    Raises:
        InputError: the libraries' message.
    """
    try:
        yield
    except (InputError, ConnectionError, torch.OutOfMemoryError):
        raise
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        changed = [
            (field.name, value)
            for field in dataclasses.fields(settings)
            if (value := getattr(settings, field.name, None)) not in (None, field.default)
        ]
        raise InputError(_named(first_line(error), changed)) from error


def option_names(dataclass_types: Sequence[type]) -> set[str]:
    """The names of all options of a recipe, `help` and the `no_x` of switches included.

    Args:
        dataclass_types: dataclasses whose fields are the options.
    """
    return set(_names(_Parser(dataclass_types)))


def _names(parser: HfArgumentParser) -> list[str]:
    """Names of all options but of those that would take a token."""
    names = [text[2:] for action in parser._actions for text in action.option_strings if "-" not in text[2:]]
    return [name for name in names if name and not _is_token(name)]


def _config_file(name: str) -> Path:
    if name.isidentifier() and not Path(name).exists():
        try:
            return shipped(f"recipes/configs/{name}.yaml")
        except FileNotFoundError:
            pass
    return Path(name)


def _read_yaml(path: Path, parser: HfArgumentParser) -> dict[str, Any]:
    """The options in a YAML file, each value as its option has it."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold a mapping of options to values")
    actions = {action.dest: action for action in reversed(parser._actions)}  # an option's own action, not its no_x
    names = [name for name in actions if name != "help" and not _is_token(name)]
    values = {}
    for key, value in content.items():
        _check_option(str(key), names, f"{path}: ", "key")
        if value is not None:
            values[str(key)] = _value(actions[str(key)], value, f"{path}: {key}")
    return values


def _value(action: argparse.Action, value: Any, where: str) -> Any:
    """A value of a YAML file as an option's value; a single one does for a list."""
    if action.nargs == "+":
        return [_item(action, item, where) for item in (value if isinstance(value, list) else [value])]
    if isinstance(value, list):
        raise InputError(f"{where}: takes one value, got a list")
    return _item(action, value, where)


def _item(action: argparse.Action, value: Any, where: str) -> Any:
    """One value, by the rule that reads the option's text: YAML takes 1e-6 for text; mappings are given as JSON."""
    if isinstance(value, dict):
        value = _with_numbers(value)
    text = json.dumps(value, default=str, skipkeys=True) if isinstance(value, dict | bool) else str(value)
    try:
        item = action.type(text)
    except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
        kind = getattr(action.type, "__name__", str(action.type)).removeprefix("string_to_")
        raise InputError(f"{where}: invalid {kind} value: {value!r:.80}") from error
    if action.choices is not None:
        check_choice(where, item, action.choices)
    return item


def _with_numbers(value: Any) -> Any:
    """A value with numbers such as 1e-6 in place of their text, for which YAML takes them."""
    if isinstance(value, dict):
        return {key: _with_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_numbers(item) for item in value]
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


def _set_defaults(parser: HfArgumentParser, values: dict[str, Any]) -> None:
    parser.set_defaults(**values)
    for action in parser._actions:
        action.required = action.required and action.dest not in values


def _check_options(arguments: list[str], names: list[str]) -> None:
    for argument in arguments:
        if argument.startswith("--"):
            name = argument[2:].split("=")[0].replace("-", "_")
            _check_option(name, names, "", "option")


def _check_option(name: str, names: list[str], where: str, kind: str) -> None:
    name = name if name.isprintable() else repr(name)
    if _is_token(name):
        raise InputError(f"{where}{name}: tokens come from the environment (HF_TOKEN) or `hf auth login` alone")
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        raise InputError(
            f"{where}unknown {kind} {name}; " + (f"did you mean {nearest[0]}?" if nearest else "see --help")
        )


def _is_token(name: str) -> bool:
    return name.split("_")[-1] == "token"


def _named(message: str, given: Iterable[tuple[str, Any]]) -> str:
    """Puts the option's name before a message that cites its value alone, as some of Transformers' do."""
    for option, value in given:
        name = option.removeprefix("--")
        if str(value) in message.split() and name not in message:
            return f"{name}: {message}"
    return message
