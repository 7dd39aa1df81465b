"""What a forward pass gives, and the loss in it."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class AdvBNOutput(ModelOutput):
    """What a forward pass gives; B images, K classes.

    Args:
        loss: scalar; in train mode the sum of both losses, in eval mode the cross entropy of the branch asked for.
        logits: (B, K), of the branch asked for; of the clean branch in train mode.
        auxiliary_logits: (B, K), in train mode those of the perturbed features; else with `branch="both"` only.
        clean_loss: scalar, cross entropy of the clean branch; in train mode only.
        adversarial_loss: scalar, cross entropy of the perturbed features in the auxiliary branch; in train mode only.
        loss_before_ascent: scalar, mean of the loss that the ascent climbs, at its start; where it was asked for.
        loss_after_ascent: scalar, the same at the multipliers that it found.
        mean_spread: scalar, how far these multipliers of the mean lie from 1: root mean square over channels and
            groups, in 0..epsilon.
        deviation_spread: scalar, the same for those of the deviation.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    auxiliary_logits: Tensor | None = None
    clean_loss: Tensor | None = None
    adversarial_loss: Tensor | None = None
    loss_before_ascent: Tensor | None = None
    loss_after_ascent: Tensor | None = None
    mean_spread: Tensor | None = None
    deviation_spread: Tensor | None = None

    @property
    def ascent_gain(self) -> Tensor | None:
        """Scalar, by how much the ascent raised the mean loss that it climbs; where it was asked for."""
        return None if self.loss_after_ascent is None else self.loss_after_ascent - self.loss_before_ascent


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float, reduction: str = "mean") -> Tensor:
    """Cross entropy in float32 of logits (B, K) and labels (B,), with label smoothing in 0..1."""
    return F.cross_entropy(logits.float(), labels, label_smoothing=smoothing, reduction=reduction)


def two_branch_output(
    logits: Tensor, auxiliary_logits: Tensor, labels: Tensor, smoothing: float, **measured: Tensor
) -> AdvBNOutput:
    """The joint loss of AdvProp (Xie et al. 2020, equation 3) and AdvBN: the sum of both branches' cross entropies.

    Args:
        logits: (B, K), of the clean branch.
        auxiliary_logits: (B, K), of what is adversarial in the auxiliary branch.
        labels: (B,) int64.
        smoothing: label smoothing, in 0..1.
        measured: fields of `AdvBNOutput` that tell of the ascent.
    """
    clean_loss = cross_entropy(logits, labels, smoothing)
    adversarial_loss = cross_entropy(auxiliary_logits, labels, smoothing)
    return AdvBNOutput(
        loss=clean_loss + adversarial_loss,
        logits=logits,
        auxiliary_logits=auxiliary_logits,
        clean_loss=clean_loss,
        adversarial_loss=adversarial_loss,
        **measured,
    )
