"""AdvProp: adversarial pixels through auxiliary norms (Xie et al., CVPR 2020)."""

import torch
from torch import Tensor

from advbn_hf.backbones.split import Recording
from advbn_hf.backbones.tracing import evaluating
from advbn_hf.config import AdvBNConfig
from advbn_hf.method.losses import AdvBNOutput, Objective, two_branch_output
from advbn_hf.modeling import AdvBNForImageClassification

from ..views import BLACK, WHITE

_LEVEL = (WHITE - BLACK) / 255

# The paper's attacker: PGD with epsilon 4, step 1 and epsilon + 1 steps, in levels of 0..255, from a random start.
PUBLISHED = AdvBNConfig(epsilon=4 * _LEVEL, step_size=_LEVEL, num_steps=5, random_start=True, adversarial_share=1.0)


class AdvPropForImageClassification(AdvBNForImageClassification):
    """A classifier whose tail is trained on images and, through its auxiliary norms, on adversarial images.

    `epsilon` and `step_size` of its `AdvBNConfig` are in units of the input, which lies in [-1, 1];
    `num_perturbations` and `attack_fraction` do not apply. Recordings must hold the images.
    """

    def training_output(self, recording: Recording, objective: Objective) -> AdvBNOutput:
        """CE(x) through the clean norms + CE(x_adv) through the auxiliary ones, equation 3 of the paper."""
        adversarial = self.attacked_pixels(recording.inputs["pixel_values"], objective)
        auxiliary_logits = self._auxiliary_logits(adversarial)
        logits = self.tail_logits(recording, None, "clean")
        return two_branch_output(logits, auxiliary_logits, objective)

    def attacked_pixels(self, pixel_values: Tensor, objective: Objective) -> Tensor:
        """Projected sign ascent of the auxiliary branch's loss (Madry et al., ICLR 2018), with norms in eval mode.

        Args:
            pixel_values: (B, C, H, W) in [-1, 1].
            objective: the loss that is maximised.

        Returns:
            (B, C, H, W) in [-1, 1], at most `epsilon` away from `pixel_values`, detached.
        """
        config = self.advbn_config
        low = (pixel_values - config.epsilon).clamp(min=BLACK)
        high = (pixel_values + config.epsilon).clamp(max=WHITE)
        attacked = pixel_values
        if config.random_start:
            uniform = torch.rand(pixel_values.shape, generator=self.generator).to(pixel_values)
            attacked = (pixel_values + config.epsilon * (2 * uniform - 1)).clamp(low, high)
        with evaluating(self.backbone), torch.enable_grad():
            for _ in range(config.num_steps):
                attacked = attacked.detach().requires_grad_()
                loss = objective.loss(self._auxiliary_logits(attacked), "sum")
                (gradient,) = torch.autograd.grad(loss, attacked)
                attacked = (attacked + config.step_size * gradient.sign()).clamp(low, high)
        return attacked.detach()

    def _auxiliary_logits(self, pixel_values: Tensor) -> Tensor:
        return self.tail_logits(self.split.stem(pixel_values=pixel_values), None, "auxiliary")
