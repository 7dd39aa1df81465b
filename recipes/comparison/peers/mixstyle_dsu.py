"""Peers that draw the style of features at random: MixStyle and DSU. One pass of the tail, no auxiliary norms.

Features are (B, C, H, W), (B, H, W, C) or (B, N, C); `channel_axis` says which. Statistics are those of one image.
Random numbers come from torch's global generator, as in both papers' own code.
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

_TINY = 1e-6  # added to variances, as in both papers' own code


def image_statistics(features: Tensor, channel_axis: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each image's channels, with positions of length 1, like `features`; no gradient."""
    positions = [axis for axis in range(1, features.ndim) if axis != channel_axis % features.ndim]
    variance, mean = torch.var_mean(features.detach(), dim=positions, correction=0, keepdim=True)
    return mean, (variance + _TINY).sqrt()


def restyle(features: Tensor, mean: Tensor, deviation: Tensor, channel_axis: int) -> Tensor:
    """Features with another mean and deviation of each image's channels."""
    own_mean, own_deviation = image_statistics(features, channel_axis)
    return (features - own_mean) / own_deviation * deviation + mean


def mix_styles(features: Tensor, partners: Tensor, weight: Tensor, channel_axis: int) -> Tensor:
    """MixStyle, equations 3 to 5 of Zhou et al., "Domain Generalization with MixStyle", ICLR 2021.

    Args:
        features: see above.
        partners: (B,) int64, whose style each image takes a share of.
        weight: (B,), the share of its own style that it keeps, in 0..1.
        channel_axis: the features' axis of C.
    """
    mean, deviation = image_statistics(features, channel_axis)
    weight = weight.to(features).view(-1, *[1] * (features.ndim - 1))
    mixed = [weight * own + (1 - weight) * own[partners] for own in (mean, deviation)]
    return restyle(features, *mixed, channel_axis)


def scatter_styles(features: Tensor, noise: Tensor, channel_axis: int) -> Tensor:
    """DSU, equations 4 to 8 of Li et al., "Uncertainty Modeling for Out-of-Distribution Generalization", ICLR 2022.

    Mean and deviation are drawn around an image's own, as widely as they vary over the batch.

    Args:
        features: see above.
        noise: (2, B, C), standard normal; for the means, then for the deviations.
        channel_axis: the features' axis of C.
    """
    drawn = []
    for own, standard in zip(image_statistics(features, channel_axis), noise, strict=True):
        spread = (own.var(dim=0, correction=0, keepdim=True) + _TINY).sqrt()
        drawn.append(own + standard.to(features).view(own.shape) * spread)
    return restyle(features, *drawn, channel_axis)


@dataclass(frozen=True)
class FeatureStyleConfig(AdvBNConfig):
    """Settings of MixStyle and DSU; of those of AdvBN, where to insert and whether the stem is frozen apply.

    Args:
        probability: how often a batch gets other styles, in 0..1; 0.5 in both papers.
        alpha: MixStyle's weights are drawn from Beta(alpha, alpha); above 0, 0.1 in the paper.
    """

    auxiliary_norms: bool = False
    probability: float = 0.5
    alpha: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.probability <= 1:
            raise InputError(f"probability must be in 0..1, got {self.probability}")
        if not self.alpha > 0:
            raise InputError(f"alpha must be above 0, got {self.alpha}")


class _RandomStyles(AdvBNForImageClassification, ABC):
    @abstractmethod
    def with_random_styles(self, features: Tensor) -> Tensor:
        """Features, like those given, in other styles."""

    def training_output(self, recording: Recording, objective: Objective) -> AdvBNOutput:
        """CE(tail(f')), f' with random styles in some of the batches; there is no ascent to measure."""
        features = recording.features
        if torch.rand(()) < self.advbn_config.probability:
            features = self.with_random_styles(features)
        logits = self.tail_logits(recording, features, "clean")
        loss = objective.loss(logits)
        return AdvBNOutput(loss=loss, logits=logits, clean_loss=loss)


class MixStyleForImageClassification(_RandomStyles):
    """A classifier whose tail is trained on features with the mixed styles of two images."""

    def with_random_styles(self, features: Tensor) -> Tensor:
        """MixStyle with random partners and weights."""
        alpha = self.advbn_config.alpha
        weight = torch.distributions.Beta(alpha, alpha).sample((len(features),))
        return mix_styles(features, torch.randperm(len(features)), weight, self.split.channel_axis)


class DSUForImageClassification(_RandomStyles):
    """A classifier whose tail is trained on features with styles scattered around their own."""

    def with_random_styles(self, features: Tensor) -> Tensor:
        """DSU with a random style for each image."""
        channels = features.shape[self.split.channel_axis]
        return scatter_styles(features, torch.randn(2, len(features), channels), self.split.channel_axis)
