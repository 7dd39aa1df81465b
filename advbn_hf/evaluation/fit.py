"""Whether a model takes what its image processor makes of images, before any work."""

from collections.abc import Sequence

import torch
from datasets import Dataset
from PIL import Image
from torch import Tensor
from transformers import BaseImageProcessor

from ..backbones.tracing import evaluating
from ..data.images import ImageDataset, Transform, collate
from ..data.transforms import EvaluationTransform
from ..errors import InputError, one_line
from .inference import branch_logits
from .models import EvaluatedModel

PROCESSED = 4  # images of each set: enough to see that sizes differ
_LANDSCAPE = Image.new("RGB", (96, 64))


def check_fit(
    evaluated: EvaluatedModel, sets: Sequence[Dataset] = (), batch_size: int = 1, transform: Transform | None = None
) -> None:
    """Processes the first images of each set, and passes one of each size through the model.

    Images that cannot be decoded are passed over: they are reported, or left out, when all are read.

    Args:
        evaluated: the model with its image processor.
        sets: from `load_images`; by default a black image of 96 x 64 pixels.
        batch_size: images at a time, which must have one size.
        transform: from an image to the model's input; by default the image processor alone.

    Raises:
        InputError: the processor fails, makes several sizes in one batch, or makes what the model does not take.
    """
    transform = transform or EvaluationTransform(evaluated.processor)
    inputs = [] if sets else [_transformed(_LANDSCAPE, transform, evaluated.processor)]
    for rows in sets:
        decoded = ImageDataset(rows, transform=lambda image: image)
        batch = []
        for index in range(min(len(rows), batch_size, PROCESSED)):
            try:
                image, label = decoded[index]["pixel_values"], decoded[index]["labels"]
            except InputError:
                continue
            batch.append({"pixel_values": _transformed(image, transform, evaluated.processor), "labels": label})
        if batch:
            inputs.append(collate(batch)["pixel_values"][0])
    for pixel_values in {image.shape: image for image in inputs}.values():
        _check_forward(evaluated, pixel_values)


def _transformed(image: Image.Image, transform: Transform, processor: BaseImageProcessor) -> Tensor:
    try:
        return transform(image)
    except Exception as error:  # each processor has its own
        reason = one_line(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {one_line(error)}"
        raise InputError(
            f"image processor {type(processor).__name__}: fails on an RGB image of {image.width} x {image.height} "
            f"pixels: {reason}; fix its preprocessor_config.json"
        ) from error


def _check_forward(evaluated: EvaluatedModel, image: Tensor) -> None:
    """Passes an image (C, H, W) through every branch."""
    model = evaluated.model
    config, channels = model.config, getattr(model.config, "num_channels", None)
    try:
        with torch.no_grad(), evaluating(model):
            branch_logits(model, image[None].to(model.device, model.dtype))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # each model has its own
        if channels in (None, len(image)):
            wanted = getattr(config, "image_size", None)
            fix = "set size, do_resize and do_center_crop in preprocessor_config.json"
            fix += f" so that images have the model's image_size, {wanted}" if wanted else " to what the model takes"
        else:
            fix = f"the model has num_channels {channels}, but images are RGB: choose a model of 3 channels"
        raise InputError(
            f"image processor {type(evaluated.processor).__name__}: makes {tuple(image.shape)} of an image, which "
            f"model {evaluated.name!r} does not take ({one_line(error)}); {fix}"
        ) from error
