"""What a contact sheet shows: each image in its own style, in the worst and in random ones, with predictions."""

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
class Prediction:
    """What one branch predicts for one image.

    Args:
        label: the class of the largest logit.
        confidence: its probability, in 0..1.
    """

    label: int
    confidence: float


@dataclass(frozen=True)
class SheetColumn:
    """One column of a contact sheet.

    Args:
        title: above the images.
        images: an image for each row.
        predictions: of each branch for each image.
    """

    title: str
    images: list[Image.Image]
    predictions: dict[str, list[Prediction]]


@torch.no_grad()
def contact_sheet(
    model: AdvBNForImageClassification,
    decoder: Decoder,
    pixels: PixelRange,
    pixel_values: Tensor,
    labels: Tensor,
    epsilons: Sequence[float],
    seed: int = 0,
) -> list[SheetColumn]:
    """Draws images, their reconstructions, and both in the worst and in random styles at rising epsilon.

    Predictions are for the features that an image shows. Only for a plain reconstruction they are for the image
    itself as an input, which shows what the decoder lost.

    Args:
        model: the model; without auxiliary norms it has one branch.
        decoder: for its stem.
        pixels: of its image processor.
        pixel_values: (B, 3, H, W), on the model's device.
        labels: (B,) int64, the model's classes of the images.
        epsilons: the multipliers stay in [1 - epsilon, 1 + epsilon].
        seed: of random styles.

    Returns:
        2 + 2 * len(epsilons) columns.

    Raises:
        InputError: if an epsilon is not above 0.
    """
    model.eval()
    branches = BRANCHES if model.advbn_config.auxiliary_norms else BRANCHES[:1]
    recording = model.split.stem(pixel_values=pixel_values)

    def predictions(features: Tensor | None) -> dict[str, list[Prediction]]:
        return {branch: _predictions(model.tail_logits(recording, features, branch)) for branch in branches}

    drawn = decoder(recording.features)
    logits = branch_logits(model, pixels.inputs(drawn).to(pixel_values))
    again = dict(zip(branches, map(_predictions, logits.values()), strict=True))
    columns = [
        SheetColumn("image", to_images(pixels.colours(pixel_values)), predictions(None)),
        SheetColumn("reconstruction", to_images(drawn), again),
    ]
    for epsilon in sorted(epsilons):
        for name, ascend in (("adversarial", True), ("random", False)):
            features = restyle(model, recording, labels, epsilon, ascend=ascend, seed=seed)
            columns.append(
                SheetColumn(f"{name}\nepsilon {epsilon:g}", to_images(decoder(features)), predictions(features))
            )
    return columns


def _predictions(logits: Tensor) -> list[Prediction]:
    best = logits.float().softmax(dim=1).max(dim=1)
    return [Prediction(*pair) for pair in zip(best.indices.tolist(), best.values.tolist(), strict=True)]
