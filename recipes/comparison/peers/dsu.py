"""DSU (Li et al., "Uncertainty Modeling for Out-of-Distribution Generalization", ICLR 2022): scattered styles."""

import torch
from torch import Tensor

from .feature_styles import TINY, FeatureStylesForImageClassification, image_statistics, with_statistics


def scatter_styles(features: Tensor, noise: Tensor, channel_axis: int) -> Tensor:
    """Equations 4 to 8 of the paper: statistics are drawn around an image's own, as widely as they vary in the batch.

    Args:
        features: (B, C, H, W), (B, H, W, C) or (B, N, C).
        noise: (2, B, C), standard normal; for the means, then for the standard deviations.
        channel_axis: the features' axis of C.
    """
    drawn = []
    for own, normal in zip(image_statistics(features, channel_axis), noise, strict=True):
        std_in_batch = (own.var(dim=0, correction=0, keepdim=True) + TINY).sqrt()
        drawn.append(own + normal.to(features).view(own.shape) * std_in_batch)
    return with_statistics(features, *drawn, channel_axis)


class DSUForImageClassification(FeatureStylesForImageClassification):
    """A classifier whose tail is trained on features with styles scattered around their own."""

    def with_random_styles(self, features: Tensor, channel_axis: int) -> Tensor:
        """Features with a random style for each image."""
        return scatter_styles(features, torch.randn(2, len(features), features.shape[channel_axis]), channel_axis)
