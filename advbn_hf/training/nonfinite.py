"""Watching for non-finite (NaN or inf) losses, weights and running statistics."""

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers.utils import logging

from ..errors import InputError
from ..utils.advice import how_to_resume

logger = logging.get_logger(__name__)


def _fix() -> str:
    return f"lower learning_rate or fix the data, then resume with {how_to_resume()}, or restart"


class LossWatch:
    """Remembers on the device the first step whose loss was not finite, so that no step waits for it.

    Args:
        device: of the loss.
    """

    def __init__(self, device: torch.device) -> None:
        self._first = torch.tensor(torch.inf, device=device)

    def reset(self) -> None:
        """Forgets the steps so far."""
        self._first.fill_(torch.inf)

    def note(self, loss: Tensor, step: int) -> None:
        """Checks the loss of one step.

        Args:
            loss: a scalar.
            step: its number, from 1.
        """
        first = torch.where(loss.detach().isfinite(), torch.inf, step)
        self._first = torch.minimum(self._first, first)

    def check(self, accelerator: Accelerator, model: nn.Module) -> None:
        """Stops if a loss was not finite on any process; with loss scaling, which skips such steps, logs a warning.

        Args:
            accelerator: of the run.
            model: what is trained. Its running statistics also include skipped steps, and may stay non-finite.

        Raises:
            InputError: names the step, and what is not finite.
        """
        step = accelerator.gather(self._first).min().item()
        if step == torch.inf:
            return
        if accelerator.scaler is None:
            raise InputError(f"the loss is not finite (NaN or inf) since step {step:.0f}; {_fix()}")
        check_weights(model, int(step))
        logger.warning(f"the loss overflowed at step {step:.0f}; such steps are skipped")
        self.reset()


def check_weights(model: nn.Module, step: int) -> None:
    """Stops before non-finite weights or running statistics are saved.

    Args:
        model: to be saved.
        step: the number of steps it was trained for.

    Raises:
        InputError: names the first such tensor and the step.
    """
    tensors = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    finite = torch.stack([value.isfinite().all() for value in tensors.values()])
    if not finite.all():
        name = next(name for name, is_finite in zip(tensors, finite.tolist(), strict=True) if not is_finite)
        raise InputError(f"{name} is not finite (NaN or inf) after step {step}, so nothing is saved; {_fix()}")
