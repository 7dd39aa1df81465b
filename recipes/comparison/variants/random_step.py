"""A random step size for each batch."""

import dataclasses

import torch
from torch import Tensor

from advbn_hf.backbones.split import Recording
from advbn_hf.method.losses import Objective
from advbn_hf.modeling import AdvBNForImageClassification


class RandomStepForImageClassification(AdvBNForImageClassification):
    """AdvBN whose step size is uniform between 0 and twice `step_size`, drawn for each batch."""

    def perturb(self, recording: Recording, objective: Objective) -> tuple[Tensor, dict[str, Tensor] | None]:
        """As `AdvBNForImageClassification.perturb`."""
        config = self.advbn_config
        drawn = 2 * config.step_size * (1 - torch.rand((), generator=self.generator).item())  # never 0
        self.advbn_config = dataclasses.replace(config, step_size=drawn)
        try:
            return super().perturb(recording, objective)
        finally:
            self.advbn_config = config
