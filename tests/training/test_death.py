"""SIGKILL at any moment of fine-tuning: the resumed run ends with the files of the uninterrupted one, bit for bit.

`pytest -n 0 -rP tests/training/test_death.py` prints what the deaths interrupted.
"""

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import finetune
import pytest
from jobs import job
from recipe_processes import RecipeProcess

from advbn_hf.training.checkpoints import damage, last_complete_checkpoint

pytestmark = pytest.mark.slow

# Three steps an epoch, and checkpoints after these steps, of which the last one is kept.
SAVED = (2, 4, 6, 7)
OPTIONS = ("--max_steps", "7", "--save_steps", "2", "--disable_tqdm", "true")
ONE_KEPT = ("--save_total_limit", "1")
RESUME = ("--resume_from_checkpoint", "last")


class Reference(NamedTuple):
    """An uninterrupted run: its folder, the seconds from the first step to its end, and those of saving."""

    folder: Path
    length: float
    saving: float


def written(folder: Path) -> dict[str, bytes]:
    names = ("model.safetensors", "auxiliary/model.safetensors", "results.json")
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def reference(folders, tmp_path_factory):
    """The second of two runs: the first one fills the cache of the dataset."""
    for folder in (tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")):
        process = RecipeProcess(job(folders, folder, *OPTIONS, *ONE_KEPT))
        assert process.wait() == 0
        end = time.monotonic()
    begin, *times = [moment for _, moment in process.events]
    assert len(times) == 2 * len(SAVED)
    return Reference(folder, end - begin, (sum(times[1::2]) - sum(times[::2])) / len(SAVED))


def interrupted(process: RecipeProcess, folder: Path) -> str:
    """What a death interrupted, in words."""
    if any(damage(path) for path in folder.glob("checkpoint-*")):
        return "saving, with an unfinished checkpoint left"
    if process.events and process.events[-1][0] == "saving":
        return "saving, with complete checkpoints left"
    return (
        "the rest, after the first checkpoint" if len(process.events) > 1 else "the rest, before the first checkpoint"
    )


def check_resuming(process: RecipeProcess, arguments: list[str], folder: Path, reference: Reference) -> None:
    """What was reported as saved is there, and a run that resumes from it ends as the uninterrupted one."""
    last = last_complete_checkpoint(folder)
    saved = [what for what, _ in process.events].count("saved")
    assert saved == 0 or int(Path(last).name.removeprefix("checkpoint-")) >= SAVED[saved - 1]
    assert RecipeProcess([*arguments, *RESUME]).wait() == 0
    assert written(folder) == written(reference.folder)
    assert {path.name for path in folder.rglob(".*")} <= {".run.lock"}


def test_death_at_random_moments(folders, tmp_path, reference):
    moments, met = random.Random(0), Counter()
    while met.total() < 20:
        folder = tmp_path / str(moments.random())
        arguments = job(folders, folder, *OPTIONS, *ONE_KEPT)
        process = RecipeProcess(arguments)
        process.wait_for(1)
        time.sleep(moments.uniform(0, reference.length))
        if process.kill():
            met[interrupted(process, folder)] += 1
            check_resuming(process, arguments, folder, reference)
    print(f"deaths at random moments of {reference.length:.1f} s: {dict(met)}")
    assert len(met) > 1


def test_death_while_a_checkpoint_is_saved(folders, tmp_path, reference):
    """At ten places of the time that saving takes, in the first checkpoint and in others.

    Where the machine is busy, few of these may be met: then at up to twenty more.
    """
    met = Counter()
    for place in range(30):
        if place >= 10 and met["saving, with an unfinished checkpoint left"] >= 3:
            break
        folder = tmp_path / str(place)
        arguments = job(folders, folder, *OPTIONS, *ONE_KEPT)
        process = RecipeProcess(arguments)
        process.wait_for(2 + 2 * (place % len(SAVED)))
        time.sleep(reference.saving * (place % 10 + 0.5) / 10)
        assert process.kill()
        met[interrupted(process, folder)] += 1
        check_resuming(process, arguments, folder, reference)
    print(f"deaths aimed at {1000 * reference.saving:.0f} ms of saving: {dict(met)}")
    assert met["saving, with an unfinished checkpoint left"] >= 3


def test_a_disk_that_is_full_leaves_the_last_checkpoint(folders, tmp_path, reference):
    """On a file system in memory that has room for two checkpoints and a half."""
    files = [path for path in (reference.folder / "checkpoint-7").rglob("*") if path.is_file()]
    room = 5 * sum(path.stat().st_size // 4096 + 1 for path in files) // 2 * 4096
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.mkdir()
    inside = (
        f'mount -t tmpfs -o size={room} tmpfs {disk} || exit 77; "$@"; code=$?; cp -r {disk}/run {copy}; exit $code'
    )
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inside, "sh"]
    arguments = job(folders, disk / "run", *OPTIONS)
    done = subprocess.run([*unshare, sys.executable, finetune.__file__, *arguments], capture_output=True, text=True)
    if "unshare" in done.stderr or done.returncode == 77:
        pytest.skip("this system lets nobody but root mount a file system of its own")
    assert done.returncode == 2
    error = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(error) == 1 and "checkpoint-6: " in error[0] and "make room" in error[0], done.stderr
    assert "Traceback" not in done.stderr
    assert last_complete_checkpoint(copy) == str(copy / "checkpoint-4")
    assert sorted(path.name for path in copy.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    assert RecipeProcess([*job(folders, copy, *OPTIONS), *RESUME]).wait() == 0
    assert written(copy) == written(reference.folder)
