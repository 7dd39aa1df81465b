"""A step along the gradient that the clean branch has anyway: no forward pass for the ascent."""

import torch
from transformers import PreTrainedModel

from advbn_hf.backbones.split import Recording
from advbn_hf.config import AdvBNConfig
from advbn_hf.method.losses import AdvBNOutput, Objective, two_branch_output
from advbn_hf.method.perturbation import perturb, sign_step
from advbn_hf.modeling import AdvBNForImageClassification

from .one_per_image import check_one_per_image, start_per_image


class CleanGradientForImageClassification(AdvBNForImageClassification):
    """AdvBN whose step follows the clean branch's gradient at multipliers of 1.

    Raises:
        InputError: if the settings ask for more than one step, or for fewer perturbations than one an image.
    """

    def __init__(self, backbone: PreTrainedModel, config: AdvBNConfig) -> None:
        check_one_per_image("advbn_clean_gradient", config, one_step=True)
        super().__init__(backbone, config)

    def training_output(self, recording: Recording, objective: Objective) -> AdvBNOutput:
        """CE(tail_clean(f)) + CE(tail_auxiliary(f_adv)); ascent statistics are not returned."""
        config, features = self.advbn_config, recording.features
        means, start, applied = start_per_image(self, features)
        seen = features if features.requires_grad else features.detach().requires_grad_()
        logits = self.tail_logits(recording, seen, "clean")
        (upwards,) = torch.autograd.grad(objective.loss(logits, "sum"), seen, retain_graph=True)
        ones = torch.ones_like(start).requires_grad_()
        maximised = (perturb(features.detach(), means.detach(), ones, *applied) * upwards).sum()
        (slope,) = torch.autograd.grad(maximised, ones)
        found = sign_step(start, slope, epsilon=config.epsilon, step_size=config.step_size)
        auxiliary_logits = self.tail_logits(recording, perturb(features, means, found, *applied), "auxiliary")
        return two_branch_output(logits, auxiliary_logits, objective)
