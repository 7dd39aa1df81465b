"""`AdvBNTrainer`: what is trained, logged, evaluated, saved and resumed, on numbers that are known."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from builders import models_equal, rows, tiny_convnext, tiny_resnet
from torch.utils._python_dispatch import TorchDispatchMode
from trainers import ROWS, trainer_of
from transformers import EarlyStoppingCallback

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, AdvBNTrainer, AdvBNTrainingArguments, InputError
from advbn_hf.modeling import PlainForImageClassification


def test_all_of_the_tail_changes_and_nothing_of_the_stem_does(tmp_path):
    trainer = trainer_of(tmp_path)
    model = trainer.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stem = {id(value) for module in model.split.stem_modules for value in module.state_dict(keep_vars=True).values()}
    trainer.train()
    for name, value in model.state_dict(keep_vars=True).items():
        assert torch.equal(value, before[name]) == (id(value) in stem), name


def test_logs_hold_both_branches_and_the_ascent(tmp_path):
    trainer = trainer_of(tmp_path, logging_steps=2)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert [log["step"] for log in logs] == [2, 4]
    for log in logs:
        assert log["loss"] == pytest.approx(log["clean_loss"] + log["adversarial_loss"], rel=1e-4)
        assert 0 <= log["clean_accuracy"] <= 1
        assert 0 <= log["auxiliary_accuracy"] <= 1
        assert log["ascent_gain"] > 0
        assert log["ascent_gain"] == pytest.approx(log["loss_after_ascent"] - log["loss_before_ascent"], abs=1e-5)
        assert 0 < log["mean_distance"] <= AdvBNConfig().epsilon
        assert 0 < log["std_distance"] <= AdvBNConfig().epsilon


@pytest.mark.parametrize(
    ("settings", "measured"),
    [
        ({"logging_steps": 3}, [3]),
        ({"logging_steps": 3, "logging_first_step": True}, [1, 3]),
        ({"logging_strategy": "epoch", "logging_steps": 3}, [1, 5]),
        ({"logging_strategy": "no"}, []),
        ({"logging_strategy": "epoch", "gradient_accumulation_steps": 2, "max_steps": 3}, [1, 1, 3, 3]),
    ],
)
def test_the_ascent_is_measured_for_the_log_alone(tmp_path, monkeypatch, settings, measured):
    trainer = trainer_of(tmp_path, **{"max_steps": 5} | settings)
    asked, training_output = [], trainer.model.training_output

    def noting(recording, objective):
        asked.extend([trainer.state.global_step + 1] * objective.measure_ascent)
        return training_output(recording, objective)

    monkeypatch.setattr(trainer.model, "training_output", noting)
    trainer.train()
    assert asked == measured
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert all("ascent_gain" in log for log in logs)
    assert bool(logs) == bool(measured)


def test_the_loss_alone_may_be_evaluated(tmp_path):
    metrics = trainer_of(tmp_path, prediction_loss_only=True).evaluate()
    assert "eval_loss" in metrics
    assert not any("accuracy" in name for name in metrics)


def test_rows_without_labels_are_not_trained_on(tmp_path):
    rows_alone = [{"pixel_values": row["pixel_values"]} for row in ROWS]
    with pytest.raises(InputError, match=r"train_dataset: .*labels"):
        trainer_of(tmp_path, data=rows_alone).train()


def test_several_gpus_need_a_process_each(tmp_path, monkeypatch):
    monkeypatch.setattr(AdvBNTrainingArguments, "n_gpu", 2)
    with pytest.raises(InputError, match=r"2 GPUs .*accelerate launch --multi_gpu"):
        trainer_of(tmp_path)


def test_both_branches_are_evaluated(tmp_path):
    trainer = trainer_of(tmp_path)
    trainer.train()
    metrics = trainer.evaluate()
    images = torch.stack([row["pixel_values"] for row in ROWS[:20]])
    labels = torch.tensor([row["labels"] for row in ROWS[:20]])
    with torch.no_grad():
        for branch in ("clean", "auxiliary"):
            logits = trainer.model.eval()(pixel_values=images, branch=branch).logits
            assert metrics[f"eval_{branch}_accuracy"] == pytest.approx(
                (logits.argmax(1) == labels).float().mean().item()
            )
        clean = trainer.model(pixel_values=images, labels=labels)
    assert metrics["eval_loss"] == pytest.approx(clean.loss.item(), rel=1e-4)
    predicted = trainer.predict(ROWS[:20])
    np.testing.assert_allclose(predicted.predictions, clean.logits.numpy(), atol=1e-5)
    assert "test_auxiliary_accuracy" in predicted.metrics
    unlabelled = trainer.predict([{"pixel_values": row["pixel_values"]} for row in ROWS[:20]])
    np.testing.assert_array_equal(unlabelled.predictions, predicted.predictions)


def test_own_metrics_and_preprocessing_see_each_branch(tmp_path):
    seen = []

    def top_class(logits, labels):
        return logits.argmax(-1)

    def count(prediction):
        seen.append(prediction.predictions.shape)
        return {"right": int((prediction.predictions == prediction.label_ids).sum())}

    trainer = trainer_of(tmp_path)
    with_metrics = AdvBNTrainer(
        trainer.model,
        trainer.args,
        eval_dataset=ROWS[:20],
        compute_metrics=count,
        preprocess_logits_for_metrics=top_class,
    )
    metrics = with_metrics.evaluate()
    assert seen == [(20,), (20,)]
    assert {"eval_clean_right", "eval_auxiliary_right"} <= set(metrics)


def test_best_model_early_stopping_and_processor(tmp_path):
    trainer = trainer_of(
        tmp_path,
        model=tiny_convnext(),  # without running statistics, which would move
        max_steps=12,
        learning_rate=1e-9,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="auxiliary_accuracy",
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
    )
    trainer.train()
    assert trainer.state.global_step == 6  # nothing is learnt, so the first evaluation stays the best
    best = AdvBNForImageClassification.from_pretrained(trainer.state.best_model_checkpoint)
    assert models_equal(best, trainer.model)


@pytest.mark.parametrize("precision", [{}, {"bf16": True}], ids=["fp32", "bf16"])
def test_resuming_reproduces_the_uninterrupted_run_bit_for_bit(tmp_path, precision):
    settings = {"max_steps": 7, "save_strategy": "steps", "save_steps": 3, **precision}
    uninterrupted = trainer_of(tmp_path / "uninterrupted", **settings)
    uninterrupted.train()
    resumed = trainer_of(tmp_path / "resumed", model=tiny_resnet(seed=1), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "uninterrupted" / "checkpoint-3"))
    assert models_equal(uninterrupted.model, resumed.model)
    assert uninterrupted.state.log_history[-2]["ascent_gain"] == resumed.state.log_history[-2]["ascent_gain"]


def test_every_checkpoint_has_both_branches_and_no_pickled_arguments(tmp_path):
    trainer = trainer_of(tmp_path, save_strategy="steps", save_steps=2)
    trainer.train()
    trainer.save_model()
    for folder in (tmp_path, tmp_path / "checkpoint-2", tmp_path / "checkpoint-4"):
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
        branch = {"config.json", "model.safetensors", "preprocessor_config.json"}
        assert branch | {f"auxiliary/{name}" for name in branch} | {"advbn_config.json"} <= files
    assert not list(tmp_path.rglob("training_args.bin"))
    arguments = json.loads((tmp_path / "training_args.json").read_text())
    assert arguments["max_steps"] == 4


def test_a_token_given_in_python_is_written_nowhere(tmp_path):
    trainer = trainer_of(tmp_path, hub_token="hf_planted", save_strategy="steps", save_steps=4)
    trainer.train()
    trainer.save_model()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"hf_planted" in path.read_bytes()]


@pytest.mark.parametrize(
    ("config", "of_one_pass"),
    [
        (AdvBNConfig(), AdvBNConfig()),
        (
            dataclasses.replace(AdvBNConfig.paper(), num_perturbations=1),
            dataclasses.replace(AdvBNConfig.paper(), num_perturbations=4),
        ),
    ],
    ids=["per_sample", "one group a micro-batch"],
)
def test_accumulating_four_batches_equals_one_large_batch(tmp_path, config, of_one_pass):
    settings = {"max_steps": 2, "learning_rate": 0.1, "optim_args": None, "max_grad_norm": 0}
    data = rows(64)
    one = trainer_of(
        tmp_path / "one",
        model=tiny_convnext(),
        config=of_one_pass,
        data=data,
        per_device_train_batch_size=64,
        **settings,
    )
    four = trainer_of(
        tmp_path / "four",
        model=tiny_convnext(),
        config=config,
        data=data,
        per_device_train_batch_size=16,
        gradient_accumulation_steps=4,
        **settings,
    )
    start = {name: value.clone() for name, value in one.model.state_dict().items()}
    one.train()
    four.train()
    after_one, after_four = one.model.state_dict(), four.model.state_dict()
    for name, before in start.items():
        change = (after_one[name] - before).norm()
        assert (after_one[name] - after_four[name]).norm() <= 1e-3 * change + 1e-7, name


def test_label_smoothing_reaches_every_loss(tmp_path):
    trainer = trainer_of(tmp_path, label_smoothing_factor=0.5, max_steps=1, learning_rate=1e-9)
    trainer.train()
    smoothed = trainer.evaluate()["eval_loss"]
    trainer.args.label_smoothing_factor = 0.0
    assert smoothed != pytest.approx(trainer.evaluate()["eval_loss"], rel=1e-3)
    images = torch.stack([row["pixel_values"] for row in ROWS[:20]])
    labels = torch.tensor([row["labels"] for row in ROWS[:20]])
    with torch.no_grad():
        logits = trainer.model.eval()(pixel_values=images).logits
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.5)
    assert smoothed == pytest.approx(expected.item(), rel=1e-4)


def test_published_schedule_and_weight_decay(tmp_path):
    trainer = trainer_of(
        tmp_path,
        max_steps=-1,
        num_train_epochs=4,
        lr_decay_epochs=2,
        weight_decay=0.1,
        decay_norms_and_biases=True,
    )
    trainer.train()
    rates = [log["learning_rate"] for log in trainer.state.log_history if "learning_rate" in log]
    np.testing.assert_allclose(rates, [0.05] * 8 + [0.005] * 8)
    groups = [group for group in trainer.optimizer.param_groups if group["params"]]
    assert {group["weight_decay"] for group in groups} == {0.1}


def test_plain_baseline_trains_with_the_same_trainer(tmp_path):
    model = PlainForImageClassification.from_backbone(tiny_resnet(), AdvBNConfig(auxiliary_norms=False))
    args = AdvBNTrainingArguments(str(tmp_path), max_steps=2, report_to="none", use_cpu=True, logging_steps=1)
    trainer = AdvBNTrainer(model, args, train_dataset=ROWS)
    trainer.train()
    log = trainer.state.log_history[0]
    assert math.isclose(log["loss"], log["clean_loss"], rel_tol=1e-4)
    assert "adversarial_loss" not in log


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (AdvBNConfig(num_perturbations=9), {}, r"num_perturbations \(9\) .*8 images"),
        (None, {"lr_decay_epochs": 0}, "lr_decay_epochs"),
        (None, {"batch_eval_metrics": True}, "batch_eval_metrics"),
        (None, {"hub_strategy": "checkpoint"}, "hub_strategy"),
    ],
)
def test_bad_settings_are_named_before_any_work(tmp_path, config, settings, message):
    with pytest.raises(InputError, match=message):
        trainer_of(tmp_path / "run", config=config, **settings)
    assert not (tmp_path / "run").exists()


def test_a_step_never_waits_for_the_device(tmp_path):
    """Reading a number off a tensor makes the host wait, so that more steps must not take more of it."""

    class Reads(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
            return func(*args, **(kwargs or {}))

    counts = []
    for steps in (2, 4):
        trainer = trainer_of(tmp_path / str(steps), max_steps=steps, logging_steps=100, save_strategy="no")
        with Reads() as reads:
            trainer.train()
        counts.append(reads.count)
    assert counts[0] > 0
    assert counts[0] == counts[1]


def test_the_optimiser_is_fused(tmp_path):
    assert trainer_of(tmp_path).create_optimizer().defaults["fused"]
