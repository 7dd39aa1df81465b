"""How a recipe ends, its signals, and the processes and cores that it runs with."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from advbn_hf import InputError
from advbn_hf.utils import cli
from advbn_hf.utils.cli import run, use_all_cores


def test_exit_code_and_line(capsys):
    def fail():
        raise InputError(
            "Caught InputError in DataLoader worker process 0.\nTraceback\n  x\nadvbn.InputError: row 1: bad"
        )

    with pytest.raises(SystemExit) as left:
        run(fail)
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: row 1: bad\n"


@pytest.mark.parametrize(
    ("error", "code"), [(InputError("row 1: bad"), 2), (ConnectionError("no Hub"), 1), (KeyboardInterrupt("stop"), 1)]
)
def test_the_traceback_behind_a_line_is_shown_where_asked_for(monkeypatch, capsys, error, code):
    def fail_deep_inside():
        raise error

    monkeypatch.setenv("ADVBN_TRACEBACK", "1")
    with pytest.raises(SystemExit) as left:
        run(fail_deep_inside)
    assert left.value.code == code
    *trace, line = capsys.readouterr().err.splitlines()
    assert str(error) in line
    assert any("in fail_deep_inside" in text for text in trace)


def test_of_several_processes_the_first_to_fail_reports(monkeypatch, tmp_path, capsys):
    def fail(error):
        def main():
            raise error

        with pytest.raises(SystemExit) as left:
            run(main)
        return left.value.code

    monkeypatch.setenv("ADVBN_REPORTED", str(tmp_path / "reported"))
    errors = [InputError("row 1: bad"), InputError("row 2: bad"), KeyboardInterrupt("stop"), RuntimeError("closed")]
    assert [fail(error) for error in errors] == [2, 2, 1, 1]
    assert capsys.readouterr().err == "error: row 1: bad\n"
    monkeypatch.setenv("ADVBN_REPORTED", str(tmp_path / "no" / "folder"))
    with pytest.raises(RuntimeError):
        run(lambda: (_ for _ in ()).throw(RuntimeError("closed")))


def test_cores_are_used_where_accelerate_left_one(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("ACCELERATE_MIXED_PRECISION", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        use_all_cores()
        assert torch.get_num_threads() == 1  # somebody's choice
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
        use_all_cores()
        assert torch.get_num_threads() == len(os.sched_getaffinity(0))
    finally:
        torch.set_num_threads(before)


PRINTS_WORLD = """
from accelerate import Accelerator
from advbn_hf.utils.cli import run

def main():
    print("world", Accelerator().num_processes)
run(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--cpu", "--num_processes", "2"], "error: num_processes: "),
        (["--cpu", "--num_processes", "1"], "world 1"),
        (["--multi_gpu", "--num_processes", "2"], "world 2"),
    ],
    ids=str,
)
def test_the_promised_number_of_processes_runs(options, expected, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PRINTS_WORLD)
    hidden = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    env = {**kept, "PYTHONPATH": str(Path(cli.__file__).parents[2]), "ACCELERATE_USE_CPU": "true"}
    command = ["accelerate", "launch", "--main_process_port", "0", *options, str(script)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert expected in done.stdout + done.stderr


@pytest.mark.parametrize(
    "error", [None, InputError("a mistake"), KeyboardInterrupt(), RuntimeError("a fault")], ids=repr
)
def test_the_process_group_ends_however_the_recipe_does(error, tmp_path):
    def main():
        dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
        if error is not None:
            raise error

    with contextlib.nullcontext() if error is None else pytest.raises((SystemExit, RuntimeError)):
        run(main)
    assert not dist.is_initialized()
