"""Resumed, a run ends as one that was not interrupted, whatever it trains with; the best model is the best."""

from pathlib import Path

import pytest
import torch
from builders import models_equal, rows, tiny_convnext, tiny_vit
from parity import arguments, history, logged, plain_and_ours, train, wrap
from transformers import EarlyStoppingCallback

from advbn_hf import AdvBNForImageClassification, AdvBNTrainer

CLOCK = ("runtime", "per_second", "train_loss")  # Trainer's train_loss is of the steps after resuming alone

pytestmark = pytest.mark.slow


class Passing(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(rows(24))


def dropping():
    return tiny_vit(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3)


def half_frozen():
    model = tiny_convnext()
    for weight in model.convnext.encoder.stages[2].parameters():
        weight.requires_grad_(False)
    return model


def run(folder, make=tiny_convnext, data=None, callbacks=None, **settings):
    settings = {"learning_rate": 0.01, "save_strategy": "steps", "save_steps": 2} | settings
    data = rows(20) if data is None else data()
    return AdvBNTrainer(
        wrap(make(), freeze_stem=False),
        arguments(folder, **settings),
        train_dataset=data,
        eval_dataset=rows(7),
        callbacks=callbacks,
    )


def state(trainer):
    log = [
        {name: value for name, value in entry.items() if not any(word in name for word in CLOCK)}
        for entry in trainer.state.log_history
    ]
    return log, trainer.state.global_step, trainer.state.epoch, trainer.state.total_flos


@pytest.mark.parametrize(
    "settings",
    [
        {"gradient_accumulation_steps": 2, "label_smoothing_factor": 0.1, "data_seed": 3},
        {"optim": "adafactor", "dataloader_num_workers": 1},
        {"make": dropping, "eval_strategy": "steps", "eval_steps": 1},
        {"make": half_frozen, "lr_scheduler_type": "cosine"},
        {"data": Passing, "bf16": True},
    ],
    ids=["accumulation, smoothing, data_seed", "adafactor, workers", "dropout", "frozen layers", "iterable, bf16"],
)
def test_resumed_with_every_kind_of_training(settings, tmp_path):
    uninterrupted, resumed = run(tmp_path / "one", **settings), run(tmp_path / "other", **settings)
    uninterrupted.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "one" / "checkpoint-2"))
    assert models_equal(uninterrupted.model, resumed.model)
    assert state(resumed) == state(uninterrupted)


@pytest.mark.parametrize("settings", [{}, {"save_only_model": True}, {"ignore_data_skip": True}], ids=str)
def test_resumed_as_trainer_resumes(settings, tmp_path):
    """Without an optimiser's state, or with the epoch's images from the start."""
    trainers = plain_and_ours(tmp_path, max_steps=2, save_strategy="steps", save_steps=2, **settings)
    train(*trainers)
    resumed = plain_and_ours(tmp_path, max_steps=4, **settings)
    for trainer in resumed:
        torch.manual_seed(0)
        trainer.train(resume_from_checkpoint=str(Path(trainer.args.output_dir) / "checkpoint-2"))
    plain, ours = map(history, resumed)
    assert len(plain) > 4
    for one, other in zip(ours, plain, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


METRICS = ("loss", "clean_accuracy", "auxiliary_accuracy")


@pytest.mark.parametrize(
    ("metric", "strategy"),
    [
        *((name, "steps") for metric in METRICS for name in (metric, f"eval_{metric}")),
        (None, "steps"),
        ("eval_loss", "epoch"),
        ("clean_accuracy", "best"),
    ],
)
def test_the_best_model_goes_by_every_metric_and_strategy(metric, strategy, tmp_path):
    moments = {"eval_strategy": "epoch" if strategy == "epoch" else "steps", "eval_steps": 1}
    given = {"load_best_model_at_end": True, "metric_for_best_model": metric, "save_total_limit": 1}
    trainer = run(tmp_path, learning_rate=0.1, save_strategy=strategy, save_steps=1, **given | moments | {
        "max_steps": 10 if strategy == "epoch" else 4})  # fmt: skip
    trainer.train()
    name = f"eval_{(metric or 'loss').removeprefix('eval_')}"
    best = (min if name == "eval_loss" else max)(logged(trainer, name))
    assert trainer.state.best_metric == best
    assert models_equal(
        AdvBNForImageClassification.from_pretrained(trainer.state.best_model_checkpoint), trainer.model
    )
    assert trainer.evaluate()[name] == pytest.approx(best, rel=1e-5)


def test_the_best_model_of_one_of_several_sets(tmp_path):
    trainer = run(tmp_path, max_steps=3, learning_rate=0.1, save_steps=1, eval_strategy="steps", eval_steps=1,
                  load_best_model_at_end=True, metric_for_best_model="eval_some_loss")  # fmt: skip
    trainer.eval_dataset = {"some": rows(5), "others": rows(6, seed=1)}
    trainer.train()
    assert trainer.state.best_metric == min(logged(trainer, "eval_some_loss"))


def test_early_stopping_counts_on_after_resuming(tmp_path):
    settings = {"max_steps": 8, "learning_rate": 1e-12, "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1,
                "load_best_model_at_end": True, "metric_for_best_model": "clean_accuracy",
                "restore_callback_states_from_checkpoint": True}  # fmt: skip
    first = run(tmp_path, callbacks=[EarlyStoppingCallback(3)], **settings)
    first.train()
    assert first.state.global_step == 4  # nothing is learnt
    resumed = run(tmp_path, callbacks=[EarlyStoppingCallback(3)], **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert resumed.state.global_step == 4
