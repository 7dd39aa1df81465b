"""Draws what each augmentation of `finetune.py` makes of a few images, in two draws each.

python recipes/augmentations.py --output_file sheet.png [--dataset_name ID]

By default of two photographs that come with scikit-learn and of a digit of the embedded benchmark.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor
from transformers import ViTImageProcessorPil

from advbn_hf.data.augmentation.named import AUGMENTATIONS
from advbn_hf.data.embedded.digits import load_embedded
from advbn_hf.data.images import ImageDataset
from advbn_hf.data.loading import load_images
from advbn_hf.errors import InputError
from advbn_hf.reporting.plots import plot_samples
from advbn_hf.training.augmentation import AugmentationArguments
from advbn_hf.utils.cli import run
from advbn_hf.utils.files import check_file
from advbn_hf.utils.options import parse

DRAWS = 2


@dataclass
class SheetArguments:
    """Which images to draw, and where."""

    output_file: str | None = field(default=None, metadata={"help": "PNG file to write."})
    dataset_name: str | None = field(default=None, metadata={"help": "Hub id or folder of a dataset."})
    split: str = field(default="train", metadata={"help": "Its split."})
    num_images: int = field(default=3, metadata={"help": "How many of its images, the first ones."})
    image_size: int = field(default=112, metadata={"help": "Pixels a side of the model's input."})
    seed: int = field(default=0, metadata={"help": "Seed of crops and augmentations."})


def main() -> None:
    """Draws the sheet."""
    (args,) = parse((SheetArguments,))
    if args.output_file is None:
        raise InputError("output_file: name the PNG file to write")
    check_file(args.output_file, "output_file", ".png")
    rows = chosen_images(args)
    side = {"height": args.image_size, "width": args.image_size}
    processor = ViTImageProcessorPil(size=side, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    sheet = {}
    for name in ("none", *AUGMENTATIONS):
        sheet[name] = augmented(rows, AugmentationArguments(name).transform(processor), args.seed)
    plot_samples(sheet, args.output_file, columns=DRAWS * len(rows))
    print(f"written to {args.output_file}")


def chosen_images(args: SheetArguments) -> Dataset:
    """The images to draw, with labels that say nothing, in the form that `load_images` gives."""
    if args.dataset_name is not None:
        rows = load_images(args.dataset_name, args.split)
        return rows.select(range(min(args.num_images, len(rows))))
    photographs = [Image.fromarray(load_sample_image(name)) for name in ("flower.jpg", "china.jpg")]
    rows = as_rows([*photographs, load_embedded("clean", "test", num_images=1)[0]["image"]])
    return rows.add_column("label", np.zeros(len(rows), dtype=np.int64))


def augmented(rows: Dataset, transform: Callable[[Image.Image], Tensor], seed: int) -> Dataset:
    """Each image in two draws, as the model sees it."""
    images = ImageDataset(rows, transform, seed=seed)
    drawn = []
    for row in range(len(rows)):
        for epoch in range(DRAWS):
            images.set_epoch(epoch)
            drawn.append(levels(images[row]["pixel_values"]))
    return as_rows(drawn)


def levels(pixel_values: Tensor) -> Image.Image:
    """A model's input (3, H, W) as an image; what lies beyond black and white is clipped."""
    return Image.fromarray((127.5 * (pixel_values + 1)).round().clamp(0, 255).to(torch.uint8).movedim(0, -1).numpy())


def as_rows(images: list[Image.Image]) -> Dataset:
    """Images as rows with encoded images."""
    rows = Dataset.from_dict({"image": images}, features=Features({"image": ImageFeature()}))
    return rows.cast_column("image", ImageFeature(decode=False))


if __name__ == "__main__":
    run(main)
