"""What all recipes share: options from a YAML file and the command line, one-line errors, the cores that are there."""

import dataclasses
import difflib
import errno
import inspect
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import FrameType, UnionType
from typing import Any, NoReturn, get_args

import torch
from tqdm.auto import tqdm
from transformers import HfArgumentParser

from ..errors import InputError
from .documents import read_yaml


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

    Args:
        dataclass_types: dataclasses whose fields are the options.
        arguments: the command line without the program's name; `sys.argv[1:]` by default.
        default_file: the YAML file to run where there are no arguments at all.

    Returns:
        An instance of each dataclass.

    Raises:
        InputError: if a key is unknown, a value is out of its range, or the file cannot be read.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments and default_file is not None:
        arguments = [str(default_file)]
    parser = _Parser(dataclass_types, allow_abbrev=False)
    from_file: list[str] = []
    if arguments and not arguments[0].startswith("-"):
        from_file = _read_yaml(Path(arguments.pop(0)), _options(parser))
    _check_options(arguments, _options(parser))
    try:
        *parsed, remaining = parser.parse_args_into_dataclasses(
            from_file + arguments, return_remaining_strings=True, look_for_args_file=False
        )
    except InputError:
        raise
    except (ValueError, TypeError, ImportError) as error:
        raise InputError(_named(_one_line(error), from_file + arguments)) from error
    if remaining:
        raise InputError(f"unexpected value {remaining[0]!r}; options are given as --option value")
    return tuple(parsed)


def run(main: Callable[[], None], again: str = "run the same command again") -> None:
    """Runs a recipe: input that a person can fix ends it with one line and exit code 2.

    An absent Hub, a full disk and being stopped end it with one line and exit code 1.

    Args:
        main: the recipe.
        again: how to go on with one that was stopped.
    """
    # Python puts a script's folder first on the path, where recipes/evaluate.py hides the library of that name: last.
    if main.__module__ == "__main__":
        folder = Path(inspect.getfile(main)).resolve().parent
        sys.path[:] = [*(entry for entry in sys.path if Path(entry).resolve() != folder), str(folder)]
    stopped = f"stopped by {{}}; to go on, {again}"
    try:
        _check_processes()
        with interrupted_by_sigterm(stopped.format("SIGTERM")):
            main()
    except (InputError, ConnectionError) as error:
        tqdm.write(f"error: {_one_line(error)}", file=sys.stderr)  # on a line of its own, whatever bars are open
        sys.exit(2 if isinstance(error, InputError) else 1)
    except KeyboardInterrupt as stop:
        tqdm.write(str(stop) or stopped.format("Ctrl-C"), file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        tqdm.write(f"error: {error}; make room, and run again", file=sys.stderr)
        sys.exit(1)


def use_all_cores() -> None:
    """Gives torch the cores that are there, where `accelerate launch` left it one.

    It sets OMP_NUM_THREADS=1 on a CPU. Any other number of threads is somebody's choice and stays.
    """
    if os.environ.get("OMP_NUM_THREADS") == "1" and "ACCELERATE_MIXED_PRECISION" in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)), 1))


def _check_processes() -> None:
    """Stops where `accelerate launch` was asked for several processes and has started one, as it does on a CPU.

    For several it always names the address to meet at, but the size of the world only where it starts them.
    """
    if {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= set(os.environ) and "WORLD_SIZE" not in os.environ:
        raise InputError(
            "num_processes: accelerate launch was asked for several processes but has started one; "
            "add --multi_gpu, on a CPU with ACCELERATE_USE_CPU=true instead of --cpu, or use torchrun"
        )


def _options(parser: HfArgumentParser) -> list[str]:
    """Names of all options, `no_x` of switches included, but of those that would take a token."""
    names = [text[2:] for action in parser._actions for text in action.option_strings if "-" not in text[2:]]
    return [name for name in names if name and not _is_token(name)]


def _read_yaml(path: Path, options: list[str]) -> list[str]:
    """A YAML file of options as command-line arguments, so that both are read by the same rules."""
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: must hold a mapping of options to values")
    arguments: list[str] = []
    for key, value in values.items():
        _check_option(str(key), [name for name in options if name != "help"], f"{path}: ", "key")
        if value is None:
            continue
        texts = [_to_text(item) for item in value] if isinstance(value, list) else [_to_text(value)]
        if any(text.startswith("--") or text == "-h" for text in texts):
            raise InputError(f"{path}: {key}: a value cannot be an option, {', '.join(map(repr, texts))}")
        arguments += [f"--{key}", *texts]
    return arguments


def _to_text(value: Any) -> str:
    """A value of a YAML file as it would stand on the command line."""
    return json.dumps(value, default=str, skipkeys=True) if isinstance(value, (dict, bool)) else str(value)


def _check_options(arguments: list[str], options: list[str]) -> None:
    for argument in arguments:
        if argument.startswith("--"):
            name = argument[2:].split("=")[0].replace("-", "_")
            _check_option(name, options, "", "option")


def _check_option(name: str, options: list[str], where: str, kind: str) -> None:
    name = name if name.isprintable() else repr(name)
    if _is_token(name):
        raise InputError(f"{where}{name}: tokens come from the environment (HF_TOKEN) or `hf auth login` alone")
    if name not in options:
        nearest = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
        raise InputError(
            f"{where}unknown {kind} {name}; " + (f"did you mean {nearest[0]}?" if nearest else "see --help")
        )


def _is_token(name: str) -> bool:
    return name.split("_")[-1] == "token"


def _named(message: str, arguments: list[str]) -> str:
    """Puts the option's name before a message that cites its value alone, as some of Transformers' do."""
    for option, value in pairwise(arguments):
        name = option.removeprefix("--")
        if option != name and value in message.split() and name not in message:
            return f"{name}: {message}"
    return message


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and "in DataLoader worker" in lines[0]:  # torch puts a worker's traceback before its message
        return lines[-1].partition(": ")[2]
    return lines[0] if lines else type(error).__name__


@contextmanager
def interrupted_by_sigterm(message: str) -> Iterator[None]:
    """Has SIGTERM raise `KeyboardInterrupt` within the block, as Ctrl-C does, so that what is half-written is removed.

    A process that was forked within the block ends by it as ever, and what is ignored stays ignored.

    Args:
        message: of the exception.
    """
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    process = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        raise KeyboardInterrupt(message)

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
