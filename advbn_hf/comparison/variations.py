"""Variations on AdvBN that go beyond the paper: a random step size, and an ascent that starts from mixed styles."""

import dataclasses

import torch
from torch import Tensor

from ..modeling import AdvBNForImageClassification
from ..split import Recording
from .feature_styles import mix_styles


class RandomStepForImageClassification(AdvBNForImageClassification):
    """AdvBN whose step size is uniform between 0 and twice `step_size`, drawn for each batch."""

    def perturb(
        self, recording: Recording, labels: Tensor, smoothing: float = 0.0, measure_ascent: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """As `AdvBNForImageClassification.perturb`."""
        config = self.advbn_config
        drawn = 2 * config.step_size * (1 - torch.rand((), generator=self.generator).item())  # never 0
        self.advbn_config = dataclasses.replace(config, step_size=drawn)
        try:
            return super().perturb(recording, labels, smoothing, measure_ascent)
        finally:
            self.advbn_config = config


class MixedStartForImageClassification(AdvBNForImageClassification):
    """AdvBN that perturbs features whose style is mixed, in a uniformly random share, with that of another picture."""

    def perturb(
        self, recording: Recording, labels: Tensor, smoothing: float = 0.0, measure_ascent: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """As `AdvBNForImageClassification.perturb`."""
        features = recording.features
        partners = torch.randperm(len(features), generator=self.generator)
        weight = torch.rand(len(features), generator=self.generator)
        mixed = mix_styles(features, partners, weight, self.split.channel_axis)
        mixed = mixed.clamp(min=0) if self.split.rectified else mixed
        return super().perturb(dataclasses.replace(recording, features=mixed), labels, smoothing, measure_ascent)
