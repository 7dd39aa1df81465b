"""Starts two processes as a launcher does, on one machine without GPUs."""

import os
import subprocess
from pathlib import Path


def environment(script: Path) -> dict[str, str]:
    """For a script of the tests in one process of several on CPUs."""
    path = os.pathsep.join([str(script.parents[2]), str(script.parent)])
    return {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def run_on_two(script: Path, *arguments: str | Path) -> None:
    """Runs a script of the tests on two processes; raises if one of them fails."""
    subprocess.run(
        ["torchrun", "--standalone", "--nproc_per_node", "2", script, *arguments],
        env=environment(script),
        check=True,
        timeout=300,
    )
