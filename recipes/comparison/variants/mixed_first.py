"""Features that are mixed before they are perturbed: the styles of two images, or the channels of each image."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from advbn_hf.backbones.split import Recording
from advbn_hf.method.losses import Objective
from advbn_hf.modeling import AdvBNForImageClassification

from ..peers.mixstyle import mix_styles


class _MixedFirst(AdvBNForImageClassification, ABC):
    @abstractmethod
    def mixed(self, features: Tensor) -> Tensor:
        """Features, like those given, before their perturbation."""

    def perturb(self, recording: Recording, objective: Objective) -> tuple[Tensor, dict[str, Tensor] | None]:
        """As `AdvBNForImageClassification.perturb`, of mixed features."""
        mixed = self.mixed(recording.features)
        mixed = mixed.clamp(min=0) if self.split.rectified else mixed
        return super().perturb(recording.with_features(mixed), objective)


class MixedStylesForImageClassification(_MixedFirst):
    """AdvBN of features whose style is mixed, in a uniformly random share, with that of another image."""

    def mixed(self, features: Tensor) -> Tensor:
        """MixStyle with random partners."""
        partners = torch.randperm(len(features), generator=self.generator)
        weight = torch.rand(len(features), generator=self.generator)
        return mix_styles(features, partners, weight, self.split.channel_axis)


class MixedChannelsForImageClassification(_MixedFirst):
    """AdvBN of features whose channels are mixed: style as their correlation (Gatys et al., CVPR 2016).

    Each image's features less their means go through I + R; entries of R have variance 1 / (4 C).
    """

    def mixed(self, features: Tensor) -> Tensor:
        """Channels mixed by a random matrix for each image."""
        channels = features.shape[self.split.channel_axis]
        drawn = torch.randn(len(features), channels, channels, generator=self.generator) / (2 * channels**0.5)
        return mix_channels(features, torch.eye(channels) + drawn, self.split.channel_axis)


def mix_channels(features: Tensor, matrices: Tensor, channel_axis: int) -> Tensor:
    """mu + M (f - mu) for each image, mu its means over positions.

    Args:
        features: (B, C, H, W), (B, H, W, C) or (B, N, C).
        matrices: M, (B, C, C).
        channel_axis: the features' axis of C.
    """
    last = features.movedim(channel_axis, -1)
    flat = last.flatten(1, -2)
    means = flat.mean(dim=1, keepdim=True)
    mixed = means + (flat - means) @ matrices.to(flat).mT
    return mixed.view(last.shape).movedim(-1, channel_axis)
