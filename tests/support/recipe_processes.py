"""The fine-tuning recipe in processes of their own, to be killed or to meet."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection

import finetune
import torch
from tqdm import tqdm
from transformers.trainer_utils import TrainOutput

from advbn_hf import AdvBNTrainer
from advbn_hf.utils.cli import run

FORK = multiprocessing.get_context("fork")


class RecipeProcess:
    """The recipe in a process of its own, which tells when it begins to train, and when it begins and ends to save.

    Args:
        arguments: the command line without the program's name.
    """

    def __init__(self, arguments: list[str]) -> None:
        self.told, end = FORK.Pipe(duplex=False)
        self.heard: list[tuple[str, float]] = []
        self.process = FORK.Process(target=_fine_tune, args=(arguments, end))
        self.process.start()
        end.close()

    def hear(self, count: int) -> None:
        """Waits until it has told so many things, or has ended."""
        try:
            while len(self.heard) < count:
                self.heard.append(self.told.recv())
        except EOFError:
            self.process.join()

    def end(self) -> int:
        """Waits until it has ended; its exit code."""
        self.hear(sys.maxsize)
        return self.process.exitcode

    def kill(self) -> bool:
        """Whether that ended it, and not the end of its work."""
        os.kill(self.process.pid, signal.SIGKILL)
        return self.end() == -signal.SIGKILL


def _fine_tune(arguments: list[str], told: Connection) -> None:
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own one is shared with all forks, and the killed one may have held it
    train, save = AdvBNTrainer.train, AdvBNTrainer._save_checkpoint

    def telling_of_training(trainer: AdvBNTrainer, *args: object, **kwargs: object) -> TrainOutput:
        told.send(("training", time.monotonic()))
        return train(trainer, *args, **kwargs)

    def telling_of_saving(trainer: AdvBNTrainer, *args: object) -> None:
        told.send(("saving", time.monotonic()))
        save(trainer, *args)
        told.send(("saved", time.monotonic()))

    AdvBNTrainer.train, AdvBNTrainer._save_checkpoint = telling_of_training, telling_of_saving
    for plot in ("plot_gain", "plot_samples", "plot_training"):  # they would take a third of the time
        setattr(finetune, plot, lambda *args: None)
    sys.argv = ["finetune.py", *arguments]
    run(finetune.main)
