"""Ctrl-C and SIGTERM, sent for real: the step ends, a checkpoint is there, and one line says how to resume."""

import importlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time

import finetune
import pytest
import stop_on_processes
from builders import models_equal, tiny_resnet
from jobs import FAST, job
from processes import run_on_two
from trainers import ROWS, trainer_of

from advbn_hf import AdvBNForImageClassification
from advbn_hf.training.checkpoints import damage, last_complete_checkpoint
from advbn_hf.utils.cli import run

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])


class Rows(list):
    """Images of which one sends a signal to this process when it is read for the n-th time, or any after it."""

    def __init__(self, number, after, times=1):
        super().__init__(ROWS)
        self.number, self.after, self.times = number, after, times

    def __getitem__(self, index):
        if isinstance(index, int):
            self.after -= 1
            if self.after <= 0 < self.times:
                self.times -= 1
                os.kill(os.getpid(), self.number)
        return super().__getitem__(index)


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """Also where these tests run in the background, with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@SIGNALS
@pytest.mark.parametrize("times", [1, 5])
def test_a_signal_saves_the_step_and_resuming_ends_with_the_same_weights(tmp_path, request, number, times):
    whole = trainer_of(tmp_path / "whole", max_steps=7)
    whole.train()
    handler = signal.getsignal(number)
    data = Rows(number, 20, times)
    stopped = trainer_of(tmp_path / "stopped", max_steps=7, data=data, eval_strategy="steps", eval_steps=1)
    with pytest.raises(KeyboardInterrupt) as told:
        stopped.train()
    assert signal.getsignal(number) == handler
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    step = stopped.state.global_step
    assert 1 <= step <= 4
    assert f"stopped by {name} after step {step} of 7" in str(told.value)
    assert "resume_from_checkpoint=True" in str(told.value)
    assert [path.name for path in (tmp_path / "stopped").glob("checkpoint-*")] == [f"checkpoint-{step}"]
    resumed = trainer_of(tmp_path / "stopped", model=tiny_resnet(seed=1), max_steps=7)
    resumed.train(resume_from_checkpoint=True)
    assert models_equal(whole.model, resumed.model)


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        trainer = trainer_of(tmp_path, max_steps=2, data=Rows(signal.SIGINT, 3))
        trainer.train()
    finally:
        signal.signal(signal.SIGINT, before)
    assert trainer.state.global_step == 2


def test_training_in_another_thread(tmp_path):
    trainer = trainer_of(tmp_path, max_steps=2)
    thread = threading.Thread(target=trainer.train)
    thread.start()
    thread.join()
    assert trainer.state.global_step == 2


@pytest.mark.slow
@SIGNALS
@pytest.mark.parametrize("during", ["baseline", "advbn"])
def test_recipe_stops_with_one_line_and_resumes(monkeypatch, folders, tmp_path, capsys, number, during):
    batches = []
    collate = finetune.collate

    def collate_and_kill(rows):
        batches.append(len(rows))
        if len(batches) == (2 if during == "baseline" else 7):  # each trains on four batches
            os.kill(os.getpid(), number)
        return collate(rows)

    arguments = job(folders, tmp_path / "run", "--max_steps", "4", "--baseline", "true", "--save_strategy", "no")
    arguments += ["--max_eval_samples", "2"]
    monkeypatch.setattr(finetune, "collate", collate_and_kill)
    monkeypatch.setattr(sys, "argv", ["finetune.py", *arguments])
    with pytest.raises(SystemExit) as left:
        run(finetune.main)
    assert left.value.code == 1
    error = [line for line in capsys.readouterr().err.splitlines() if "stopped by" in line]
    assert len(error) == 1
    assert "--resume_from_checkpoint last" in error[0]
    monkeypatch.setattr(sys, "argv", ["finetune.py", *arguments, "--resume_from_checkpoint", "last"])
    run(finetune.main)
    AdvBNForImageClassification.from_pretrained(tmp_path / "run")


SMALL = {"model_type": "resnet", "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic", "image_size": 32}
PLACES = {
    "base training": ("advbn_hf.training.base.collate", signal.SIGTERM),
    "storing features": ("advbn_hf.training.stem_cache._readable", signal.SIGTERM),
    "evaluation": ("advbn_hf.evaluation.inference._collate", signal.SIGINT),
    "report": ("finetune.plot_gain", signal.SIGTERM),
}


def fine_tune(folder, data, *more):
    """The recipe with a base training and stored features."""
    options = ["--backbone_config", json.dumps(SMALL), "--dataset_name", str(data), *FAST]
    options += ["--cache_stem_features", "true", "--augment", "false", "--base_epochs", "1", "--save_strategy", "no"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["finetune.py", "--output_dir", str(folder), *options, *more])
        run(finetune.main, finetune.RESUME)


@pytest.fixture(scope="module")
def whole(folders, tmp_path_factory):
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    fine_tune(folder, folders / "data")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("target", "number"), PLACES.values(), ids=PLACES)
def test_recipe_stops_outside_of_the_training(monkeypatch, folders, tmp_path, whole, capsys, target, number):
    """At once: nothing half-written is left, and the resumed run writes what an uninterrupted one does."""
    with monkeypatch.context() as patched:
        module, name = target.rsplit(".", 1)
        function = getattr(importlib.import_module(module), name)
        patched.setattr(target, lambda *args: os.kill(os.getpid(), number) or function(*args))
        with pytest.raises(SystemExit) as left:
            fine_tune(tmp_path / "stopped", folders / "data")
    assert left.value.code == 1
    told = [line for line in capsys.readouterr().err.splitlines() if "stopped by" in line]
    assert len(told) == 1
    assert told[0].endswith("; to resume, add --resume_from_checkpoint last to the same command")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert {path.name for path in tmp_path.rglob(".*")} == {".run.lock"}
    assert not (tmp_path / "stopped" / "stem_features").exists()
    fine_tune(tmp_path / "stopped", folders / "data", "--resume_from_checkpoint", "last")
    for file in ("model.safetensors", "auxiliary/model.safetensors", "results.json"):
        assert (tmp_path / "stopped" / file).read_bytes() == (whole / file).read_bytes()


def test_a_forked_process_ends_by_sigterm_without_a_word(capfd):
    fork = multiprocessing.get_context("fork")
    begun = fork.Event()

    def wait():
        begun.set()
        time.sleep(60)

    def main():
        process = fork.Process(target=wait)
        process.start()
        assert begun.wait(60)
        process.terminate()
        process.join()
        assert process.exitcode == -signal.SIGTERM

    run(main)
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_all_processes_stop_after_the_same_step(tmp_path, capfd):
    run_on_two(stop_on_processes.main, tmp_path)
    told = capfd.readouterr().out
    for rank in range(2):
        assert f"rank {rank}: stopped by SIGTERM after step 3 of 50" in told
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-3")
    assert damage(tmp_path / "checkpoint-3") is None
    assert len(list((tmp_path / "checkpoint-3").glob("rng_state_*.pth"))) == 2
