"""One image under one shift at all its severities, and what each model predicts."""

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..data.imagenet import side_before_crop
from ..data.transforms import EvaluationTransform, to_rgb
from ..errors import InputError
from ..evaluation.inference import branch_logits
from ..evaluation.models import EvaluatedModel
from ..shifts.generate import check_shift, severities, shift_image, shift_names

NO_SHIFT = "none"


@dataclass(frozen=True)
class SweepPredictions:
    """Predictions of one model, or of one of its branches, for the images of a sweep.

    Args:
        title: name of the model or branch.
        class_names: the classes in the order of the logits.
        probabilities: (P, K), for each image and class.
    """

    title: str
    class_names: list[str]
    probabilities: Tensor

    def top(self, image: int, count: int = 5) -> dict[str, float]:
        """The likeliest classes of an image by name, with their probabilities."""
        best = self.probabilities[image].topk(min(count, len(self.class_names)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return {self.class_names[index]: value for index, value in pairs}


@dataclass(frozen=True)
class Sweep:
    """An image as it is, and shifted.

    Args:
        shift: the shift's name.
        steps: name of each image: "as it is", then severities, or "shifted" where there are none.
        images: the images.
        predictions: one entry for each model or branch.
    """

    shift: str
    steps: list[str]
    images: list[Image.Image]
    predictions: list[SweepPredictions]


def read_image(path: str | Path) -> Image.Image:
    """An image from a file of a stranger.

    Raises:
        InputError: the file is no image that can be read.
    """
    try:
        with Image.open(path) as image:
            return to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # damaged files raise more than a dozen types in PIL
        raise InputError(f"{Path(path).name} is no image that can be read; choose a PNG, JPEG or WebP file") from error


def available_shifts() -> list[str]:
    """The shifts whose libraries are installed here, after "none"."""
    names = [NO_SHIFT]
    for name in shift_names():
        try:
            check_shift(name, next(iter(severities(name)), None))
        except InputError:
            continue
        names.append(name)
    return names


def sweep(models: list[EvaluatedModel], image: Image.Image, shift: str) -> Sweep:
    """Shifts an image at every severity and collects the predictions of all models.

    The image is first resized to about the models' input size, since the strength of a shift depends on the size.

    Args:
        models: the models.
        image: mode RGB.
        shift: one of `available_shifts()`.

    Raises:
        InputError: the image is too small for the shift.
    """
    image = _fitted(image, max(_input_side(evaluated) for evaluated in models))
    images, steps = [image], ["as it is"]
    if shift != NO_SHIFT:
        levels = severities(shift)
        images += [shift_image(image, shift, level) for level in levels or (None,)]
        steps += [str(level) for level in levels] or ["shifted"]
    return Sweep(
        shift,
        steps,
        images,
        [branch for evaluated in models for branch in predict_branches(evaluated, images)],
    )


@torch.no_grad()
def predict_branches(evaluated: EvaluatedModel, images: list[Image.Image]) -> list[SweepPredictions]:
    """Predictions of each branch of a model.

    Args:
        evaluated: the model, in eval mode, as it is loaded: other threads may use it, so that it is not switched.
        images: of mode RGB.
    """
    transform, model = EvaluationTransform(evaluated.processor), evaluated.model
    pixel_values = torch.stack([transform(image) for image in images]).to(model.device, model.dtype)
    return [
        SweepPredictions(
            evaluated.name if branch == "plain" else f"AdvBN, {branch} branch",
            evaluated.class_names,
            logits.float().softmax(dim=1).cpu(),
        )
        for branch, logits in branch_logits(model, pixel_values).items()
    ]


def _fitted(image: Image.Image, side: int) -> Image.Image:
    """Shorter side at most 8/7 of the models' input, as ImageNet-C was made from."""
    scale = side_before_crop(side) / min(image.size)
    if scale >= 1:
        return image
    return image.resize([max(1, round(length * scale)) for length in image.size], Image.Resampling.BICUBIC)


def _input_side(evaluated: EvaluatedModel) -> int:
    return max(EvaluationTransform(evaluated.processor)(Image.new("RGB", (64, 64))).shape[1:])
