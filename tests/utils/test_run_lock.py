"""Two runs and one folder; a reader and a writer and one file."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import finetune
import pytest
import torch
from jobs import job
from recipe_processes import RecipeProcess

from advbn_hf import AdvBNForImageClassification, InputError
from advbn_hf.training.checkpoints import last_complete_checkpoint
from advbn_hf.utils.cli import run
from advbn_hf.utils.files import filling, replacing, write_atomically
from advbn_hf.utils.run_lock import holds_files, lock_folder

FORK = multiprocessing.get_context("fork")


def hold(folder: Path, held) -> None:
    lock_folder(folder)
    held.set()
    time.sleep(60)


@contextmanager
def another_run(folder: Path) -> Iterator[None]:
    """A process that has locked a folder, and is killed at the end of the block."""
    held = FORK.Event()
    process = FORK.Process(target=hold, args=(folder, held))
    process.start()
    try:
        assert held.wait(30)
        yield
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join()


def test_a_folder_is_one_runs_until_it_ends_however_it_ends(tmp_path):
    folder = tmp_path / "new" / "run"
    with another_run(folder):
        for same in (folder, folder / ".." / "run"):
            with pytest.raises(InputError, match=r"output_dir: .*run"):
                lock_folder(same)
    assert not holds_files(folder)
    lock_folder(folder)
    lock_folder(folder)
    assert not holds_files(folder)


@pytest.mark.parametrize("options", [(), ("--resume_from_checkpoint", "last")])
def test_recipe_does_not_write_beside_another_run(monkeypatch, folders, tmp_path, capsys, options):
    monkeypatch.setattr(sys, "argv", ["finetune.py", *job(folders, tmp_path / "run", *options)])
    with another_run(tmp_path / "run"), pytest.raises(SystemExit) as left:
        run(finetune.main)
    assert left.value.code == 2
    assert "error: output_dir: " in capsys.readouterr().err
    assert not holds_files(tmp_path / "run")


LOCKS = "import os, sys; from advbn_hf.utils.run_lock import lock_folder; lock_folder(sys.argv[1]); "


@pytest.mark.slow
def test_a_run_that_ends_leaves_no_lock_file(tmp_path):
    subprocess.run([sys.executable, "-c", LOCKS + "sys.exit(3)", tmp_path], check=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_fork_of_a_run_neither_ends_its_lock_nor_keeps_it(tmp_path):
    forks = "os.fork() or sys.exit(); os.wait(); os.fork(); print(flush=True); os.read(0, 1)"
    run = subprocess.Popen([sys.executable, "-c", LOCKS + forks, tmp_path], stdin=subprocess.PIPE, stdout=-1)
    for _ in range(2):  # one fork has ended; another, which gives the lock up as it begins, and the run both wait
        run.stdout.readline()
    with pytest.raises(InputError, match="output_dir"):
        lock_folder(tmp_path)
    run.kill()
    run.wait()
    lock_folder(tmp_path)
    run.communicate()  # ends the fork


def test_of_two_runs_at_once_one_runs(folders, tmp_path, capfd):
    arguments = job(folders, tmp_path / "run", "--save_steps", "1", "--resume_from_checkpoint", "last")
    processes = [RecipeProcess(arguments), RecipeProcess(arguments)]
    assert sorted(process.wait() for process in processes) == [0, 2]
    assert capfd.readouterr().err.count("error: output_dir: ") == 1
    AdvBNForImageClassification.from_pretrained(tmp_path / "run")
    assert last_complete_checkpoint(tmp_path / "run") == str(tmp_path / "run" / "checkpoint-2")


@pytest.mark.slow
def test_a_reader_of_checkpoints_sees_whole_ones_alone(folders, tmp_path):
    folder = tmp_path / "run"
    recipe = RecipeProcess(job(folders, folder, "--max_steps", "5", "--save_steps", "1", "--disable_tqdm", "true"))
    seen = {}
    while recipe.process.is_alive():
        last = last_complete_checkpoint(folder)
        if last is not None and last not in seen:
            model = AdvBNForImageClassification.from_pretrained(last)
            seen[last] = {name: value.clone() for name, value in model.state_dict().items()}
    assert recipe.wait() == 0
    assert len(seen) > 1
    for checkpoint, weights in seen.items():
        found = AdvBNForImageClassification.from_pretrained(checkpoint).state_dict()
        assert all(torch.equal(found[name], value) for name, value in weights.items())


def test_what_a_dead_run_was_still_writing_is_removed(tmp_path):
    def die_writing():
        with filling(tmp_path) as whole, replacing(tmp_path / "results.png") as image:
            (whole / "model.safetensors").write_bytes(b"0")
            image.write_bytes(b"0")
            os.kill(os.getpid(), signal.SIGKILL)

    process = FORK.Process(target=die_writing)
    process.start()
    process.join()
    assert len(list(tmp_path.iterdir())) == 2
    lock_folder(tmp_path)
    assert not holds_files(tmp_path)


def test_a_reader_never_sees_a_part(tmp_path):
    path, stop, seen = tmp_path / "results.json", threading.Event(), set()
    contents = {text: json.dumps([text] * 50_000) for text in ("old", "new")}
    write_atomically(path, contents["old"])

    def read():
        while not stop.is_set():
            seen.add(path.read_text() in contents.values())

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(100):
        write_atomically(path, contents["new" if turn % 2 else "old"])
    stop.set()
    for reader in readers:
        reader.join()
    assert seen == {True}
    assert list(tmp_path.iterdir()) == [path]
