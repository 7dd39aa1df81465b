"""From an image to the model's input, by the checkpoint's own image processor; needs PIL only, not torchvision."""

import copy
import math

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from transformers import BaseImageProcessor

from ..errors import InputError, check_choice
from .augmentation.named import augmentation_called

AUGMENTED_BRANCHES = ("both", "auxiliary", "clean")

_SCALE = (0.08, 1.0)  # share of the image's area that a crop keeps
_RATIO = (3 / 4, 4 / 3)  # width : height of a crop


class EvaluationTransform:
    """The checkpoint's own image processor, unchanged. Also for training without random augmentation.

    Args:
        processor: the checkpoint's image processor.
    """

    def __init__(self, processor: BaseImageProcessor):
        self.processor = processor

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Returns the model's input, float32 (C, H, W), for an image of any mode and size."""
        return self.processor(to_rgb(image), return_tensors="pt")["pixel_values"][0].float()


class Unresized:
    """All that an image processor does besides resizing and cropping, for images of the model's size.

    Processors that take no options, as timm's, are known by what they make of black and of white.

    Args:
        processor: the checkpoint's image processor.
    """

    def __init__(self, processor: BaseImageProcessor):
        self.processor = processor
        self.black_and_white: list[torch.Tensor] | None = None
        try:
            self(Image.new("RGB", (64, 64)))
        except TypeError:
            images = (Image.new("RGB", (64, 64), colour) for colour in ("black", "white"))
            outputs = [processor(image, return_tensors="pt")["pixel_values"][0] for image in images]
            self.black_and_white = [output[:, :1, :1].float() for output in outputs]

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Returns the model's input, float32 (C, H, W), for an image of H x W pixels of any mode."""
        image = to_rgb(image)
        if self.black_and_white is None:
            inputs = self.processor(image, do_resize=False, do_center_crop=False, return_tensors="pt")
            return inputs["pixel_values"][0].float()
        black, white = self.black_and_white
        return black + (white - black) * torch.from_numpy(np.array(image)).movedim(-1, 0) / 255


class TrainingTransform:
    """Random resized crop, flip and augmentation, then all that the processor does besides resizing and cropping.

    Random numbers come from torch's global generator, which `ImageDataset` seeds for every row.

    Args:
        processor: the checkpoint's image processor.
        augmentation: one of `advbn_hf.data.augmentation.named.AUGMENTATIONS`.
        augmented_branch: "both"; or "auxiliary" or "clean", to give that branch the augmented image and the other one
            the same crop without the augmentation.
        crop_flip: False where crop and flip would change the class, as of digits: the image in its own size is
            augmented, and the processor resizes it.
        times: how often the augmentation is applied, each time to the result of the last; at least 1.

    Raises:
        InputError: there is no such augmentation or branch, torchvision is missing, the processor gives images no
            fixed size, or without crop and flip no augmentation is left.

    Example:
        >>> from transformers import ViTImageProcessorPil
        >>> processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
        >>> TrainingTransform(processor, "prime")(Image.new("RGB", (64, 48))).shape
        torch.Size([3, 32, 32])
        >>> sorted(TrainingTransform(processor, "prime", "auxiliary")(Image.new("RGB", (64, 48))))
        ['auxiliary_pixel_values', 'pixel_values']
    """

    def __init__(
        self,
        processor: BaseImageProcessor,
        augmentation: str = "crop_flip",
        augmented_branch: str = "both",
        crop_flip: bool = True,
        times: int = 1,
    ) -> None:
        check_choice("augmented_branch", augmented_branch, AUGMENTED_BRANCHES)
        check_crop_flip(crop_flip, augmentation)
        self.on_image, self.on_input = augmentation_called(augmentation, times)
        self.augmented_branch, self.crop_flip = augmented_branch, crop_flip
        self.height, self.width = _target_size(processor)
        self.to_input = Unresized(processor) if crop_flip else EvaluationTransform(processor)

    def __call__(self, image: Image.Image) -> torch.Tensor | dict[str, torch.Tensor]:
        """Returns the model's input, float32 (C, height, width), for an image of any mode and size.

        Where the branches see different images: a dictionary of both, as the model's arguments.
        """
        image = self._cropped(to_rgb(image)) if self.crop_flip else to_rgb(image)
        augmented = self.on_input(self.to_input(self.on_image(image)))
        if self.augmented_branch == "both":
            return augmented
        views = (self.to_input(image), augmented)
        clean, auxiliary = views if self.augmented_branch == "auxiliary" else reversed(views)
        return {"pixel_values": clean, "auxiliary_pixel_values": auxiliary}

    def _cropped(self, image: Image.Image) -> Image.Image:
        # reducing_gap averages whole pixels first where a crop shrinks much: several times faster, nearly as exact.
        image = image.resize(
            (self.width, self.height), Image.Resampling.BILINEAR, random_crop_box(*image.size), reducing_gap=2
        )
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(()) < 0.5 else image


def check_crop_flip(crop_flip: bool, augmentation: str) -> None:
    """Stops where crop and flip are all that there is, and are left out; arguments as in `TrainingTransform`."""
    if not crop_flip and augmentation == "crop_flip":
        raise InputError("crop_flip: false leaves nothing of augmentation crop_flip; choose another, or none")


def resized(processor: BaseImageProcessor, image_size: int) -> BaseImageProcessor:
    """A copy of an image processor that makes square images of another size, resized and cropped in proportion.

    Args:
        processor: whose images have one size.
        image_size: height and width of what it shall make, in pixels.

    Raises:
        InputError: the size of its images is not set by its `size` and `crop_size`.

    Example:
        >>> from transformers import ViTImageProcessorPil
        >>> resized(ViTImageProcessorPil(size={"height": 224, "width": 224}), 96).size["height"]
        96
    """
    height, _ = _target_size(processor)
    processor = copy.deepcopy(processor)
    for name in ("size", "crop_size"):
        if sides := getattr(processor, name, None):
            scaled = {side: round(pixels * image_size / height) for side, pixels in dict(sides).items() if pixels}
            setattr(processor, name, type(sides)(**scaled))
    if _target_size(processor) != (image_size, image_size):
        raise InputError(
            f"image_size: {type(processor).__name__} cannot be set to it; leave it out, or set the size in "
            "preprocessor_config.json"
        )
    return processor


def random_crop_box(width: int, height: int) -> tuple[int, int, int, int]:
    """A random crop as torchvision's `RandomResizedCrop` defines it (Szegedy et al. 2015, section 6).

    The area is uniform in 8 to 100 % of the image's, the logarithm of the aspect ratio is uniform between 3:4 and
    4:3. After ten crops that do not fit, it is the largest central one within these ratios.

    Args:
        width: width of the image in pixels.
        height: height of the image in pixels.

    Returns:
        Left, upper, right and lower edge in pixels, right and lower exclusive.
    """
    for _ in range(10):
        area = width * height * torch.empty(()).uniform_(*_SCALE).item()
        ratio = math.exp(torch.empty(()).uniform_(*map(math.log, _RATIO)).item())
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = int(torch.randint(width - crop_width + 1, ()))
            upper = int(torch.randint(height - crop_height + 1, ()))
            return left, upper, left + crop_width, upper + crop_height
    crop_width, crop_height = min(width, round(height * _RATIO[1])), min(height, round(width / _RATIO[0]))
    left, upper = (width - crop_width) // 2, (height - crop_height) // 2
    return left, upper, left + crop_width, upper + crop_height


def to_rgb(image: Image.Image) -> Image.Image:
    """The image upright (EXIF orientation applied), in mode RGB, 8 bits per channel.

    Greyscale of more bits is scaled to 0..255: "I;16" from 0..65535; "I" and "F", which do not say their range, from
    the smallest of 0..1 ("F" only), 0..255, 0..65535 and 0..2^31 that holds their values, or, where some are negative
    or beyond, from their own minimum and maximum.

    Raises:
        ValueError: some values are NaN or inf.
    """
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # convert() would clip more than 8 bits to white instead of scaling them
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        image = Image.fromarray(_to_8_bits(np.asarray(image)))
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """Scales (H, W) int32 or float32 to uint8, as `to_rgb` says."""
    low, high = float(values.min()), float(values.max())
    if not math.isfinite(low) or not math.isfinite(high):
        raise ValueError("some pixels are NaN or inf")
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        return np.rint(values * 255).astype(np.uint8)
    bits = next((bits for bits in (8, 16, 31) if low >= 0 and high < 2**bits), None)
    if bits is not None:
        return (values.astype(np.float64) // 2 ** (bits - 8)).astype(np.uint8)
    return np.rint((values.astype(np.float64) - low) * (255 / ((high - low) or 1))).astype(np.uint8)


def _target_size(processor: BaseImageProcessor) -> tuple[int, int]:
    """Height and width of what the processor makes of a square image: its size, crop and padding rules in one."""
    outputs = [processor(Image.new("RGB", (side, side)), return_tensors="pt")["pixel_values"] for side in (64, 96)]
    if outputs[0].ndim != 4 or outputs[0].shape != outputs[1].shape:
        shapes = " and ".join(str(tuple(output.shape[1:])) for output in outputs)
        raise InputError(
            f"image processor {type(processor).__name__}: makes {shapes} of two images, not (C, H, W) of one size; "
            "set do_resize and size in preprocessor_config.json"
        )
    return tuple(outputs[0].shape[-2:])
