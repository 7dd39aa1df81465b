"""Cells that fail, are interrupted and run again, with the same objects: what is left is that of what ran."""

import copy
import dataclasses
import re
import signal

import pytest
from builders import models_equal, tiny_resnet
from trainers import trainer_of
from transformers import TrainerCallback

from advbn_hf import AdvBNConfig, InputError
from advbn_hf.training.nonfinite import check_weights
from advbn_hf.utils.advice import on_command_line

SAVING = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2}


class Fails(TrainerCallback):
    """Raises once: at the end of a step, within one, or in an evaluation after it."""

    def __init__(self, step, moment="step_end", error=ValueError):
        self.step, self.moment, self.error = step, moment, error

    def _fail(self, moment, state):
        if self.moment == moment and state.global_step == self.step:
            self.moment = None
            raise self.error("a cell that fails")

    def on_step_begin(self, args, state, control, **kwargs):
        self._fail("step_begin", state)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self._fail("before_update", state)

    def on_step_end(self, args, state, control, **kwargs):
        self._fail("step_end", state)

    def on_prediction_step(self, args, state, control, **kwargs):
        self._fail("evaluation", state)


def logs_of(trainer):
    clock = re.compile("runtime|per_second|train_loss")  # Trainer's train_loss is of the steps after resuming alone
    return [
        {name: value for name, value in log.items() if not clock.search(name)} for log in trainer.state.log_history
    ]


def state_of(trainer):
    """What training sets up for itself, and must take down."""
    hooks = [
        (name, len(module._forward_hooks), len(module._forward_pre_hooks), "forward" in vars(module))
        for name, module in trainer.model.named_modules()
    ]
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    kept = [
        trainer.compute_metrics,
        trainer.data_collator,
        trainer.args.save_total_limit,
        trainer.args.ignore_data_skip,
    ]
    return hooks, handlers, kept, trainer.is_in_train


def failed(output_dir, moment="step_end", error=ValueError, step=3, **settings):
    """A trainer whose training failed once, with the state from before it."""
    trainer = trainer_of(output_dir, callbacks=[Fails(step, moment, error)], **settings)
    before = state_of(trainer)
    with pytest.raises(error):
        trainer.train()
    assert state_of(trainer) == before
    return trainer


@pytest.mark.parametrize("moment", ["step_begin", "before_update", "step_end"])
def test_training_again_after_an_error_is_a_new_trainer_with_these_weights(tmp_path, moment):
    trainer = failed(tmp_path, moment, logging_steps=4)
    other = trainer_of(tmp_path, logging_steps=4)
    other.model.load_state_dict(trainer.model.state_dict())
    for one in (trainer, other):
        one.train()
    assert models_equal(trainer.model, other.model)
    assert logs_of(trainer) == logs_of(other)
    log = logs_of(trainer)[0]
    assert log["loss"] == pytest.approx(log["clean_loss"] + log["adversarial_loss"], abs=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 0.01, "weight_decay": 0.1},
        {"optim": "adamw_torch", "optim_args": None},
        {"per_device_train_batch_size": 4},
        {"gradient_accumulation_steps": 2, "label_smoothing_factor": 0.2, "max_grad_norm": 0.1},
        {"lr_decay_epochs": 1, "max_steps": -1, "num_train_epochs": 2},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_arguments_changed_between_two_trainings_are_those_of_the_second(tmp_path, changes):
    trainer = trainer_of(tmp_path)
    trainer.train()
    for name, value in changes.items():
        setattr(trainer.args, name, value)
    other = trainer_of(tmp_path, **changes)
    other.model.load_state_dict(trainer.model.state_dict())
    for one in (trainer, other):
        one.train()
    assert models_equal(trainer.model, other.model)
    assert logs_of(trainer) == logs_of(other)


def test_no_step_decay_is_left_of_a_training_that_had_one(tmp_path):
    trainer = trainer_of(tmp_path, lr_decay_epochs=0.25)
    trainer.train()
    trainer.args.lr_decay_epochs = None
    trainer.train()
    rates = [log["learning_rate"] for log in logs_of(trainer) if "learning_rate" in log]
    other = trainer_of(tmp_path)
    other.train()
    assert rates == [log["learning_rate"] for log in logs_of(other) if "learning_rate" in log]


@pytest.mark.parametrize(("name", "value"), [("seed", 1), ("compile_tail", True), ("bf16", True)])
def test_a_changed_argument_that_could_have_no_effect_is_refused(tmp_path, name, value):
    trainer = trainer_of(tmp_path)
    setattr(trainer.args, name, value)
    with pytest.raises(InputError, match=f"^{name}: "):
        trainer.train()


def test_settings_of_the_method_changed_between_two_trainings(tmp_path):
    trainer = trainer_of(tmp_path)
    trainer.train()
    trainer.model.advbn_config = dataclasses.replace(trainer.model.advbn_config, epsilon=0.5, step_size=0.1)
    other = trainer_of(tmp_path, config=AdvBNConfig(epsilon=0.5, step_size=0.1))
    other.model.load_state_dict(trainer.model.state_dict())
    for one in (trainer, other):
        one.train()
    assert models_equal(trainer.model, other.model)
    trainer.model.advbn_config = dataclasses.replace(trainer.model.advbn_config, num_perturbations=9)
    with pytest.raises(InputError, match="num_perturbations"):
        trainer.train()


def test_a_given_optimizer_stays(tmp_path):
    trainer = trainer_of(tmp_path)
    optimizer = trainer.create_optimizer().__class__(trainer.model.parameters(), lr=0.1, momentum=0.9)
    trainer.optimizer = optimizer
    for _ in range(2):
        trainer.train()
        assert trainer.optimizer.optimizer is optimizer


@pytest.mark.parametrize(
    ("moment", "step", "error"),
    [
        ("step_begin", 4, ValueError),
        ("before_update", 4, ValueError),
        ("step_end", 5, KeyboardInterrupt),
        ("evaluation", 5, KeyboardInterrupt),
    ],
)
def test_resuming_with_the_same_objects_equals_a_run_that_was_not_interrupted(tmp_path, moment, step, error):
    settings = {**SAVING, "eval_strategy": "steps", "eval_steps": 1}
    complete = trainer_of(tmp_path / "complete", **settings)
    complete.train()
    trainer = failed(tmp_path / "interrupted", moment, error, step, **settings)
    trainer.train(resume_from_checkpoint=True)
    assert models_equal(trainer.model, complete.model)
    assert logs_of(trainer) == logs_of(complete)
    assert trainer.evaluate()["eval_loss"] == complete.evaluate()["eval_loss"]


def test_an_evaluation_that_is_interrupted_changes_nothing(tmp_path):
    callback = Fails(0, "evaluation", KeyboardInterrupt)
    trainer = trainer_of(tmp_path, callbacks=[callback])
    before, model = state_of(trainer), copy.deepcopy(trainer.model)
    with pytest.raises(KeyboardInterrupt):
        trainer.evaluate()
    assert state_of(trainer) == before
    assert models_equal(trainer.model, model)
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] == trainer_of(tmp_path).evaluate()["eval_loss"]
    assert {"eval_clean_accuracy", "eval_auxiliary_accuracy"} <= metrics.keys()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    trainer = trainer_of(tmp_path_factory.mktemp("run"), **SAVING)
    trainer.train()
    return trainer.args.output_dir


@pytest.mark.parametrize("last", [True, "last"])
def test_the_last_checkpoint_goes_by_both_names(run, last):
    trainer = trainer_of(run, model=tiny_resnet(seed=1), **SAVING | {"max_steps": 7})
    assert trainer.train(resume_from_checkpoint=last).global_step == 7


@pytest.mark.parametrize(
    ("checkpoint", "settings", "message"),
    [
        ("nowhere/checkpoint-9", {}, "no folder nowhere"),
        (".", {}, r"checkpoint-\d"),
        (True, {"optim": "adamw_torch", "optim_args": None}, "optim"),
        (True, {"config": AdvBNConfig(freeze_stem=False)}, r"AdvBNConfig\(freeze_stem=True\)"),
    ],
    ids=["no folder", "the run's folder", "another optimiser", "other settings"],
)
def test_what_cannot_be_resumed_is_named_and_the_advice_is_for_python(run, tmp_path, checkpoint, settings, message):
    trainer = trainer_of(run, **SAVING | {"max_steps": 8} | settings)
    with pytest.raises(InputError, match=rf"resume_from_checkpoint: .*{message}") as stopped:
        trainer.train(resume_from_checkpoint=run if checkpoint == "." else checkpoint)
    assert "--" not in str(stopped.value)
    assert "\n" not in str(stopped.value)


def test_other_frozen_weights_are_refused(run):
    trainer = trainer_of(run, **SAVING | {"max_steps": 8})
    trainer.model.backbone.classifier.requires_grad_(False)
    with pytest.raises(InputError, match=r"resume_from_checkpoint: .*freeze"):
        trainer.train(resume_from_checkpoint=True)


def test_advice_of_one_message_in_python_and_on_a_command_line():
    model = tiny_resnet()
    next(model.parameters()).data.fill_(float("nan"))
    with pytest.raises(InputError, match=r"trainer\.train\(resume_from_checkpoint=True\)"):
        check_weights(model, 3)
    with on_command_line(), pytest.raises(InputError, match="--resume_from_checkpoint last"):
        check_weights(model, 3)
