"""What a contact sheet shows: each image in its own style, in the worst and in random ones, with the answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from ..backbones.norms import BRANCHES
from ..evaluation.inference import branch_logits
from ..modeling import AdvBNForImageClassification
from .decoder import Decoder
from .pixels import PixelRange, to_images
from .restyle import restyle


@dataclass(frozen=True)
class Answer:
    """What one branch answers to one image.

    Args:
        label: the class of the largest logit.
        confidence: its probability, in 0..1.
    """

    label: int
    confidence: float


@dataclass(frozen=True)
class Column:
    """One column of a contact sheet.

    Args:
        title: what it is called.
        images: an image for each row.
        answers: of each branch to each image.
    """

    title: str
    images: list[Image.Image]
    answers: dict[str, list[Answer]]


@torch.no_grad()
def contact_sheet(
    model: AdvBNForImageClassification,
    decoder: Decoder,
    pixels: PixelRange,
    pixel_values: Tensor,
    labels: Tensor,
    epsilons: Sequence[float],
    seed: int = 0,
) -> list[Column]:
    """Draws images, their reconstructions, and both in the worst and in random styles at rising epsilon.

    The answers are those to the features that an image shows, but for plain reconstructions: there they are to the
    image itself, put in again, and tell what the decoder lost.

    Args:
        model: the model; without auxiliary norms it has one branch.
        decoder: for its stem.
        pixels: of its image processor.
        pixel_values: (B, 3, H, W), on the model's device.
        labels: (B,) int64, the model's classes of the images.
        epsilons: how far the multipliers may go from 1.
        seed: of random styles.

    Returns:
        2 + 2 * len(epsilons) columns.

    Raises:
        InputError: if an epsilon is not above 0.
    """
    model.eval()
    branches = BRANCHES if model.advbn_config.auxiliary_norms else BRANCHES[:1]
    recording = model.split.stem(pixel_values=pixel_values)

    def answers(features: Tensor | None) -> dict[str, list[Answer]]:
        return {branch: _answers(model.tail_logits(recording, features, branch)) for branch in branches}

    drawn = decoder(recording.features)
    logits = branch_logits(model, pixels.inputs(drawn).to(pixel_values))
    again = dict(zip(branches, map(_answers, logits.values()), strict=True))
    columns = [
        Column("image", to_images(pixels.colours(pixel_values)), answers(None)),
        Column("reconstruction", to_images(drawn), again),
    ]
    for epsilon in sorted(epsilons):
        for name, ascend in (("adversarial", True), ("random", False)):
            features = restyle(model, recording, labels, epsilon, ascend=ascend, seed=seed)
            columns.append(Column(f"{name}\nepsilon {epsilon:g}", to_images(decoder(features)), answers(features)))
    return columns


def _answers(logits: Tensor) -> list[Answer]:
    best = logits.float().softmax(dim=1).max(dim=1)
    return [Answer(*pair) for pair in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
