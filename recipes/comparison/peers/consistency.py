"""Answers that shall agree: the Jensen-Shannon divergence, between augmented views or between both branches."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from advbn_hf.backbones.split import Recording
from advbn_hf.config import AdvBNConfig
from advbn_hf.errors import InputError
from advbn_hf.method.losses import AdvBNOutput, Objective
from advbn_hf.modeling import AdvBNForImageClassification


def jensen_shannon(*logits: Tensor) -> Tensor:
    """Mean over the images of the Jensen-Shannon divergence (nats) of several answers, each logits (B, K).

    Equation 2 of Hendrycks et al., "AugMix", ICLR 2020: the mean Kullback-Leibler divergence to their mixture.
    """
    answers = torch.stack([answer.float().log_softmax(dim=-1) for answer in logits])
    mixture = answers.logsumexp(dim=0) - math.log(len(answers))
    return (answers.exp() * (answers - mixture)).sum(dim=-1).mean()


@dataclass(frozen=True)
class ConsistencyConfig(AdvBNConfig):
    """Settings of AdvBN and the weight of a Jensen-Shannon term.

    Args:
        consistency: the weight, 0 or more.
    """

    consistency: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.consistency >= 0:
            raise InputError(f"consistency must be 0 or more, got {self.consistency}")


class ConsistentViewsForImageClassification(AdvBNForImageClassification):
    """A classifier whose tail is trained on three views of each image: first all clean ones, then two augmented.

    AugMix with its consistency loss, whose weight is 12 in the paper. Wrap without auxiliary norms.
    """

    def training_output(self, recording: Recording, objective: Objective) -> AdvBNOutput:
        """CE(clean) + weight * JS(clean, augmented, augmented), for features (3 B, ...) and labels (B,)."""
        logits, *augmented = self.tail_logits(recording, None, "clean").chunk(3)
        loss = objective.loss(logits)
        divergence = jensen_shannon(logits, *augmented)
        return AdvBNOutput(loss=loss + self.advbn_config.consistency * divergence, logits=logits, clean_loss=loss)


class ConsistentBranchesForImageClassification(AdvBNForImageClassification):
    """AdvBN whose branches shall give one answer, to the features and to the perturbed ones."""

    def training_output(self, recording: Recording, objective: Objective) -> AdvBNOutput:
        """AdvBN's loss + weight * JS(clean, auxiliary)."""
        output = super().training_output(recording, objective)
        output.loss = output.loss + self.advbn_config.consistency * jensen_shannon(
            output.logits, output.auxiliary_logits
        )
        return output
