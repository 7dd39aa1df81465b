"""What `test_interrupts.py` starts on two processes: one gets SIGTERM, and both must end with one checkpoint."""

import os
import signal
from pathlib import Path

from builders import rows, tiny_convnext
from transformers import TrainerCallback

from advbn_hf import AdvBNForImageClassification, AdvBNTrainer, AdvBNTrainingArguments


class Terminated(TrainerCallback):
    """Sends the signal to the second process while it is in step 3."""

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 2 and args.process_index == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def main(output_dir: str | Path) -> None:
    """Trains until the signal; each process prints how it ended."""
    args = AdvBNTrainingArguments(
        output_dir, max_steps=50, save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True
    )
    model = AdvBNForImageClassification.from_backbone(tiny_convnext())
    trainer = AdvBNTrainer(model, args, train_dataset=rows(32), callbacks=[Terminated()])
    try:
        trainer.train()
    except KeyboardInterrupt as stop:
        print(f"rank {args.process_index}: {stop}\n", end="", flush=True)
