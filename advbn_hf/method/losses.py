"""What a forward pass returns, and the losses in it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch.nn.functional as F
from torch import Tensor
from transformers.utils import ModelOutput

LossFunction = Callable[[Tensor, Tensor], Tensor]  # of logits (B, K) and labels: a scalar


@dataclass
class AdvBNOutput(ModelOutput):
    """What a forward pass returns, for B images and K classes.

    Args:
        loss: scalar; in train mode the sum of both losses, in eval mode the cross entropy of the branch asked for.
        logits: (B, K), of the branch asked for; of the clean branch in train mode.
        auxiliary_logits: (B, K), in train mode those of the perturbed features; else with `branch="both"` only.
        clean_loss: scalar, cross entropy of the clean branch; in train mode only.
        adversarial_loss: scalar, cross entropy of the perturbed features in the auxiliary branch; in train mode only.
        clean_rows: (B1,) int64, in train mode the images of the batch that the clean branch saw, where these were not
            all: its logits are then (B1, K).
        adversarial_rows: (B2,) int64, the same for the auxiliary branch.
        loss_before_ascent: scalar, mean of the loss that the ascent maximises, at its start; with `measure_ascent`.
        loss_after_ascent: scalar, the same at the multipliers that it found.
        mean_distance: scalar, RMS distance from 1, over channels and groups, of the multipliers of the mean, in
            0..epsilon.
        std_distance: scalar, the same for the multipliers of the standard deviation.

    Example:
        >>> import torch
        >>> output = AdvBNOutput(logits=torch.zeros(8, 10), auxiliary_logits=torch.ones(8, 10))
        >>> list(output)
        ['logits', 'auxiliary_logits']
        >>> output.auxiliary_logits.shape
        torch.Size([8, 10])
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    auxiliary_logits: Tensor | None = None
    clean_loss: Tensor | None = None
    adversarial_loss: Tensor | None = None
    clean_rows: Tensor | None = None
    adversarial_rows: Tensor | None = None
    loss_before_ascent: Tensor | None = None
    loss_after_ascent: Tensor | None = None
    mean_distance: Tensor | None = None
    std_distance: Tensor | None = None

    @property
    def ascent_gain(self) -> Tensor | None:
        """Scalar, by how much the ascent raised the mean loss that it maximises; with `measure_ascent`."""
        return None if self.loss_after_ascent is None else self.loss_after_ascent - self.loss_before_ascent


@dataclass(frozen=True)
class Objective:
    """What a step's logits are compared with, and whether its ascent is measured.

    Args:
        labels: (B,) int64 in 0..K-1, or (B, K) float, probabilities.
        smoothing: label smoothing of every cross entropy, in 0..1.
        measure_ascent: whether ascent statistics are returned, at the cost of two tail passes.
        loss_function: in the place of every cross entropy.
    """

    labels: Tensor
    smoothing: float = 0.0
    measure_ascent: bool = False
    loss_function: LossFunction | None = None

    def loss(self, logits: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
        """Cross entropy of logits (B, K), in float32, or what the loss function makes of them."""
        if self.loss_function is not None:
            loss = self.loss_function(logits.float(), self.labels)
            return loss * len(self.labels) if reduction == "sum" else loss
        return F.cross_entropy(logits.float(), self.labels, label_smoothing=self.smoothing, reduction=reduction)

    def rows(self, index: Tensor) -> "Objective":
        """The same for some of the samples: `index` is (K,) int64."""
        return replace(self, labels=self.labels[index])


def two_branch_output(
    logits: Tensor,
    auxiliary_logits: Tensor,
    objective: Objective,
    auxiliary_objective: Objective | None = None,
    **fields: Tensor,
) -> AdvBNOutput:
    """The joint loss of AdvProp (Xie et al. 2020, equation 3) and AdvBN: the sum of both branches' cross entropies.

    Each is the mean over the images of its branch, however many these are.

    Args:
        logits: (B, K), of the clean branch.
        auxiliary_logits: (B, K), of adversarial inputs in the auxiliary branch.
        objective: what both are compared with, or the clean branch alone.
        auxiliary_objective: what the auxiliary branch is compared with, where its images are others.
        fields: further fields of `AdvBNOutput`.
    """
    clean_loss = objective.loss(logits)
    adversarial_loss = (auxiliary_objective or objective).loss(auxiliary_logits)
    return AdvBNOutput(
        loss=clean_loss + adversarial_loss,
        logits=logits,
        auxiliary_logits=auxiliary_logits,
        clean_loss=clean_loss,
        adversarial_loss=adversarial_loss,
        **fields,
    )
