"""Fields of TrainingArguments: each does what it does in Trainer, or is refused."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch
from builders import rows, tiny_convnext, tiny_vit
from datasets import Dataset
from parity import arguments, history, missing_tests, plain_and_ours, train
from transformers import TrainingArguments

from advbn_hf import AdvBNTrainingArguments
from advbn_hf.backbones.tracing import unused_weights
from advbn_hf.data.images import collate
from advbn_hf.errors import InputError

FIELDS = {field.name: field.default for field in fields(AdvBNTrainingArguments)}
# Fields that Trainer alone reads, with a value that is not the default: `AdvBNTrainer` logs what `Trainer` does.
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
    "bf16_full_eval": True,
    "fp16_full_eval": True,
    "eval_do_concat_batches": False,
    "include_num_input_tokens_seen": "all",
    "accelerator_config": {"use_seedable_sampler": False},
    "length_column_name": "size",
    "dataloader_persistent_workers": True,
    "dataloader_prefetch_factor": 3,
    "debug": "underflow_overflow",
    "use_cache": True,
}


WITH = {
    "lr_scheduler_kwargs": {"lr_scheduler_type": "cosine_with_restarts"},
    "eval_steps": {"eval_strategy": "steps", "max_steps": 4},
    "eval_delay": {"eval_strategy": "steps", "eval_steps": 1},
    "save_only_model": {"save_strategy": "steps", "save_steps": 2},
    "num_train_epochs": {"max_steps": -1},
    "skip_memory_metrics": {"max_steps": 1},
    "include_for_metrics": {"eval_strategy": "epoch"},
    "bf16_full_eval": {"eval_strategy": "epoch"},
    "fp16_full_eval": {"eval_strategy": "epoch"},
    "eval_do_concat_batches": {"eval_strategy": "epoch", "per_device_eval_batch_size": 3},
    "length_column_name": {"train_sampling_strategy": "group_by_length", "remove_unused_columns": False},
    "dataloader_persistent_workers": {"dataloader_num_workers": 1},
    "dataloader_prefetch_factor": {"dataloader_num_workers": 1},
}


def sized_rows(_model):
    """Rows with a column of sizes, which would bring like ones together."""
    columns = {name: [row[name] for row in rows(18)] for name in ("pixel_values", "labels")}
    sized = Dataset.from_dict({**columns, "size": [index % 5 for index in range(18)]})
    return {"train_dataset": sized.with_format("torch"), "data_collator": collate}


GIVEN = {"length_column_name": sized_rows}


PROCESSES = "training/test_processes.py::test_two_processes_equal_one_with_the_joint_batch"
OURS = {
    "output_dir": "test_trainer.py::test_every_checkpoint_has_both_branches_and_no_pickled_arguments",
    "optim_args": "test_trainer.py::test_accumulating_four_batches_equals_one_large_batch",
    "activation_checkpointing": "backbones/test_activation_checkpointing.py::test_trainer_switches_it_on",
    "activation_checkpointing_kwargs": "backbones/test_activation_checkpointing.py::test_trainer_switches_it_on",
    "gradient_checkpointing": "backbones/test_activation_checkpointing.py::test_trainer_switches_it_on",
    "gradient_checkpointing_kwargs": "backbones/test_activation_checkpointing.py::test_trainer_switches_it_on",
    "torch_compile": "training/test_compile.py::test_what_does_not_go_together",
    "torch_compile_backend": "training/test_training_arguments.py::test_what_cannot_work_is_refused",
    "torch_compile_mode": "training/test_training_arguments.py::test_what_cannot_work_is_refused",
    "fp16": "training/test_nonfinite.py::test_gradients_beyond_half_precision_cost_steps_and_no_more",
    "eval_use_gather_object": "training/test_training_arguments.py::test_what_cannot_work_is_refused",
    "enable_jit_checkpoint": "training/test_training_arguments.py::test_what_cannot_work_is_refused",
    "do_predict": "recipes/test_finetune.py::test_mistakes_end_in_one_line_before_any_work",
    "use_liger_kernel": "test_wrong_parts.py::test_arguments_out_of_range",
    "liger_kernel_config": "test_wrong_parts.py::test_arguments_out_of_range",
    "neftune_noise_alpha": "test_wrong_parts.py::test_arguments_out_of_range",
    "auto_find_batch_size": "training/test_trainer_habits.py::test_a_batch_size_that_was_found_is_as_good_as_given",
    "prediction_loss_only": "training/test_trainer_methods.py::test_metrics_that_were_taken_away_and_losses_alone",
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
    "resume_from_checkpoint": "training/test_trainer_habits.py::test_resuming_says_what_to_do_in_python",
    "report_to": "test_trainer.py::test_plain_baseline_trains_with_the_same_trainer",
    "use_cpu": "test_trainer.py::test_plain_baseline_trains_with_the_same_trainer",
    "disable_tqdm": "test_trainer.py::test_plain_baseline_trains_with_the_same_trainer",
    "ddp_static_graph": PROCESSES,
    "ddp_broadcast_buffers": PROCESSES,
    "ddp_bucket_cap_mb": PROCESSES,
    "ddp_backend": PROCESSES,
    "ddp_timeout": PROCESSES,
    "ddp_find_unused_parameters": "training/test_training_arguments.py::test_weights_that_no_forward_uses",
}


# What Trainer alone reads, and what a trial of it would need.
UNTRIED = {
    "tf32": "GPUs of NVIDIA",
    "optim_target_modules": "optimisers of other packages, such as GaLore's",
    **dict.fromkeys(("log_on_each_node", "log_level_replica", "local_rank"), "several machines"),
    **dict.fromkeys(("project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"), "a service"),
    **dict.fromkeys(("do_train", "do_eval"), "nothing: scripts read them, which Trainer does not"),
    **dict.fromkeys(("fsdp", "fsdp_config", "deepspeed", "parallelism_config"), "several GPUs"),
}


def test_every_option_has_its_place():
    """A field that another version of Transformers adds is named here."""
    tables = [TRAINERS.keys(), OURS.keys(), UNTRIED.keys()]
    assert {field.name for field in fields(TrainingArguments)} - set().union(*tables) == set()
    assert sum(map(len, tables)) == len(set().union(*tables))
    assert missing_tests(OURS.values()) == []
    assert [option for option, value in TRAINERS.items() if value == FIELDS.get(option)] == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("torch_compile_backend", "inductor"),
        ("torch_compile_mode", "default"),
        ("enable_jit_checkpoint", True),
        ("eval_use_gather_object", True),
    ],
)
def test_what_cannot_work_is_refused(option, value, tmp_path):
    with pytest.raises(InputError, match=option.removesuffix("_backend").removesuffix("_mode")):
        arguments(tmp_path, **{option: value})


@pytest.mark.parametrize("option", [{"warmup_steps": 2}, {"lr_scheduler_kwargs": {"num_cycles": 2}}])
def test_a_schedule_and_options_of_another_contradict_each_other(option, tmp_path):
    with pytest.raises(InputError, match=next(iter(option))):
        arguments(tmp_path, lr_decay_epochs=1, **option)


def test_weights_that_no_forward_uses():
    model = tiny_convnext()
    assert unused_weights(model) == []
    model.extra = torch.nn.Linear(2, 2)
    assert unused_weights(model) == ["extra.weight", "extra.bias"]


@pytest.mark.slow
@pytest.mark.parametrize("option", [option for option in TRAINERS if option in FIELDS])
def test_an_option_does_what_it_does_in_trainer(option, tmp_path):
    """The same losses, gradient norms, rates and moments of logging, evaluating and saving, for the same loss."""
    settings = {"max_steps": 3} | WITH.get(option, {}) | {option: TRAINERS[option]}
    plain, ours = plain_and_ours(tmp_path, tiny_vit if "full_eval" in option else tiny_convnext,
                                            GIVEN.get(option), **settings)  # fmt: skip
    train(plain, ours)
    assert [log.keys() for log in history(ours)] == [log.keys() for log in history(plain)]
    for one, other in zip(history(ours), history(plain), strict=True):
        assert one == pytest.approx(other, rel=2e-3 if option == "bf16" else 1e-4)
    assert saved(ours) == saved(plain)


def saved(trainer):
    return sorted(path.name for path in Path(trainer.args.output_dir).glob("checkpoint-*"))
