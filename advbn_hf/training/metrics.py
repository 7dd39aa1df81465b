"""What training steps give beside their loss, for the log."""

from collections import defaultdict

from accelerate import Accelerator
from torch import Tensor

from ..method.losses import AdvBNOutput

_NOTED = (
    "clean_loss",
    "adversarial_loss",
    "ascent_gain",
    "loss_before_ascent",
    "loss_after_ascent",
    "mean_distance",
    "std_distance",
)


class StepLog:
    """Adds up what steps give, on the device, until it is logged."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor | float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def note(self, output: AdvBNOutput, labels: Tensor) -> None:
        """Adds one step.

        Args:
            output: of the model in train mode.
            labels: (B,) int64.
        """
        noted = {name: getattr(output, name) for name in _NOTED}
        noted["clean_accuracy"] = _accuracy_of(output.logits, labels)
        noted["auxiliary_accuracy"] = _accuracy_of(output.auxiliary_logits, labels)
        for name, value in noted.items():
            if value is not None:
                self._sums[name] = self._sums[name] + value.detach()
                self._counts[name] += 1

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """The means over steps and processes since the last call."""
        means = {name: accelerator.gather(total / self._counts[name]).mean() for name, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        return {name: round(mean.item(), 6) for name, mean in means.items()}


def _accuracy_of(logits: Tensor | None, labels: Tensor) -> Tensor | None:
    return None if logits is None else (logits.argmax(dim=-1) == labels).float().mean()
