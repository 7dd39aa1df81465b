"""Checkpoints that were cut short, damaged or are not what they say: named and skipped, never run."""

import json
import os
import resource
import shutil
from pathlib import Path

import pytest
import torch
from builders import EpochRows, models_equal, tiny_resnet
from trainers import trainer_of
from transformers import TrainerCallback

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, InputError
from advbn_hf.training.checkpoints import CONTENTS_FILE, damage, last_complete_checkpoint, seal
from advbn_hf.utils.fingerprint import hash_file

SAVING = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run, with checkpoints after steps 2, 4 and 6."""
    trainer = trainer_of(tmp_path_factory.mktemp("run"), **SAVING)
    trainer.train()
    return trainer


@pytest.fixture
def run(finished, tmp_path):
    """A copy of that run's folder, to be damaged."""
    return shutil.copytree(finished.args.output_dir, tmp_path / "run")


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FILES = (
    "model.safetensors",
    "auxiliary/model.safetensors",
    "config.json",
    "advbn_config.json",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "checkpoint_contents.json",
)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("do", [os.unlink, cut_short, flip_a_bit], ids=["missing", "truncated", "bit flipped"])
def test_a_damaged_checkpoint_is_named_and_skipped(run, monkeypatch, file, do):
    do(run / "checkpoint-6" / file)
    warnings = []
    monkeypatch.setattr("advbn_hf.training.checkpoints.logger.warning", warnings.append)
    assert last_complete_checkpoint(run) == str(run / "checkpoint-4")
    assert len(warnings) == 1
    assert "checkpoint-6" in warnings[0]
    # A bit of the list may be one of a file's name or hash: then it is that file which does not fit.
    assert file in warnings[0] or file == "checkpoint_contents.json"


def test_every_file_of_a_checkpoint_is_listed_but_the_card(run):
    unlisted = {"checkpoint_contents.json", "README.md"}
    assert damage(run / "checkpoint-6") is None
    for path in (path for path in (run / "checkpoint-6").rglob("*") if path.is_file()):
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        if path.name not in unlisted:
            assert path.relative_to(run / "checkpoint-6").as_posix() in damage(run / "checkpoint-6")
        path.write_bytes(content)


def test_resuming_from_the_last_complete_one_ends_with_the_same_weights(run, finished):
    cut_short(run / "checkpoint-6" / "optimizer.pt")
    flip_a_bit(run / "checkpoint-4" / "model.safetensors")
    trainer = trainer_of(run, model=tiny_resnet(seed=1), **SAVING)
    with pytest.raises(InputError, match=r"checkpoint-4 .*: model.safetensors"):
        trainer.train(resume_from_checkpoint=str(run / "checkpoint-4"))
    trainer.train(resume_from_checkpoint=True)
    assert models_equal(trainer.model, finished.model)
    assert last_complete_checkpoint(run) == str(run / "checkpoint-6")
    for step in (2, 4, 6):
        shutil.rmtree(run / f"checkpoint-{step}" / "auxiliary")
    with pytest.raises(InputError, match="resume_from_checkpoint"):
        trainer.train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"insert_after": "auto"}, "insert_after resnet.embedder, and this run has resnet.encoder.stages.0"),
        ({"auxiliary_norms": False}, "auxiliary_norms True, and this run has False; .*auxiliary_norms=True"),
        ({"freeze_stem": False}, "freeze_stem True, and this run has False"),
    ],
)
def test_a_model_with_other_settings_is_not_resumed(run, settings, message):
    trainer = trainer_of(run, model=tiny_resnet(seed=1), config=AdvBNConfig(**settings), **SAVING)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with pytest.raises(InputError, match=f"resume_from_checkpoint: .*checkpoint-6 was trained with {message}"):
        trainer.train(resume_from_checkpoint=True)
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


def test_resuming_a_run_that_has_ended_trains_no_further(run, finished):
    """As after a death behind the last step; its last epoch, of which two steps are left, is not resumed."""
    trainer = trainer_of(run, model=tiny_resnet(seed=1), **SAVING)
    assert trainer.train(resume_from_checkpoint=True).global_step == 6
    assert models_equal(trainer.model, finished.model)


def test_resuming_within_an_epoch_reads_images_of_that_epoch(run):
    """Two batches of eight are left of the second epoch, and two more follow; Accelerate loads one ahead."""
    data = EpochRows(32)
    trainer_of(run, data=data, **SAVING | {"max_steps": 10}).train(resume_from_checkpoint=True)
    assert [epoch for epoch in data.read_in if epoch is not None] == [1] * 16 + [2] * 24


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["seal", "rotate_checkpoints"])
@pytest.mark.parametrize("limit", [1, 2])
def test_there_is_a_complete_checkpoint_at_every_moment_of_saving(tmp_path, monkeypatch, moment, limit):
    """Whatever was removed or written when a run dies just before a checkpoint counts, or before others go."""
    seen = []

    def dies(*args, **kwargs):
        seen.append(last_complete_checkpoint(tmp_path))
        if len(seen) == 2:
            raise MemoryError
        return real(*args, **kwargs)

    real = getattr(__import__("advbn_hf.training.checkpoints", fromlist=[moment]), moment)
    monkeypatch.setattr(f"advbn_hf.training.checkpoints.{moment}", dies)
    with pytest.raises(MemoryError):
        trainer_of(tmp_path, save_total_limit=limit, **SAVING).train()
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / f"checkpoint-{2 if moment == 'seal' else 4}")


def test_only_the_last_checkpoints_are_kept(tmp_path):
    trainer_of(tmp_path, save_total_limit=1, **SAVING).train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-6"]
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-6")


class Payload:
    """A pickle that leaves a folder behind when it is executed."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("file", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt"])
def test_code_in_a_checkpoint_does_not_run(run, file):
    torch.save(Payload(run / "ran"), run / "checkpoint-4" / file)
    seal(run / "checkpoint-4")
    trainer = trainer_of(run, **SAVING)
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu")  # whose state is in scaler.pt
    with pytest.raises(InputError, match=r"resume_from_checkpoint: .*checkpoint-4") as stopped:
        trainer.train(resume_from_checkpoint=str(run / "checkpoint-4"))
    assert "\n" not in str(stopped.value)
    assert not (run / "ran").exists()


def test_pickles_that_are_not_asked_for_stay_unread(run, finished):
    for file in ("training_args.bin", "auxiliary/pytorch_model.bin", "pytorch_model.bin"):
        torch.save(Payload(run / "ran"), run / "checkpoint-4" / file)
    seal(run / "checkpoint-4")
    trainer = trainer_of(run, model=tiny_resnet(seed=1), **SAVING)
    trainer.train(resume_from_checkpoint=str(run / "checkpoint-4"))
    assert models_equal(trainer.model, finished.model)
    assert not (run / "ran").exists()


def list_files(checkpoint):
    """What `seal` writes, whatever is missing."""
    paths = [path for path in checkpoint.rglob("*") if path.is_file() and path.name != CONTENTS_FILE]
    contents = {path.relative_to(checkpoint).as_posix(): hash_file(path) for path in paths}
    (checkpoint / CONTENTS_FILE).write_text(json.dumps(contents))


@pytest.mark.parametrize("missing", ["model.safetensors", "auxiliary/model.safetensors"])
def test_a_checkpoint_without_weights_of_a_branch_is_never_complete(run, missing):
    (run / "checkpoint-6" / missing).unlink()
    list_files(run / "checkpoint-6")
    assert missing in damage(run / "checkpoint-6")
    assert last_complete_checkpoint(run) == str(run / "checkpoint-4")
    with pytest.raises(InputError, match=missing):
        seal(run / "checkpoint-6")


def test_a_checkpoint_without_a_shard_or_with_weights_that_are_not_listed_is_never_complete(run):
    model = AdvBNForImageClassification.from_pretrained(run / "checkpoint-6")
    for path in (run / "checkpoint-6").rglob("model.safetensors"):
        path.unlink()
    model.save_pretrained(run / "checkpoint-6", max_shard_size="20KB")
    seal(run / "checkpoint-6")
    assert damage(run / "checkpoint-6") is None
    shard = next((run / "checkpoint-6").glob("model-00002-of-*"))
    shard.rename(run / "shard")
    list_files(run / "checkpoint-6")
    assert shard.name in damage(run / "checkpoint-6")
    (run / "shard").rename(shard)
    assert shard.name in damage(run / "checkpoint-6")


def test_training_ends_where_weights_are_not_written(tmp_path, monkeypatch):
    """As on the second of two nodes under save_on_each_node, where Transformers writes none."""
    save = AdvBNForImageClassification.save_pretrained

    def without_weights(self, folder, **options):
        save(self, folder, **options)
        (Path(folder) / "auxiliary" / "model.safetensors").unlink()

    monkeypatch.setattr(AdvBNForImageClassification, "save_pretrained", without_weights)
    with pytest.raises(InputError, match=r"checkpoint-2 .*auxiliary/model\.safetensors"):
        trainer_of(tmp_path, **SAVING).train()
    assert last_complete_checkpoint(tmp_path) is None


@pytest.mark.parametrize("branch", [".", "auxiliary"])
def test_a_run_does_not_resume_from_a_pickle_in_place_of_weights(run, branch):
    folder = run / "checkpoint-4" / branch
    (folder / "model.safetensors").unlink()
    torch.save({"classifier.1.bias": Payload(run / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"checkpoint-4 .*model\.safetensors"):
        seal(run / "checkpoint-4")
    list_files(run / "checkpoint-4")
    trainer = trainer_of(run, **SAVING)
    with pytest.raises(InputError, match=r"checkpoint-4") as stopped:
        trainer.train(resume_from_checkpoint=str(run / "checkpoint-4"))
    assert "\n" not in str(stopped.value)
    assert not (run / "ran").exists()


class NoRoom(TrainerCallback):
    """From step 4 on no file can grow beyond 20,000 bytes, so that writes of larger ones fail half-way."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 4:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))


def test_a_full_disk_stops_with_one_line_and_leaves_the_last_checkpoint(tmp_path, finished):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(InputError, match=r"checkpoint-4: cannot be written \(.*make room") as stopped:
            trainer_of(tmp_path, callbacks=[NoRoom()], save_total_limit=1, **SAVING).train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(stopped.value)
    assert not (tmp_path / "checkpoint-4").exists()
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    trainer = trainer_of(tmp_path, **SAVING)
    trainer.train(resume_from_checkpoint=True)
    assert models_equal(trainer.model, finished.model)
