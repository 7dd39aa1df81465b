"""What `test_processes.py` starts, on one process or several: trains small models and keeps each rank's weights."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from builders import rows, tiny_convnext
from torch.utils.data import IterableDataset
from transformers import EarlyStoppingCallback

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, AdvBNTrainer, AdvBNTrainingArguments
from advbn_hf.method import attack
from advbn_hf.method.attack import starting_multipliers

CONFIGS = {
    "recommended": AdvBNConfig(),
    "half_adversarial": AdvBNConfig(adversarial_share=0.5),
    "four_groups": AdvBNConfig.paper(),
    "two_groups": dataclasses.replace(AdvBNConfig.paper(), num_perturbations=2, random_start=True),
}
JOBS = [(config, accumulation) for config in CONFIGS for accumulation in (1, 2)]
# What DistributedDataParallel is given, by what comes after a config's name.
OPTIONS = {
    "static_graph": {
        "ddp_static_graph": True,
        "ddp_broadcast_buffers": False,
        "ddp_bucket_cap_mb": 1,
        "ddp_backend": "gloo",
        "ddp_timeout": 60,
    }
}
JOBS.append(("recommended static_graph", 1))


class Passing(IterableDataset):
    """Rows without a length."""

    def __iter__(self) -> Iterator[dict]:
        return iter(rows(22))


def train(config: str, accumulation: int, output_dir: str) -> dict:
    """Two steps with batches of 16 images, shared by all processes."""
    config, _, options = config.partition(" ")
    model = AdvBNForImageClassification.from_backbone(tiny_convnext(), CONFIGS[config])
    starts = []
    attack.starting_multipliers = lambda *settings: starts.append(starting_multipliers(*settings)) or starts[-1]
    args = AdvBNTrainingArguments(
        output_dir,
        max_steps=2,
        gradient_accumulation_steps=accumulation,
        optim="sgd",
        learning_rate=0.1,
        max_grad_norm=0,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **(OPTIONS.get(options, {}) if "WORLD_SIZE" in os.environ else {}),
    )
    args.per_device_train_batch_size = 16 // args.world_size
    trainer = AdvBNTrainer(model, args, train_dataset=rows(64), eval_dataset=rows(22))
    trainer.train()
    metrics = trainer.evaluate()
    kept = {
        "weights": trainer.model.state_dict(),
        "starts": list(starts),
        "world": args.world_size,
        "metrics": metrics,
    }
    kept["predictions"] = torch.tensor(trainer.predict(rows(22)).predictions)
    kept["predictions_without_a_length"] = torch.tensor(trainer.predict(Passing()).predictions)
    return kept


def stop_early(output_dir: str) -> dict:
    """Learns nothing, so that the first evaluation stays the best, and two more end the training."""
    args = AdvBNTrainingArguments(
        output_dir,
        max_steps=8,
        learning_rate=1e-12,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="clean_accuracy",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    args.per_device_train_batch_size = 16 // args.world_size
    model = AdvBNForImageClassification.from_backbone(tiny_convnext())
    callbacks = [EarlyStoppingCallback(2)]
    trainer = AdvBNTrainer(model, args, train_dataset=rows(64), eval_dataset=rows(22), callbacks=callbacks)
    trainer.train()
    best = Path(trainer.state.best_model_checkpoint).name
    return {"steps": trainer.state.global_step, "best": (best, trainer.state.best_metric)}


def main(output_dir: str | Path) -> None:
    """Runs every job and writes `rank<r>.pt`."""
    kept = {job: train(*job, output_dir) for job in JOBS} | {"stopped": stop_early(output_dir)}
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    torch.save(kept, Path(output_dir) / f"rank{rank}.pt")
