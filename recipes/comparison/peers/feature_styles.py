"""What MixStyle, DSU and NP have in common: the statistics of an image's features, and features in random styles.

Features are (B, C, H, W), (B, H, W, C) or (B, N, C); `channel_axis` says which. The tail runs once, without auxiliary
norms. Random numbers come from torch's global generator, as in the papers' own code.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from advbn_hf.backbones.split import Recording
from advbn_hf.config import AdvBNConfig
from advbn_hf.errors import InputError
from advbn_hf.method.losses import AdvBNOutput, Objective
from advbn_hf.modeling import AdvBNForImageClassification

TINY = 1e-6  # added to variances, as in both papers' own code


def image_statistics(features: Tensor, channel_axis: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each image's channels, with positions of length 1; without gradient."""
    positions = [axis for axis in range(1, features.ndim) if axis != channel_axis % features.ndim]
    variance, mean = torch.var_mean(features.detach(), dim=positions, correction=0, keepdim=True)
    return mean, (variance + TINY).sqrt()


def with_statistics(features: Tensor, mean: Tensor, std: Tensor, channel_axis: int) -> Tensor:
    """Features with another mean and standard deviation of each image's channels."""
    own_mean, own_std = image_statistics(features, channel_axis)
    return (features - own_mean) / own_std * std + mean


@dataclass(frozen=True)
class FeatureStyleConfig(AdvBNConfig):
    """Settings of a method with random styles; of AdvBN's, `insert_after` and `freeze_stem` apply.

    Args:
        probability: how often a batch gets other styles, in 0..1; 0.5 in all three papers.
    """

    auxiliary_norms: bool = False
    adversarial_share: float = 1.0
    probability: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.probability <= 1:
            raise InputError(f"probability must be in 0..1, got {self.probability}")


class FeatureStylesForImageClassification(AdvBNForImageClassification, ABC):
    """A classifier whose tail is trained on features in random styles, in some of the batches."""

    @abstractmethod
    def with_random_styles(self, features: Tensor, channel_axis: int) -> Tensor:
        """Features, like those given, in other styles."""

    def in_some_batches(self, features: Tensor, channel_axis: int) -> Tensor:
        """Features in other styles with `probability`, else those given."""
        if torch.rand(()) < self.advbn_config.probability:
            return self.with_random_styles(features, channel_axis)
        return features

    def training_output(self, recording: Recording, objective: Objective) -> AdvBNOutput:
        """CE(tail(f')), f' in random styles with `probability`; there is no ascent to measure."""
        features = self.in_some_batches(recording.features, self.split.channel_axis)
        logits = self.tail_logits(recording, features, "clean")
        loss = objective.loss(logits)
        return AdvBNOutput(loss=loss, logits=logits, clean_loss=loss)
