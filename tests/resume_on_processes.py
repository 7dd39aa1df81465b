"""What `test_processes_resume.py` starts on two processes: a whole run and one that goes on from a checkpoint."""

import sys
from pathlib import Path

import torch
from builders import rows, tiny_resnet

from advbn_hf import AdvBNForImageClassification, AdvBNTrainer, AdvBNTrainingArguments


def train(output_dir: str, resume_from: str | None = None) -> dict:
    """Five steps over 21 pictures, of which two processes make two whole batches and a short one."""
    args = AdvBNTrainingArguments(
        output_dir,
        max_steps=5,
        per_device_train_batch_size=4,
        per_device_eval_batch_size=4,
        optim="sgd",
        optim_args="momentum=0.9",
        learning_rate=0.1,
        save_steps=2,
        eval_strategy="steps",
        eval_steps=5,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    model = AdvBNForImageClassification.from_backbone(tiny_resnet())
    trainer = AdvBNTrainer(model, args, train_dataset=rows(21), eval_dataset=rows(8))
    trainer.train(resume_from_checkpoint=resume_from)
    evaluations = [log for log in trainer.state.log_history if "eval_loss" in log]
    return {"weights": trainer.model.state_dict(), "eval_loss": evaluations[-1]["eval_loss"], "world": args.world_size}


def main(output_dir: str) -> None:
    """Writes `rank<r>.pt`."""
    folder = Path(output_dir)
    whole = train(str(folder / "whole"))
    resumed = train(str(folder / "resumed"), resume_from=str(folder / "whole" / "checkpoint-2"))
    torch.save({"whole": whole, "resumed": resumed}, folder / f"rank{torch.distributed.get_rank()}.pt")


if __name__ == "__main__":
    main(sys.argv[1])
