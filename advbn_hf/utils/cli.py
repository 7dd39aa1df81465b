"""How a recipe runs: one-line errors and exit codes, signals, the cores that are there."""

import errno
import inspect
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import torch
import torch.distributed as dist
from accelerate import PartialState
from tqdm.auto import tqdm

from ..errors import InputError, first_line
from .advice import on_command_line

TRACEBACK = "ADVBN_TRACEBACK"  # set to 1: the traceback behind a one-line error is shown too
REPORTED = "ADVBN_REPORTED"  # a file that the first process of a launch creates before it reports how it ended


def announce(what: str) -> None:
    """Prints the heading of what comes next, on one process."""
    if PartialState().is_main_process:
        print(f"\n== {what}", flush=True)


def run(main: Callable[[], None], again: str = "run the same command again") -> None:
    """Runs a recipe: input that a person can fix ends it with one line and exit code 2.

    A Hub that cannot be reached, a full disk and signals end it with one line and exit code 1. Of several processes
    that `advbn` launched, only the first to fail reports. ADVBN_TRACEBACK=1 shows the tracebacks, of each process.

    Args:
        main: the recipe.
        again: how to resume one that was stopped.
    """
    # Python puts a script's folder first on the path, where recipes/evaluate.py hides the library of that name: last.
    if main.__module__ == "__main__":
        folder = Path(inspect.getfile(main)).resolve().parent
        sys.path[:] = [*(entry for entry in sys.path if Path(entry).resolve() != folder), str(folder)]
    stopped = f"stopped by {{}}; to resume, {again}"
    try:
        _check_processes()
        with on_command_line(), interrupted_by_sigterm(stopped.format("SIGTERM")):
            main()
    except (InputError, ConnectionError) as error:
        _end(f"error: {_message(error)}", 2 if isinstance(error, InputError) else 1)
    except KeyboardInterrupt as stop:
        _end(str(stop) or stopped.format("Ctrl-C"), 1)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            _end(f"error: {error}; make room, and run again", 1)
        if not _reports():  # most likely what another one's end led to
            sys.exit(1)
        raise
    finally:
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()  # else a process can abort as it exits


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


def _end(line: str, code: int) -> NoReturn:
    """Ends this process after one line, on a line of its own whatever progress bars are open."""
    if _reports():
        if os.environ.get(TRACEBACK) == "1":
            tqdm.write(traceback.format_exc(), file=sys.stderr)
        tqdm.write(line, file=sys.stderr)
    sys.exit(code)


def _reports() -> bool:
    """Whether this process is to say how it ended: the first of its launch, or each if tracebacks were asked for."""
    if REPORTED not in os.environ or os.environ.get(TRACEBACK) == "1":
        return True
    try:
        Path(os.environ[REPORTED]).touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:  # better twice than never
        pass
    return True


def _message(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and "in DataLoader worker" in lines[0]:  # torch puts a worker's traceback before its message
        return lines[-1].partition(": ")[2]
    return first_line(error)


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
