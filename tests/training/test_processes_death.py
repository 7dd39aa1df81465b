"""One of two processes is killed: the other ends too, by itself or by its launcher, within the minute."""

import subprocess
import sys
import time
from pathlib import Path

import die_on_processes
import psutil
import pytest
from processes import address, environment, rank_of_two

from advbn_hf.training.checkpoints import last_complete_checkpoint

pytestmark = pytest.mark.slow

SCRIPT = Path(die_on_processes.__file__)


def by_torchrun(arguments: list[str]) -> list[subprocess.Popen]:
    return [started(["torchrun", "--standalone", "--nproc_per_node", "2", *arguments])]


def by_hand(arguments: list[str]) -> list[subprocess.Popen]:
    """As a cluster's own launcher may do, which lets the processes that are left go on."""
    meeting = address()
    return [started([sys.executable, *arguments], **meeting, **rank_of_two(rank)) for rank in range(2)]


def started(command: list[str], **variables: str) -> subprocess.Popen:
    return subprocess.Popen(command, env=environment(SCRIPT) | variables, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("launch", "rank", "event", "message"),
    [
        (by_torchrun, 1, "on_step_begin", "Signal 9 (SIGKILL) received"),
        (by_hand, 0, "on_step_end", " by peer"),  # the connection was closed, or reset
    ],
    ids=["torchrun, within a step", "by hand, before saving"],
)
def test_the_other_process_ends_within_the_minute(tmp_path, launch, rank, event, message):
    running = launch([str(SCRIPT), str(tmp_path), str(rank), event])
    told = "".join(process.communicate(timeout=200)[1] for process in running)
    assert time.time() - float((tmp_path / "died").read_text()) < 60
    assert all(process.returncode != 0 for process in running)
    assert message in told
    assert not any(psutil.pid_exists(int((tmp_path / f"rank{one}.pid").read_text())) for one in range(2))
    assert last_complete_checkpoint(tmp_path) == (str(tmp_path / "checkpoint-3") if rank else None)
