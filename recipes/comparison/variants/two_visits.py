"""No ascent: each image's gradient at a random style, from the training step itself, is the step of its next visit."""

from hashlib import sha256

from torch import Tensor
from transformers import PreTrainedModel

from advbn_hf.backbones.split import Recording
from advbn_hf.config import AdvBNConfig
from advbn_hf.method.losses import Objective
from advbn_hf.method.perturbation import perturb, sign_step
from advbn_hf.modeling import AdvBNForImageClassification

from .one_per_image import check_one_per_image, start_per_image


class TwoVisitsForImageClassification(AdvBNForImageClassification):
    """AdvBN that visits each image in pairs: at a random start, then at the step from the same start.

    The gradient of the first visit is that of the loss which trains (as in Shafahi et al., NeurIPS 2019), so it is as
    old as the pair is far apart; a step costs no pass for the ascent. Images are recognised by their pixels: they must
    not be augmented.

    Raises:
        InputError: if the settings ask for more than one step, or for fewer perturbations than one an image.
    """

    def __init__(self, backbone: PreTrainedModel, config: AdvBNConfig) -> None:
        check_one_per_image("advbn_two_visits", config, one_step=True)
        super().__init__(backbone, config)
        self.visited: dict[bytes, tuple[Tensor, Tensor]] = {}  # image -> its start and the gradient there, (2, C) each

    def perturb(self, recording: Recording, objective: Objective) -> tuple[Tensor, None]:
        """As `AdvBNForImageClassification.perturb`; ascent statistics are not returned."""
        config = self.advbn_config
        means, start, applied = start_per_image(self, recording.features)
        images = [sha256(pixels.numpy()).digest() for pixels in recording.inputs["pixel_values"].cpu().contiguous()]
        visits = [self.visited.pop(image, None) for image in images]
        multipliers = start.clone()
        for row, visit in enumerate(visits):
            if visit is not None:
                multipliers[:, row] = sign_step(*visit, epsilon=config.epsilon, step_size=config.step_size)

        def keep(gradient: Tensor) -> None:
            for row, visit in enumerate(visits):
                if visit is None:
                    self.visited[images[row]] = start[:, row], gradient[:, row].clone()

        multipliers.requires_grad_().register_hook(keep)
        return perturb(recording.features, means, multipliers, *applied), None
