"""AugMix's consistency loss (Hendrycks et al., ICLR 2020): the predictions for three views of an image agree."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from advbn_hf.backbones.split import Recording
from advbn_hf.config import AdvBNConfig
from advbn_hf.errors import check_at_least
from advbn_hf.method.losses import AdvBNOutput, Objective
from advbn_hf.modeling import AdvBNForImageClassification


def jensen_shannon(*logits: Tensor) -> Tensor:
    """Jensen-Shannon divergence (nats) of several predictions, each logits (B, K); the mean over the images.

    Equation 2 of the paper: the mean Kullback-Leibler divergence to their mixture.

    Example:
        >>> jensen_shannon(torch.tensor([[100.0, 0.0]]), torch.tensor([[0.0, 100.0]]))  # ln 2
        tensor(0.6931)
    """
    predictions = torch.stack([prediction.float().log_softmax(dim=-1) for prediction in logits])
    mixture = predictions.logsumexp(dim=0) - math.log(len(predictions))
    return (predictions.exp() * (predictions - mixture)).sum(dim=-1).mean()


@dataclass(frozen=True)
class ConsistencyConfig(AdvBNConfig):
    """Settings of AdvBN and the weight of a Jensen-Shannon term.

    Args:
        consistency: the weight, 0 or more; 12 in the paper.
    """

    adversarial_share: float = 1.0
    consistency: float = 12.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("consistency", self.consistency, 0)


class ConsistentViewsForImageClassification(AdvBNForImageClassification):
    """A classifier whose tail is trained on three views of each image: first all clean ones, then two augmented.

    Wrap without auxiliary norms.
    """

    def training_output(self, recording: Recording, objective: Objective) -> AdvBNOutput:
        """CE(clean) + weight * JS(clean, augmented, augmented), for features (3 B, ...) and labels (B,)."""
        logits, *augmented = self.tail_logits(recording, None, "clean").chunk(3)
        loss = objective.loss(logits)
        divergence = jensen_shannon(logits, *augmented)
        return AdvBNOutput(loss=loss + self.advbn_config.consistency * divergence, logits=logits, clean_loss=loss)
