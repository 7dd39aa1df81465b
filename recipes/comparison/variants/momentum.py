"""Ascents that start where those of earlier batches ended."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from advbn_hf.backbones.split import Recording
from advbn_hf.backbones.tracing import evaluating
from advbn_hf.config import AdvBNConfig
from advbn_hf.method.losses import Objective
from advbn_hf.method.perturbation import ascend, perturb
from advbn_hf.modeling import AdvBNForImageClassification

from .one_per_image import check_one_per_image, start_per_image

MOMENTUM = 0.9


class MomentumForImageClassification(AdvBNForImageClassification):
    """AdvBN whose starts move by the running mean of the multipliers found so far, less 1.

    Raises:
        InputError: if the settings ask for fewer perturbations than one an image.
    """

    def __init__(self, backbone: PreTrainedModel, config: AdvBNConfig) -> None:
        check_one_per_image("advbn_momentum", config)
        super().__init__(backbone, config)
        self.drift: Tensor | float = 0.0  # (2, 1, C)

    def perturb(self, recording: Recording, objective: Objective) -> tuple[Tensor, None]:
        """As `AdvBNForImageClassification.perturb`; ascent statistics are not returned."""
        config, features = self.advbn_config, recording.features
        means, start, applied = start_per_image(self, features)
        start = torch.clamp(start + self.drift, 1 - config.epsilon, 1 + config.epsilon)

        def loss_at(multipliers: Tensor) -> Tensor:
            perturbed = perturb(features.detach(), means.detach(), multipliers, *applied)
            return objective.loss(self.tail_logits(recording, perturbed, "auxiliary"), "sum")

        with evaluating(self.backbone):
            found = ascend(
                loss_at, start, epsilon=config.epsilon, step_size=config.step_size, num_steps=config.num_steps
            )
        average = found.mean(dim=1, keepdim=True) - 1
        self.drift = MOMENTUM * self.drift + (1 - MOMENTUM) * average
        return perturb(features, means, found, *applied), None
