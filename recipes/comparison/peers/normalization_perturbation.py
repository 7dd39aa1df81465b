"""NP: random multipliers of means and standard deviations (Fan et al., "Normalization Perturbation", CVPR 2023)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from advbn_hf.errors import check_at_least
from advbn_hf.method.perturbation import group_means, perturb

from .feature_styles import FeatureStyleConfig, FeatureStylesForImageClassification


@dataclass(frozen=True)
class NormalizationPerturbationConfig(FeatureStyleConfig):
    """Settings of NP.

    Args:
        spread: standard deviation of the multipliers, 0 or more; 0.75 in the paper.
    """

    spread: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("spread", self.spread, 0)


class NormalizationPerturbationForImageClassification(FeatureStylesForImageClassification):
    """A classifier whose tail is trained on features whose means and standard deviations are multiplied at random.

    The perturbation is AdvBN's, one an image, with multipliers from N(1, spread^2) in place of an ascent's. Rectified
    features stay so, as with AdvBN and unlike in the paper.
    """

    def with_random_styles(self, features: Tensor, channel_axis: int) -> Tensor:
        """(f - mu) * s + mu * m, m and s drawn for each image and channel."""
        count, channels = len(features), features.shape[channel_axis]
        multipliers = 1 + self.advbn_config.spread * torch.randn(2, count, channels)
        kept = self.split.other_tokens if self.advbn_config.patches_only else ()
        groups = torch.arange(count, device=features.device)
        means = group_means(features, groups, count, channel_axis, kept)
        multipliers = multipliers.to(features.device, non_blocking=True)
        return perturb(features, means, multipliers, groups, self.split.rectified, channel_axis, kept)
