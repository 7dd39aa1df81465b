"""Two runs and one folder; a reader and a writer and one file."""

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import finetune
import pytest
from test_finetune import folders, job  # noqa: F401

from advbn_hf import InputError
from advbn_hf.claims import claim
from advbn_hf.cli import run
from advbn_hf.files import write_whole

FORK = multiprocessing.get_context("fork")


def hold(folder: Path, held) -> None:
    claim(folder)
    held.set()
    time.sleep(60)


@contextmanager
def another_run(folder: Path) -> Iterator[None]:
    """A process that has claimed a folder, and is killed at the end of the block."""
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
            with pytest.raises(InputError, match=r"output_dir: another run is writing to .*run; wait for it"):
                claim(same)
    claim(folder)
    claim(folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("options", [(), ("--resume_from_checkpoint", "last")])
def test_recipe_does_not_write_beside_another_run(monkeypatch, folders, tmp_path, capsys, options):  # noqa: F811
    monkeypatch.setattr(sys, "argv", ["finetune.py", *job(folders, tmp_path / "run", *options)])
    with another_run(tmp_path / "run"), pytest.raises(SystemExit) as left:
        run(finetune.main)
    assert left.value.code == 2
    assert "error: output_dir: another run is writing to" in capsys.readouterr().err
    assert list((tmp_path / "run").iterdir()) == []


def test_a_reader_never_sees_a_part(tmp_path):
    path, stop, seen = tmp_path / "results.json", threading.Event(), set()
    contents = {text: json.dumps([text] * 50_000) for text in ("old", "new")}
    write_whole(path, contents["old"])

    def read():
        while not stop.is_set():
            seen.add(path.read_text() in contents.values())

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(100):
        write_whole(path, contents["new" if turn % 2 else "old"])
    stop.set()
    for reader in readers:
        reader.join()
    assert seen == {True}
    assert list(tmp_path.iterdir()) == [path]
