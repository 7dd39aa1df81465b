"""The fine-tuning recipe in processes of their own, to be killed or to meet."""

import os
import signal
import sys
import time
from multiprocessing.connection import Connection

import finetune
from processes import FORK, become_a_process_of_its_own
from transformers.trainer_utils import TrainOutput

from advbn_hf import AdvBNTrainer
from advbn_hf.utils.cli import run


class RecipeProcess:
    """The recipe in a process of its own, which reports when training begins and when each save begins and ends.

    Args:
        arguments: the command line without the program's name.
    """

    def __init__(self, arguments: list[str]) -> None:
        self.reports, end = FORK.Pipe(duplex=False)
        self.events: list[tuple[str, float]] = []
        self.process = FORK.Process(target=_fine_tune, args=(arguments, end))
        self.process.start()
        end.close()

    def wait_for(self, count: int) -> None:
        """Waits until it has reported so many events, or has ended."""
        try:
            while len(self.events) < count:
                self.events.append(self.reports.recv())
        except EOFError:
            self.process.join()

    def wait(self) -> int:
        """Waits until it has ended; its exit code."""
        self.wait_for(sys.maxsize)
        return self.process.exitcode

    def kill(self) -> bool:
        """Sends SIGKILL; whether that ended it, rather than the end of its work."""
        os.kill(self.process.pid, signal.SIGKILL)
        return self.wait() == -signal.SIGKILL


def _fine_tune(arguments: list[str], reports: Connection) -> None:
    become_a_process_of_its_own()
    train, save = AdvBNTrainer.train, AdvBNTrainer._save_checkpoint

    def reporting_train(trainer: AdvBNTrainer, *args: object, **kwargs: object) -> TrainOutput:
        reports.send(("training", time.monotonic()))
        return train(trainer, *args, **kwargs)

    def reporting_save(trainer: AdvBNTrainer, *args: object) -> None:
        reports.send(("saving", time.monotonic()))
        save(trainer, *args)
        reports.send(("saved", time.monotonic()))

    AdvBNTrainer.train, AdvBNTrainer._save_checkpoint = reporting_train, reporting_save
    for plot in ("plot_gain", "plot_samples", "plot_training"):  # they would take a third of the time
        setattr(finetune, plot, lambda *args: None)
    sys.argv = ["finetune.py", *arguments]
    run(finetune.main)
