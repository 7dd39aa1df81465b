"""Starts two processes as a launcher does, on one machine without GPUs."""

import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from accelerate.state import AcceleratorState
from tqdm import tqdm

FORK = multiprocessing.get_context("fork")


def environment(script: Path) -> dict[str, str]:
    """For a script of the tests in one process of several on CPUs."""
    path = os.pathsep.join([str(script.parents[2]), str(script.parent)])
    return {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def address() -> dict[str, str]:
    """Where two processes meet: a port that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}


def rank_of_two(rank: int) -> dict[str, str]:
    """What a launcher tells a process."""
    return {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}


def become_a_process_of_its_own() -> None:
    """To be called in a fork: a thread of its own computes, and locks of progress bars are not shared."""
    torch.set_num_threads(1)
    for bars in _kinds(tqdm):  # their own locks are shared with all forks, and a killed one may have held them
        bars.set_lock(threading.RLock())


def _kinds(bars: type[tqdm]) -> Iterator[type[tqdm]]:
    """A class of progress bars and those made of it, by `datasets`, `huggingface_hub` and others."""
    yield bars
    for kind in bars.__subclasses__():
        yield from _kinds(kind)


def run_on_two(main: Callable[..., None], *arguments: str | Path) -> None:
    """Runs a function on two processes, forks of this one, which has imported what they need.

    Raises:
        RuntimeError: if one of them fails; the other is killed.
    """
    meeting = address()
    processes = [FORK.Process(target=_run, args=(meeting | rank_of_two(rank), main, arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    end = time.monotonic() + 300
    while time.monotonic() < end and {None} <= {process.exitcode for process in processes} <= {None, 0}:
        processes[0].join(0.1)
        processes[1].join(0.1)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
    if codes != [0, 0]:
        raise RuntimeError(f"exit codes of the two processes: {codes}")


def _run(variables: dict[str, str], main: Callable[..., None], arguments: tuple[str | Path, ...]) -> None:
    os.environ.update(variables, ACCELERATE_USE_CPU="true")
    become_a_process_of_its_own()
    AcceleratorState._reset_state(reset_partial_state=True)  # what the first process has found out is not so here
    main(*arguments)
