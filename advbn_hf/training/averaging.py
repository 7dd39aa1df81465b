"""A moving average of the weights along a run, which the run evaluates, saves and ends with."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..errors import InputError

LAST_WEIGHTS_FILE = "last_weights.safetensors"  # of a checkpoint whose own weights are averages


class WeightAverage(TrainerCallback):
    """average <- decay * average + (1 - decay) * weights after each step, running statistics included.

    It starts with the weights after the first step. Where there is no decay, nothing is averaged. Statistics are
    averaged like weights, so that a checkpoint needs no pass over the data; `advbn interpolate` can re-estimate them.

    Args:
        decay: above 0, below 1; None for no average.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> average = WeightAverage(0.5)
        >>> average.start(model)
        >>> before = model.weight.item()
        >>> _ = model.weight.data.add_(1)
        >>> average.update(model)
        >>> with average.in_place_of_weights(model):
        ...     round(model.weight.item() - before, 3)
        0.5
    """

    def __init__(self, decay: float | None) -> None:
        self.decay = decay
        self.values: dict[str, Tensor] = {}  # while training, by the name of the weight or statistic
        self._checkpoint: str | None = None

    def resume(self, checkpoint: str | None) -> None:
        """Has the run that begins start from a checkpoint; None for a new run.

        Raises:
            InputError: the checkpoint is of a run with an average and this has none, or the reverse.
        """
        if checkpoint is not None and (Path(checkpoint) / LAST_WEIGHTS_FILE).exists() != (self.decay is not None):
            fix = "was trained without: leave it out" if self.decay is not None else "was trained with one: add it"
            raise InputError(f"ema_decay: {checkpoint} {fix}, or restart in another output_dir")
        self.values, self._checkpoint = {}, checkpoint

    def start(self, model: nn.Module) -> None:
        """Takes the model's weights, or the checkpoint's averages that it holds, for the average so far."""
        self.values = {name: tensor.detach().clone() for name, tensor in _moving(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Moves the average towards the model's weights."""
        for name, tensor in _moving(model).items():
            average = self.values[name]
            if tensor.is_floating_point():
                average.lerp_(tensor, 1 - self.decay)
            else:  # the number of batches that a batch norm has seen
                average.copy_(tensor)

    @contextmanager
    def in_place_of_weights(self, model: nn.Module) -> Iterator[None]:
        """The model holds the averages within the block, if there are any."""
        if not self.values:
            yield
            return
        last = {name: tensor.detach().clone() for name, tensor in _moving(model).items()}
        _copy(self.values, model)
        try:
            yield
        finally:
            _copy(last, model)

    def save_last(self, folder: Path, model: nn.Module) -> None:
        """Writes the weights that the average moves towards, from which a run resumes, beside the averages."""
        if self.values:
            last = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in _moving(model).items()}
            save_file(last, folder / LAST_WEIGHTS_FILE)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A resumed run's model holds the averages."""
        if self.decay is None:
            return
        self.start(kwargs["model"])
        if self._checkpoint is not None:
            _copy(load_file(Path(self._checkpoint) / LAST_WEIGHTS_FILE), kwargs["model"])

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """After each optimiser step."""
        if self.decay is None:
            return
        if state.global_step == 1:
            self.start(kwargs["model"])
        else:
            self.update(kwargs["model"])

    def end(self, model: nn.Module, keep_weights: bool = False) -> None:
        """Gives the model the averages for good, if there are any.

        Args:
            model: to change.
            keep_weights: leave the model as it is, such as the best checkpoint, whose weights are averages already.
        """
        if self.values and not keep_weights:
            _copy(self.values, model)
        self.values = {}


def _moving(model: nn.Module) -> dict[str, Tensor]:
    """What training changes: weights that are not frozen, and buffers."""
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    return {**weights, **dict(model.named_buffers())}


@torch.no_grad()
def _copy(values: dict[str, Tensor], model: nn.Module) -> None:
    for name, tensor in _moving(model).items():
        tensor.copy_(values[name])
