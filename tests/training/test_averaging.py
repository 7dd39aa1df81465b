"""A run with `ema_decay` ends with, evaluates and saves the average of its weights, and resumes bit for bit."""

import pytest
import torch
from builders import models_equal
from safetensors.torch import load_file
from trainers import trainer_of
from transformers import TrainerCallback

from advbn_hf import AdvBNForImageClassification, AdvBNTrainingArguments, InputError
from advbn_hf.training.averaging import LAST_WEIGHTS_FILE

DECAY = 0.7


class Weights(TrainerCallback):
    """The weights after each step, as they are trained."""

    def __init__(self):
        self.after = []

    def on_step_end(self, args, state, control, model, **kwargs):
        self.after.append({name: tensor.clone() for name, tensor in model.state_dict().items()})


def average_of(weights, decay=DECAY):
    total = {name: tensor.double() for name, tensor in weights[0].items()}
    for later in weights[1:]:
        total = {name: decay * total[name] + (1 - decay) * tensor for name, tensor in later.items()}
    return total


def assert_close(model, expected):
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Weights after each of four steps without an average."""
    seen = Weights()
    trainer_of(tmp_path_factory.mktemp("plain"), callbacks=[seen]).train()
    return seen.after


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    settings = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
    trainer = trainer_of(folder, ema_decay=DECAY, **settings)
    trainer.train()
    return folder, trainer


def test_the_model_is_the_average_in_both_branches_with_its_statistics(run, plain):
    _, trainer = run
    expected = average_of(plain)
    assert_close(trainer.model, expected)
    weights = trainer.model.state_dict()
    moved = {name for name, tensor in weights.items() if not torch.equal(tensor, plain[-1][name])}
    assert any("auxiliary.running_mean" in name for name in moved)
    assert any("clean.weight" in name for name in moved)
    assert not any("embedder" in name for name in moved)  # the frozen stem


def test_a_checkpoint_holds_the_average_and_beside_it_the_weights(run, plain):
    folder, _ = run
    assert_close(AdvBNForImageClassification.from_pretrained(folder / "checkpoint-2"), average_of(plain[:2]))
    last = load_file(folder / "checkpoint-2" / LAST_WEIGHTS_FILE)
    assert last.keys() < plain[1].keys()
    assert all(torch.equal(tensor, plain[1][name]) for name, tensor in last.items())


def test_the_average_is_evaluated(run):
    folder, trainer = run
    logged = next(log for log in trainer.state.log_history if "eval_loss" in log and log["step"] == 2)
    alone = trainer_of(folder / "other")
    alone.model.load_state_dict(AdvBNForImageClassification.from_pretrained(folder / "checkpoint-2").state_dict())
    assert logged["eval_loss"] == pytest.approx(alone.evaluate()["eval_loss"], rel=1e-5)


def test_a_resumed_run_ends_with_the_same_average(run):
    folder, trainer = run
    resumed = trainer_of(folder / "resumed", ema_decay=DECAY)
    resumed.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    assert models_equal(resumed.model, trainer.model)


def test_a_second_training_starts_a_new_average(tmp_path):
    again = trainer_of(tmp_path, ema_decay=DECAY)
    again.train()
    seen = Weights()
    again.add_callback(seen)
    again.train()
    assert_close(again.model, average_of(seen.after))


def test_the_best_checkpoint_is_loaded_as_it_was_saved(tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": True}
    trainer = trainer_of(tmp_path, ema_decay=DECAY, **settings, **best)
    trainer.train()
    saved = AdvBNForImageClassification.from_pretrained(trainer.state.best_model_checkpoint)
    assert models_equal(saved, trainer.model)


@pytest.mark.parametrize(("before", "now"), [(None, DECAY), (DECAY, None)])
def test_a_run_resumes_with_an_average_only_where_there_was_one(tmp_path, before, now):
    trainer_of(tmp_path, ema_decay=before, save_strategy="steps", save_steps=2, max_steps=2).train()
    with pytest.raises(InputError, match="ema_decay"):
        trainer_of(tmp_path, ema_decay=now).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("decay", [0, 1, -0.5, float("nan")])
def test_a_decay_out_of_range_is_named(tmp_path, decay):
    with pytest.raises(InputError, match="ema_decay"):
        AdvBNTrainingArguments(str(tmp_path), ema_decay=decay)
