"""Timing several things in turn, so that whatever else the machine does meets all of them."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from tqdm.auto import tqdm

Name = TypeVar("Name")


def time_in_turn(
    steps: Mapping[Name, Callable[[], object]], turns: int, *, warmup: int = 1, description: str = "timing"
) -> dict[Name, list[float]]:
    """Seconds of each step in each turn, until the device has done it.

    Args:
        steps: what to time, by name; called in this order in every turn.
        turns: how many count.
        warmup: turns that come first and do not count.
        description: of the progress bar.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in steps}
    for turn in tqdm(range(-warmup, turns), desc=description, leave=False):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            taken = time.perf_counter() - start
            if turn >= 0:
                seconds[name].append(taken)
    return seconds


def ratios(seconds: Sequence[float], reference: Sequence[float]) -> list[float]:
    """The ratio within each turn.

    Example:
        >>> ratios([3.0, 5.0], [2.0, 5.0])
        [1.5, 1.0]
    """
    return np.divide(seconds, reference).tolist()


def median_and_range(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, lowest and highest.

    Example:
        >>> median_and_range([1.5, 1.0, 4.0])
        (1.5, 1.0, 4.0)
    """
    return statistics.median(values), min(values), max(values)
