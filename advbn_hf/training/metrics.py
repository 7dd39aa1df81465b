"""What training steps add to the log: losses and accuracies of each branch, and of the ascent."""

from collections import defaultdict

from accelerate import Accelerator
from torch import Tensor
from transformers import TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from ..method.losses import AdvBNOutput

_LOGGED = (
    "clean_loss",
    "adversarial_loss",
    "ascent_gain",
    "loss_before_ascent",
    "loss_after_ascent",
    "mean_distance",
    "std_distance",
)


class StepLog:
    """Sums what training steps return, on the device, until it is logged."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor | float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def clear(self) -> None:
        """Forgets the steps so far."""
        self._sums.clear()
        self._counts.clear()

    def note(self, output: AdvBNOutput, labels: Tensor) -> None:
        """Adds one step.

        Args:
            output: of the model in train mode.
            labels: (B,) int64, or (B, K) float, probabilities.
        """
        values = {name: getattr(output, name) for name in _LOGGED}
        values["clean_accuracy"] = _accuracy_of(output.logits, labels, output.clean_rows)
        values["auxiliary_accuracy"] = _accuracy_of(output.auxiliary_logits, labels, output.adversarial_rows)
        for name, value in values.items():
            if value is not None:
                self._sums[name] = self._sums[name] + value.detach()
                self._counts[name] += 1

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """The means over steps and processes since the last call."""
        means = {name: accelerator.gather(total / self._counts[name]).mean() for name, total in self._sums.items()}
        self.clear()
        return {name: round(mean.item(), 6) for name, mean in means.items()}


def ascent_is_logged(args: TrainingArguments, state: TrainerState) -> bool:
    """Whether the current step is one that the Trainer logs, or the first of an epoch where it logs epochs."""
    step = state.global_step + 1
    if args.logging_strategy == IntervalStrategy.EPOCH:
        return (state.epoch or 0) % 1 == 0
    every = args.logging_strategy == IntervalStrategy.STEPS and step % state.logging_steps == 0
    return every or (args.logging_first_step and step == 1)


def _accuracy_of(logits: Tensor | None, labels: Tensor, rows: Tensor | None) -> Tensor | None:
    if logits is None:
        return None
    labels = labels if rows is None else labels[rows]
    return (logits.argmax(dim=-1) == (labels if labels.ndim == 1 else labels.argmax(dim=-1))).float().mean()
