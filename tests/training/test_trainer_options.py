"""Options of Trainer and of what it takes: each is honoured, by Trainer or by us, or refused."""

from dataclasses import fields
from inspect import signature
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from builders import images_and_labels, models_equal, move_auxiliary_norms, tiny_convnext, tiny_resnet
from transformers import Trainer, TrainerCallback, TrainingArguments

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, AdvBNTrainer, AdvBNTrainingArguments
from advbn_hf.backbones.tracing import unused_weights
from advbn_hf.errors import InputError
from advbn_hf.modeling import PlainForImageClassification


def rows(count=16, labels=5):
    images = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return [{"pixel_values": image, "labels": index % labels} for index, image in enumerate(images)]


def wrap(backbone=None, **config):
    torch.manual_seed(0)
    return AdvBNForImageClassification.from_backbone(backbone or tiny_convnext(), AdvBNConfig(**config))


SAME = {"label_names", "logging_nan_inf_filter", "dataloader_pin_memory"}  # as by default, or not the same default


def vars_of(folder, **settings):
    common = {"max_steps": 4, "per_device_train_batch_size": 4, "logging_steps": 1, "save_strategy": "no"}
    quiet = {"use_cpu": True, "report_to": "none", "disable_tqdm": True}
    return {"output_dir": str(folder), **common, **quiet, **settings}


def arguments(folder, **settings):
    return AdvBNTrainingArguments(**vars_of(folder, **settings))


def logged(trainer, name):
    return [log[name] for log in trainer.state.log_history if name in log]


# Options that Trainer alone reads, with a value that is not the default: `AdvBNTrainer` logs what `Trainer` does.
TRAINERS = {
    "lr_scheduler_type": "polynomial",
    "lr_scheduler_kwargs": {"num_cycles": 2},
    "warmup_steps": 2,
    "optim": "adafactor",
    "weight_decay": 0.5,
    "adam_beta1": 0.5,
    "adam_beta2": 0.5,
    "adam_epsilon": 0.1,
    "gradient_accumulation_steps": 2,
    "average_tokens_across_devices": False,
    "max_grad_norm": 0.1,
    "label_smoothing_factor": 0.3,
    "bf16": True,
    "logging_first_step": True,
    "logging_steps": 2,
    "logging_strategy": "epoch",
    "eval_strategy": "epoch",
    "eval_steps": 2,
    "eval_delay": 2,
    "eval_on_start": True,
    "eval_accumulation_steps": 1,
    "per_device_eval_batch_size": 3,
    "save_strategy": "epoch",
    "save_only_model": True,
    "full_determinism": True,
    "seed": 7,
    "data_seed": 7,
    "dataloader_drop_last": True,
    "train_sampling_strategy": "sequential",
    "torch_empty_cache_steps": 1,
    "skip_memory_metrics": False,
    "num_train_epochs": 2,
    "max_steps": 3,
    "per_device_train_batch_size": 3,
    "learning_rate": 0.01,
    "include_for_metrics": ["loss"],
    "remove_unused_columns": False,
    "label_names": ["labels"],
    "run_name": "mine",
    "log_level": "error",
    "dataloader_in_order": False,
    "dataloader_pin_memory": False,
    "restore_callback_states_from_checkpoint": True,
    "logging_nan_inf_filter": True,
}
WITH = {
    "lr_scheduler_kwargs": {"lr_scheduler_type": "cosine_with_restarts"},
    "eval_steps": {"eval_strategy": "steps"},
    "eval_delay": {"eval_strategy": "steps", "eval_steps": 1},
    "save_only_model": {"save_strategy": "steps", "save_steps": 2},
    "num_train_epochs": {"max_steps": -1},
    "include_for_metrics": {"eval_strategy": "epoch"},
}


# What we read too, or refuse, with the test that shows it.
OURS = {
    "output_dir": "test_trainer.py::test_every_checkpoint_has_both_branches_and_no_pickled_arguments",
    "optim_args": "test_trainer.py::test_accumulating_four_batches_equals_one_large_batch",
    "activation_checkpointing": "backbones/test_activation_checkpointing.py::test_trainer_switches_it_on",
    "activation_checkpointing_kwargs": "backbones/test_activation_checkpointing.py::test_trainer_switches_it_on",
    "gradient_checkpointing": "backbones/test_activation_checkpointing.py::test_trainer_switches_it_on",
    "gradient_checkpointing_kwargs": "backbones/test_activation_checkpointing.py::test_trainer_switches_it_on",
    "torch_compile": "training/test_compile.py::test_what_does_not_go_together",
    "torch_compile_backend": "training/test_trainer_options.py::test_compiling_is_refused_however_it_is_asked_for",
    "torch_compile_mode": "training/test_trainer_options.py::test_compiling_is_refused_however_it_is_asked_for",
    "fp16": "training/test_nonfinite.py::test_gradients_beyond_half_precision_cost_steps_and_no_more",
    "use_liger_kernel": "test_wrong_parts.py::test_arguments_out_of_range",
    "liger_kernel_config": "test_wrong_parts.py::test_arguments_out_of_range",
    "neftune_noise_alpha": "test_wrong_parts.py::test_arguments_out_of_range",
    "auto_find_batch_size": "training/test_trainer_options.py::test_a_batch_size_that_was_found_is_as_good_as_given",
    "prediction_loss_only": "training/test_trainer_options.py::test_metrics_that_were_taken_away_and_losses_alone",
    "batch_eval_metrics": "test_trainer.py::test_bad_settings_are_named_before_any_work",
    "save_steps": "test_trainer.py::test_resuming_reproduces_the_uninterrupted_run_bit_for_bit",
    "save_on_each_node": "training/test_checkpoints.py::test_training_ends_where_weights_are_not_written",
    "save_total_limit": "training/test_checkpoints.py::test_only_the_last_checkpoints_are_kept",
    "push_to_hub": "hub/test_hub_training.py::test_trainer_pushes_at_the_end_in_one_commit",
    "hub_model_id": "hub/test_hub_training.py::test_trainer_pushes_at_the_end_in_one_commit",
    "hub_token": "test_trainer.py::test_a_token_given_in_python_is_written_nowhere",
    "hub_private_repo": "hub/test_hub_training.py::test_trainer_pushes_at_the_end_in_one_commit",
    "hub_strategy": "test_trainer.py::test_bad_settings_are_named_before_any_work",
    "hub_always_push": "hub/test_hub_training.py::test_trainer_pushes_every_save_and_survives_a_failure",
    "hub_revision": "hub/test_hub_training.py::test_trainer_pushes_at_the_end_in_one_commit",
    "load_best_model_at_end": "test_trainer.py::test_best_model_early_stopping_and_processor",
    "metric_for_best_model": "test_trainer.py::test_best_model_early_stopping_and_processor",
    "greater_is_better": "hub/test_generated_card.py::test_the_best_model_has_its_own_metrics",
    "ignore_data_skip": "data/test_streaming.py::test_a_streamed_run_resumes_where_it_was",
    "dataloader_num_workers": "data/test_streaming.py::test_a_streamed_run_resumes_where_it_was",
    "dataloader_multiprocessing_context": "data/test_workers.py::test_what_workers_are_sent_reads_the_same",
    "resume_from_checkpoint": "training/test_trainer_options.py::test_resuming_says_what_to_do_in_python",
    "report_to": "test_trainer.py::test_plain_baseline_trains_with_the_same_trainer",
    "use_cpu": "test_trainer.py::test_plain_baseline_trains_with_the_same_trainer",
    "disable_tqdm": "test_trainer.py::test_plain_baseline_trains_with_the_same_trainer",
    "ddp_find_unused_parameters": "training/test_trainer_options.py::test_weights_that_no_forward_uses",
}
# What Trainer alone reads and needs more than a processor: GPUs, several machines, services; or has no effect in it.
UNTRIED = {
    "bf16_full_eval", "fp16_full_eval", "tf32", "use_cache", "log_on_each_node", "include_num_input_tokens_seen",
    "log_level_replica", "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id",
    "optim_target_modules", "eval_do_concat_batches",
    "eval_use_gather_object", "enable_jit_checkpoint", "accelerator_config",
    "parallelism_config", "dataloader_persistent_workers", "dataloader_prefetch_factor", "length_column_name",
    "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph", "ddp_backend", "ddp_timeout", "fsdp",
    "fsdp_config", "deepspeed", "debug", "do_train", "do_eval", "do_predict", "local_rank",
}  # fmt: skip


def test_every_option_has_its_place():
    names = {field.name for field in fields(TrainingArguments)}
    assert TRAINERS.keys() | OURS.keys() | UNTRIED == names
    assert len(TRAINERS) + len(OURS) + len(UNTRIED) == len(names)
    for place in OURS.values():
        file, _, test = place.partition("::")
        assert f"def {test}(" in (Path(__file__).parents[1] / file).read_text(encoding="utf-8")
    ours = signature(AdvBNTrainer.__init__).parameters
    assert {"model", "args", "model_init", "compute_loss_func", "compute_metrics"} < ours.keys()
    for method in ("__init__", "train", "evaluate", "predict", "push_to_hub", "save_model", "create_model_card"):
        theirs = signature(getattr(Trainer, method)).parameters
        taken = signature(getattr(AdvBNTrainer, method)).parameters
        open_ended = any(one.kind is one.VAR_KEYWORD for one in taken.values())
        assert open_ended or theirs.keys() <= taken.keys(), method


@pytest.mark.parametrize("settings", [{"torch_compile_backend": "inductor"}, {"torch_compile_mode": "default"}])
def test_compiling_is_refused_however_it_is_asked_for(settings, tmp_path):
    with pytest.raises(InputError, match="torch_compile"):
        arguments(tmp_path, **settings)


def test_weights_that_no_forward_uses():
    model = tiny_convnext()
    assert unused_weights(model) == []
    model.extra = torch.nn.Linear(2, 2)
    assert unused_weights(model) == ["extra.weight", "extra.bias"]


@pytest.mark.slow
@pytest.mark.parametrize("option", TRAINERS)
def test_an_option_does_what_it_does_in_trainer(option, tmp_path):
    """The same losses, gradient norms, rates and moments of logging, evaluating and saving, for the same loss."""
    runs = []
    for trainer_class, args_class in ((Trainer, TrainingArguments), (AdvBNTrainer, AdvBNTrainingArguments)):
        torch.manual_seed(0)
        model, folder = tiny_convnext(), tmp_path / trainer_class.__name__
        if trainer_class is AdvBNTrainer:
            config = AdvBNConfig(auxiliary_norms=False, freeze_stem=False)
            model = PlainForImageClassification.from_backbone(model, config)
        args = args_class(**vars_of(folder, **WITH.get(option, {}), **{option: TRAINERS[option]}))
        assert getattr(args, option) != getattr(args_class(str(folder), use_cpu=True), option, None) or option in SAME
        trainer = trainer_class(model, args, train_dataset=rows(18), eval_dataset=rows(7))
        trainer.train()
        shown = ("loss", "grad_norm", "learning_rate", "eval_loss", "epoch", "step")
        history = [{name: log[name] for name in shown if name in log} for log in trainer.state.log_history]
        runs.append((history, sorted(path.name for path in folder.glob("checkpoint-*"))))
    (plain, saved), (ours, ours_saved) = runs
    assert [log.keys() for log in ours] == [log.keys() for log in plain]
    for one, other in zip(ours, plain, strict=True):
        assert one == pytest.approx(other, rel=2e-3 if option == "bf16" else 1e-4)
    assert ours_saved == saved


def test_a_loss_of_ones_own_stands_for_every_cross_entropy(tmp_path):
    """With weights of 1 it is the cross entropy itself; with others, both branches and the ascent follow them."""
    runs, items = {}, []

    def weighted(weights):
        def loss(outputs, labels, num_items_in_batch=None):
            items.append(num_items_in_batch)
            return torch.nn.functional.cross_entropy(outputs.logits, labels, weight=torch.tensor(weights))

        return loss

    for name, function in (
        ("none", None),
        ("ones", weighted([1.0] * 5)),
        ("others", weighted([1.0, 5.0, 0.2, 1.0, 3.0])),
    ):
        trainer = AdvBNTrainer(wrap(), arguments(tmp_path), train_dataset=rows(), compute_loss_func=function)
        trainer.train()
        runs[name] = trainer
    assert logged(runs["ones"], "loss_after_ascent") == pytest.approx(
        logged(runs["none"], "loss_after_ascent"), rel=1e-5
    )
    assert logged(runs["others"], "clean_loss")[0] != pytest.approx(logged(runs["none"], "clean_loss")[0], rel=1e-3)
    assert 4 in items  # images of the step

    model, (images, labels) = wrap().train(), images_and_labels(4)
    output = model(images, labels, loss_function=lambda logits, _: logits.square().mean())
    torch.testing.assert_close(output.clean_loss, output.logits.square().mean())
    torch.testing.assert_close(output.adversarial_loss, output.auxiliary_logits.square().mean())


def test_a_loss_of_ones_own_is_also_that_of_the_evaluation(tmp_path):
    doubled = lambda outputs, labels, **_: 2 * torch.nn.functional.cross_entropy(outputs.logits, labels)  # noqa: E731
    plain, own = (
        AdvBNTrainer(wrap(), arguments(tmp_path), eval_dataset=rows(6), compute_loss_func=function).evaluate()
        for function in (None, doubled)
    )
    assert own["eval_loss"] == pytest.approx(2 * plain["eval_loss"], rel=1e-5)


def test_a_loss_of_ones_own_and_label_smoothing_contradict_each_other(tmp_path):
    with pytest.raises(InputError, match="label_smoothing_factor"):
        AdvBNTrainer(wrap(), arguments(tmp_path, label_smoothing_factor=0.1), compute_loss_func=lambda *_, **__: 0)


@pytest.mark.parametrize("make", [wrap, lambda: wrap(), lambda trial: wrap(), lambda a=1, b=2: wrap()])
def test_a_model_made_for_each_training(make, tmp_path):
    trainer = AdvBNTrainer(args=arguments(tmp_path), model_init=make, train_dataset=rows())
    weights = []
    for _ in range(2):
        trainer.train()
        weights.append({name: tensor.clone() for name, tensor in trainer.model.state_dict().items()})
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_a_made_model_is_checked_and_set_up(tmp_path):
    with pytest.raises(InputError, match="model"):
        AdvBNTrainer(args=arguments(tmp_path), model_init=tiny_convnext)
    with pytest.raises(InputError, match="model_init"):
        AdvBNTrainer(wrap(), arguments(tmp_path), model_init=wrap)
    with pytest.raises(InputError, match="num_perturbations"):
        AdvBNTrainer(args=arguments(tmp_path), model_init=lambda: wrap(num_perturbations=64))


@pytest.mark.parametrize(
    ("ignored", "branches"),
    [([], {"clean", "auxiliary"}), (["auxiliary_logits"], {"clean"}), (["logits"], {"auxiliary"}),
     (["logits", "auxiliary_logits"], set())],
)  # fmt: skip
@pytest.mark.parametrize("count", [2, 6])
def test_ignored_keys(ignored, branches, count, tmp_path):
    model = wrap()
    move_auxiliary_norms(model)
    trainer = AdvBNTrainer(model, arguments(tmp_path), eval_dataset=rows(count))
    metrics = trainer.evaluate(ignore_keys=ignored)
    assert {name.split("_")[1] for name in metrics if name.endswith("_accuracy")} == branches
    predictions = trainer.predict(rows(count), ignore_keys=ignored).predictions
    if branches:
        expected = model.eval()(torch.stack([row["pixel_values"] for row in rows(count)]), branch="both")
        logits = expected.logits if "clean" in branches else expected.auxiliary_logits
        torch.testing.assert_close(torch.tensor(predictions), logits.detach(), rtol=1e-4, atol=1e-4)


def test_a_compute_loss_of_ones_own_may_return_the_models_output(tmp_path):
    class Own(AdvBNTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            outputs = model(**inputs)
            return (outputs.loss, outputs) if return_outputs else outputs.loss

    output = Own(wrap(), arguments(tmp_path)).predict(rows(6))
    assert output.predictions.shape == (6, 5)
    assert "test_clean_accuracy" in output.metrics


def test_metrics_that_were_taken_away_and_losses_alone(tmp_path):
    trainer = AdvBNTrainer(wrap(), arguments(tmp_path), eval_dataset=rows(6))
    trainer.compute_metrics = None
    assert "eval_clean_accuracy" not in trainer.evaluate()
    unlabelled = [{"pixel_values": row["pixel_values"]} for row in rows(6)]
    output = AdvBNTrainer(wrap(), arguments(tmp_path, prediction_loss_only=True)).predict(unlabelled)
    assert output.predictions is None


@pytest.mark.parametrize(
    ("settings", "decays"),
    [
        ({"max_steps": 9, "lr_decay_epochs": 1}, [4, 8]),
        ({"max_steps": 9, "lr_decay_epochs": 1, "gradient_accumulation_steps": 2}, [2, 4, 6, 8]),
        ({"max_steps": -1, "num_train_epochs": 3, "lr_decay_epochs": 2}, [8]),
    ],
)
def test_the_learning_rate_decays_by_epochs_whatever_ends_the_training(settings, decays, tmp_path):
    args = arguments(tmp_path, learning_rate=1.0, optim="sgd", **settings)
    trainer = AdvBNTrainer(wrap(), args, train_dataset=rows())
    trainer.train()
    rates = list(pairwise(logged(trainer, "learning_rate")))
    assert [step for step, (before, after) in enumerate(rates, 1) if after < 0.5 * before] == decays


class Once(TrainerCallback):
    """Raises an error after one step, the first time."""

    def __init__(self, step, error):
        self.step, self.error = step, error

    def on_step_end(self, args, state, control, **kwargs):
        if self.error is not None and state.global_step == self.step:
            error, self.error = self.error, None
            raise error


def test_what_is_logged_after_an_error_is_of_the_training_alone(tmp_path):
    settings = {"logging_steps": 4, "learning_rate": 0.0}
    failing = AdvBNTrainer(wrap(), arguments(tmp_path, **settings), train_dataset=rows(),
                           callbacks=[Once(3, ValueError("a cell that fails"))])  # fmt: skip
    with pytest.raises(ValueError, match="a cell"):
        failing.train()
    failing.train()
    undisturbed = AdvBNTrainer(wrap(), arguments(tmp_path, **settings), train_dataset=rows())
    undisturbed.train()
    timed = ("train_runtime", "train_samples_per_second", "train_steps_per_second")
    for one, other in zip(failing.state.log_history, undisturbed.state.log_history, strict=True):
        assert {k: v for k, v in one.items() if k not in timed} == {k: v for k, v in other.items() if k not in timed}


def test_a_batch_size_that_was_found_is_as_good_as_given(tmp_path):
    class TooLarge(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.train_batch_size >= 8:
                raise RuntimeError("CUDA out of memory.")

    settings = {"max_steps": 1, "learning_rate": 0.0, "train_sampling_strategy": "sequential"}
    found = AdvBNTrainer(
        wrap(),
        arguments(tmp_path, **settings, auto_find_batch_size=True, per_device_train_batch_size=8),
        train_dataset=rows(32),
        callbacks=[TooLarge()],
    )
    found.train()
    given = arguments(tmp_path, **settings, per_device_train_batch_size=found._train_batch_size)
    given = AdvBNTrainer(wrap(), given, train_dataset=rows(32))
    given.train()
    for name in ("loss", "clean_loss", "adversarial_loss", "clean_accuracy"):
        assert logged(found, name) == pytest.approx(logged(given, name), rel=1e-5)


def test_operations_are_estimated_as_trainer_does_for_the_backbone(tmp_path):
    trainer = AdvBNTrainer(wrap(), arguments(tmp_path), train_dataset=rows())
    trainer.train()
    batch = {"pixel_values": torch.zeros(4, 3, 32, 32)}
    per_step = 6 * batch["pixel_values"].numel() * trainer.model.backbone.num_parameters(exclude_embeddings=True)
    assert trainer.state.total_flos == 4 * per_step > 0


def test_a_state_dict_is_taken_apart_by_branch(tmp_path):
    model, other = wrap(tiny_resnet()), wrap(tiny_resnet())
    move_auxiliary_norms(model)
    other.save_pretrained(tmp_path, state_dict=model.state_dict())
    assert models_equal(AdvBNForImageClassification.from_pretrained(tmp_path), model)


@pytest.mark.parametrize("where", ["run", "runs/first"])
def test_a_checkpoint_in_a_folder_of_a_repository(where, tmp_path):
    model = wrap(tiny_resnet())
    move_auxiliary_norms(model)
    model.save_pretrained(tmp_path / where)
    loaded = AdvBNForImageClassification.from_pretrained(
        tmp_path, subfolder=where, trust_remote_code=False, output_loading_info=False
    )
    assert models_equal(loaded, model)


@pytest.mark.parametrize("option", ["trust_remote_code", "output_loading_info"])
def test_options_of_loading_that_are_refused(option, tmp_path):
    wrap().save_pretrained(tmp_path)
    with pytest.raises(InputError, match=option):
        AdvBNForImageClassification.from_pretrained(tmp_path, **{option: True})


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_loop_of_ones_own_is_seeded_and_resumed(share, tmp_path):
    accelerator, (images, labels) = Accelerator(cpu=True), images_and_labels(8)
    model = wrap(adversarial_share=share).train()
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 0.05))

    def step():
        optimizer.zero_grad()
        loss = model(images, labels).loss
        accelerator.backward(loss)
        optimizer.step()
        return loss.item()

    step()
    accelerator.save_state(str(tmp_path))
    after = [step(), step()]
    accelerator.load_state(str(tmp_path))
    assert [step(), step()] == after
    losses = []
    for _ in range(2):
        accelerator.load_state(str(tmp_path))
        set_seed(3)
        losses.append(step())
    assert losses[0] == losses[1]
    assert losses[0] != after[0]


def test_soft_labels_are_probabilities(tmp_path):
    """As MixUp and CutMix make them; one-hot ones are the labels."""
    images, labels = images_and_labels(4)
    model = wrap().train()
    hard, soft = labels, torch.nn.functional.one_hot(labels, 5).float()
    losses = []
    for given in (hard, soft):
        model.manual_seed(5)
        losses.append(model(images, given).loss)
    torch.testing.assert_close(*losses)

    def collate(batch):
        pixel_values = torch.stack([row["pixel_values"] for row in batch])
        one_hot = torch.eye(5)[[row["labels"] for row in batch]]
        return {"pixel_values": pixel_values, "labels": 0.7 * one_hot + 0.3 * one_hot.flip(0)}

    trainer = AdvBNTrainer(
        wrap(), arguments(tmp_path), train_dataset=rows(), eval_dataset=rows(6), data_collator=collate
    )
    trainer.train()
    assert all(0 <= value <= 1 for value in logged(trainer, "clean_accuracy"))
    assert 0 <= trainer.evaluate()["eval_clean_accuracy"] <= 1


@pytest.mark.parametrize("name", ["branch", "smoothing", "recording", "measure_ascent", "loss_function"])
def test_a_column_called_as_an_argument_of_forward_is_refused(name, tmp_path):
    named = [row | {name: 0.5} for row in rows()]
    with pytest.raises(InputError, match=name):
        AdvBNTrainer(wrap(), arguments(tmp_path), train_dataset=named).train()
    with pytest.raises(InputError, match=name):
        AdvBNTrainer(wrap(), arguments(tmp_path)).predict(named)


def test_resuming_says_what_to_do_in_python(tmp_path):
    trainer = AdvBNTrainer(wrap(), arguments(tmp_path, save_strategy="steps", save_steps=2), train_dataset=rows())
    trainer.train()

    def resumed(place, **settings):
        again = AdvBNTrainer(wrap(), arguments(tmp_path, max_steps=6, **settings), train_dataset=rows())
        return again.train(resume_from_checkpoint=place)

    assert resumed("last").global_step == resumed(True).global_step == 6
    with pytest.raises(InputError, match=r"there is no folder .*nowhere"):
        resumed(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"checkpoint-4"):
        resumed(str(tmp_path))
    with pytest.raises(InputError, match=r"optim"):
        resumed(True, optim="sgd")
