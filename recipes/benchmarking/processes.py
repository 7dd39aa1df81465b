"""The part of `benchmark.py` about several processes: how much faster two train than one, of one thread each.

They are started by torchrun, as `accelerate launch` starts them, and train a ResNet-50 at 224 in the recommended
setting. One process and two take turns, so that whatever else the machine does meets both.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from .timing import median_and_range
from .training import Step

STEPS = 3  # that count, of each start; one more comes first


def measure_processes(batch_size: int, repeats: int, cpu: bool) -> tuple[str, dict[str, Any]]:
    """Times steps on one process and on two, with the same images for each process.

    Args:
        batch_size: images of a step, on each process.
        repeats: how often to start each.
        cpu: whether to train on the CPU even where there are GPUs.

    Returns:
        The ratio of their throughputs in a line, and of every turn.
    """
    ratios = []
    for _ in tqdm(range(repeats), desc="one process and two", leave=False):
        one, two = (seconds_of(count, batch_size, cpu) for count in (1, 2))
        ratios.append(2 * one / two)
    middle, low, high = median_and_range(ratios)
    text = f"throughput of 2 processes over that of 1: {middle:.2f} (median of {repeats}, {low:.2f} to {high:.2f})"
    return text, {"ratios": ratios, "batch_size": batch_size}


def seconds_of(processes: int, batch_size: int, cpu: bool) -> float:
    """Median seconds of a step.

    Args:
        processes: how many train together.
        batch_size: images of a step, on each process.
        cpu: whether to train on the CPU even where there are GPUs.
    """
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    done = subprocess.run(
        [sys.executable, *launcher, "-m", "benchmarking.processes", str(batch_size)],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1", **({"ACCELERATE_USE_CPU": "true"} if cpu else {})},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return statistics.median(json.loads(done.stdout.splitlines()[-1]))


def _train(batch_size: int) -> None:
    """What each process does; the first one prints the seconds of each step."""
    accelerator = Accelerator()
    step = Step("resnet50", "all_images", "none", batch_size, accelerator.device)
    step.model = accelerator.prepare(step.model)
    seconds = []
    for _ in range(STEPS + 1):
        accelerator.wait_for_everyone()
        start = time.perf_counter()
        step("fp32")
        seconds.append(time.perf_counter() - start)
    if accelerator.is_main_process:
        print(json.dumps(seconds[1:]), flush=True)
    accelerator.end_training()


if __name__ == "__main__":
    torch.set_num_threads(1)
    _train(int(sys.argv[1]))
