"""Ctrl-C and SIGTERM end a training after the current step, with a checkpoint to resume from; all else, at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..utils.advice import how_to_resume

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class StopAfterStep(TrainerCallback):
    """Saves a checkpoint after the step in which a signal arrives, then raises `KeyboardInterrupt`.

    Processes agree after each step, so that all stop after the same one, whichever of them a signal reaches.
    """

    def __init__(self) -> None:
        self.received = 0  # the signal's number
        self.group: dist.ProcessGroup | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catches signals within the block; one that came too late for a checkpoint is raised again afterwards.

        Handlers belong to the main thread: in any other thread this does nothing.
        """
        before = {}
        if threading.current_thread() is threading.main_thread():
            # What is ignored (as under nohup) stays ignored.
            before = {number: signal.getsignal(number) for number in _NAMES}
            before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
        self.received = 0
        if dist.is_initialized():
            self.group = dist.new_group(backend="gloo")  # on the CPU, so that no step waits for the device
        for number in before:
            signal.signal(number, self._receive)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if self.group is not None:
                dist.destroy_process_group(self.group)
                self.group = None
        if self.received:
            signal.raise_signal(self.received)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = number

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Requests a checkpoint, and no evaluation before it, where any process received a signal."""
        if self.group is not None:
            received = torch.tensor(self.received)
            dist.all_reduce(received, dist.ReduceOp.MAX, self.group)
            self.received = int(received)
        if self.received:
            control.should_save, control.should_evaluate = True, False

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stops, now that there is a checkpoint."""
        if self.received:
            raise KeyboardInterrupt(
                f"stopped by {_NAMES[signal.Signals(self.received)]} after step {state.global_step} of "
                f"{state.max_steps}, which is saved in {args.output_dir}; resume with {how_to_resume()}"
            )
