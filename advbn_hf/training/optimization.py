"""Optimiser and schedule, as `AdvBNTrainingArguments` asks for them, by documented hooks of `Trainer`."""

import math
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, StepLR
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import has_length

from ..errors import InputError
from ..training_args import AdvBNTrainingArguments


class OptimizationMixin(Trainer):
    """What the published recipe needs beside Trainer's own optimisers and schedules."""

    _step_decay: StepLR | None = None
    _own_optimizer: torch.optim.Optimizer | None = None  # the one that was created here

    def _check_given_optimizer(self, args: AdvBNTrainingArguments) -> None:
        """Checks that no option is of an optimiser or schedule that stands back for one that was given.

        Raises:
            InputError: names the option.
        """
        if self.lr_scheduler is not None and args.lr_decay_epochs is not None:
            raise InputError("lr_decay_epochs: optimizers has a schedule of its own; leave out one")
        if self.optimizer is not None and args.decay_norms_and_biases:
            raise InputError(
                "decay_norms_and_biases: optimizers has an optimiser with groups of its own; leave it out"
            )

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """As `Trainer.create_optimizer`; remembers whose it is."""
        is_given = self.optimizer is not None
        optimizer = super().create_optimizer(*args, **kwargs)
        if not is_given:
            self._own_optimizer = optimizer
        return optimizer

    def _drop_own_optimizer(self) -> None:
        """Has an optimiser of earlier training created again, by the arguments of now; a given one stays."""
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)  # without what Accelerate has put around it
        if optimizer is not None and optimizer is self._own_optimizer:
            self.optimizer = None

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """The scheduler of `lr_scheduler_type`, or steps of x0.1 every `lr_decay_epochs`."""
        if self.args.lr_decay_epochs is None or self.lr_scheduler not in (None, self._step_decay):
            return super().create_scheduler(num_training_steps, optimizer)
        every = max(round(self.args.lr_decay_epochs * self._steps_per_epoch(num_training_steps)), 1)
        self._created_lr_scheduler = True  # so that another `train` makes another
        self.lr_scheduler = self._step_decay = StepLR(optimizer or self.optimizer, step_size=every, gamma=0.1)
        return self.lr_scheduler

    def _steps_per_epoch(self, num_training_steps: int) -> float:
        """Optimizer steps of an epoch, as Trainer counts them.

        Raises:
            InputError: `max_steps` ends the training, and the training rows have no length.
        """
        if self.args.max_steps <= 0:
            return num_training_steps / self.args.num_train_epochs
        loader = self.get_train_dataloader()
        if not has_length(loader):
            raise InputError("lr_decay_epochs: rows without a length have no epochs; use lr_scheduler_type")
        return max(math.ceil(len(loader) / self.args.gradient_accumulation_steps), 1)

    @staticmethod
    def get_optimizer_cls_and_kwargs(
        args: TrainingArguments, model: nn.Module | None = None
    ) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        """As `Trainer.get_optimizer_cls_and_kwargs`, but SGD is fused too: one pass over the weights."""
        optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
        if optimizer_class is torch.optim.SGD:
            options["fused"] = not args.fp16  # where loss scaling skips its first step, momentum is never filled
        return optimizer_class, options

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Names of the parameters that weight decay acts on."""
        if self.args.decay_norms_and_biases:
            return [name for name, _ in model.named_parameters()]
        return super().get_decay_parameter_names(model)
