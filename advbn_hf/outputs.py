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
        ascent_gain: scalar, by how much the ascent raised the mean loss that it climbs; where it was asked for.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    auxiliary_logits: Tensor | None = None
    clean_loss: Tensor | None = None
    adversarial_loss: Tensor | None = None
    ascent_gain: Tensor | None = None


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float, reduction: str = "mean") -> Tensor:
    """Cross entropy in float32 of logits (B, K) and labels (B,), with label smoothing in 0..1."""
    return F.cross_entropy(logits.float(), labels, label_smoothing=smoothing, reduction=reduction)
