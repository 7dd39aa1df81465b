"""What `test_processes_death.py` starts on two processes: one is killed in its third step."""

import os
import signal
import sys
import time
from pathlib import Path

from builders import rows, tiny_convnext
from transformers import TrainerCallback

from advbn_hf import AdvBNForImageClassification, AdvBNTrainer, AdvBNTrainingArguments


class Dies(TrainerCallback):
    """Kills one process at an event, and writes the time."""

    def __init__(self, output_dir: str, rank: int, event: str) -> None:
        self.output_dir, self.rank = Path(output_dir), rank
        setattr(self, event, self.die)

    def die(self, args, state, control, **kwargs):
        if state.global_step == 3 and args.process_index == self.rank:
            (self.output_dir / "died").write_text(str(time.time()))
            os.kill(os.getpid(), signal.SIGKILL)


def main(output_dir: str, rank: str, event: str) -> None:
    """Trains until then; each process writes its id."""
    args = AdvBNTrainingArguments(
        output_dir, max_steps=50, save_steps=3, report_to="none", use_cpu=True, disable_tqdm=True
    )
    (Path(output_dir) / f"rank{args.process_index}.pid").write_text(str(os.getpid()))
    model = AdvBNForImageClassification.from_backbone(tiny_convnext())
    AdvBNTrainer(model, args, train_dataset=rows(32), callbacks=[Dies(output_dir, int(rank), event)]).train()


if __name__ == "__main__":
    main(*sys.argv[1:])
