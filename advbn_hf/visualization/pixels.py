"""Conversion between a model's inputs and colours, by what its image processor makes of black and of white."""

import torch
from PIL import Image
from torch import Tensor
from transformers import BaseImageProcessor

from ..data.transforms import EvaluationTransform, TrainingTransform


class PixelRange:
    """Colours in 0..1 of a model's inputs, and back.

    Its attributes: `size`, height and width of the inputs; `black` and `white`, (3, 1, 1).

    Args:
        processor: the checkpoint's image processor.

    Raises:
        InputError: if the processor does not scale images to a fixed size.
    """

    def __init__(self, processor: BaseImageProcessor) -> None:
        sized = TrainingTransform(processor)
        self.size = (sized.height, sized.width)
        transform = EvaluationTransform(processor)
        self.black, self.white = (
            transform(Image.new("RGB", (64, 64), colour)).mean(dim=(1, 2))[:, None, None]
            for colour in ("black", "white")
        )

    def colours(self, pixel_values: Tensor) -> Tensor:
        """Colours in 0..1 of inputs (B, 3, H, W); like the inputs."""
        black, white = self.black.to(pixel_values), self.white.to(pixel_values)
        return ((pixel_values - black) / (white - black)).clamp(0, 1)

    def inputs(self, colours: Tensor) -> Tensor:
        """The model's inputs for colours (B, 3, H, W) in 0..1; like the colours."""
        black, white = self.black.to(colours), self.white.to(colours)
        return black + (white - black) * colours


def to_images(colours: Tensor) -> list[Image.Image]:
    """PIL images of colours (B, 3, H, W) in 0..1."""
    levels = (colours.detach().float().cpu() * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return [Image.fromarray(image) for image in levels.numpy()]
