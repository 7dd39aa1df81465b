"""What `test_processes.py` starts, on one process or several: trains small models and keeps each rank's weights."""

import dataclasses
from pathlib import Path

import torch
from builders import rows, tiny_convnext

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


def train(config: str, accumulation: int, output_dir: str) -> dict:
    """Two steps with batches of 16 images, shared by all processes."""
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
    )
    args.per_device_train_batch_size = 16 // args.world_size
    trainer = AdvBNTrainer(model, args, train_dataset=rows(64), eval_dataset=rows(22))
    trainer.train()
    metrics = trainer.evaluate()
    return {"weights": trainer.model.state_dict(), "starts": starts, "world": args.world_size, "metrics": metrics}


def main(output_dir: str | Path) -> None:
    """Runs every job and writes `rank<r>.pt`."""
    kept = {job: train(*job, output_dir) for job in JOBS}
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    torch.save(kept, Path(output_dir) / f"rank{rank}.pt")
