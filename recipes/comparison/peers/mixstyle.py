"""MixStyle (Zhou et al., "Domain Generalization with MixStyle", ICLR 2021): each image in a mix of two styles."""

from dataclasses import dataclass

import torch
from torch import Tensor

from advbn_hf.errors import InputError

from .feature_styles import (
    FeatureStyleConfig,
    FeatureStylesForImageClassification,
    image_statistics,
    with_statistics,
)


def mix_styles(features: Tensor, partners: Tensor, weight: Tensor, channel_axis: int) -> Tensor:
    """Equations 3 to 5 of the paper.

    Args:
        features: (B, C, H, W), (B, H, W, C) or (B, N, C).
        partners: (B,) int64, whose style each image takes a share of.
        weight: (B,), the share of its own style that it keeps, in 0..1.
        channel_axis: the features' axis of C.
    """
    weight = weight.to(features).view(-1, *[1] * (features.ndim - 1))
    statistics = image_statistics(features, channel_axis)
    mixed = [weight * own + (1 - weight) * own[partners] for own in statistics]
    return with_statistics(features, *mixed, channel_axis)


@dataclass(frozen=True)
class MixStyleConfig(FeatureStyleConfig):
    """Settings of MixStyle.

    Args:
        alpha: shares are drawn from Beta(alpha, alpha); above 0, 0.1 in the paper.
    """

    alpha: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alpha > 0:
            raise InputError(f"alpha must be above 0, got {self.alpha}")


class MixStyleForImageClassification(FeatureStylesForImageClassification):
    """A classifier whose tail is trained on features with the mixed styles of two images."""

    def with_random_styles(self, features: Tensor, channel_axis: int) -> Tensor:
        """Features in styles mixed with those of random partners, in random shares."""
        alpha = self.advbn_config.alpha
        weight = torch.distributions.Beta(alpha, alpha).sample((len(features),))
        return mix_styles(features, torch.randperm(len(features)), weight, channel_axis)
