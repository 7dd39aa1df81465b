"""Averages the weights of a model and of the same model fine-tuned (WiSE-FT), as one plain checkpoint.

python recipes/interpolate.py BASE TUNED --output_dir DIR [--alpha 0.5] [--dataset_name ID]

Often more robust than either at the accuracy of the fine-tuned one, at no cost. TUNED is the clean branch of a
checkpoint; DIR/auxiliary names the other of a folder. Both models need the same classes: a new head starts from noise,
so take a base whose head has been trained. Of DIR and DIR/auxiliary it makes a model whose norms lie between those of
both branches, as `model.export("soup")` does. Running statistics are interpolated too; or, where a dataset is given,
re-estimated on its images.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import torch
from accelerate import PartialState
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import BaseImageProcessor

from advbn_hf import InputError
from advbn_hf.backbones.interpolation import interpolated, re_estimate_statistics
from advbn_hf.backbones.loading import load_classifier, load_processor
from advbn_hf.data.images import ImageDataset, collate
from advbn_hf.data.loading import load_images
from advbn_hf.data.transforms import EvaluationTransform
from advbn_hf.errors import check_at_least
from advbn_hf.utils.cli import run
from advbn_hf.utils.files import check_empty, filling


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; usage: interpolate BASE TUNED --output_dir DIR [--alpha 0.5]")


def main() -> None:
    """Writes the interpolated model and its image processor."""
    arguments = read_arguments()
    base, tuned = load_classifier(arguments.base), load_classifier(arguments.tuned)
    processor = load_processor(arguments.tuned)
    model = interpolated(base, tuned, arguments.alpha)
    if arguments.dataset_name is not None:
        re_estimate_statistics(model.to(PartialState().device), batches_of(processor, arguments))
    with filling(arguments.output_dir) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    print(f"{arguments.output_dir}: {1 - arguments.alpha:g} {arguments.base} + {arguments.alpha:g} {arguments.tuned}")


def read_arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("base", metavar="BASE", help="Hub id or folder of the model before fine-tuning")
    parser.add_argument("tuned", metavar="TUNED", help="Hub id or folder of the fine-tuned model")
    parser.add_argument("--output_dir", type=Path, required=True, help="an empty or new folder")
    parser.add_argument("--alpha", type=float, default=0.5, help="share of the fine-tuned model, in 0..1")
    parser.add_argument("--dataset_name", help="Hub id or folder: re-estimate running statistics on its images")
    parser.add_argument("--split", default="train", help="its split")
    parser.add_argument("--num_images", type=int, default=2000, help="how many of its images, at random")
    parser.add_argument("--batch_size", type=int, default=64, help="images at a time")
    arguments = parser.parse_args()
    if not 0 <= arguments.alpha <= 1:
        raise InputError(f"alpha must be in 0..1, got {arguments.alpha}")
    check_at_least("num_images", arguments.num_images, 2)
    check_at_least("batch_size", arguments.batch_size, 2)
    check_empty(arguments.output_dir, "output_dir")
    return arguments


def batches_of(processor: BaseImageProcessor, arguments: argparse.Namespace) -> Iterator[Tensor]:
    """Some images of the dataset as the model's inputs, in batches of one size."""
    rows = load_images(arguments.dataset_name, arguments.split)
    rows = rows.shuffle(seed=0).select(range(min(arguments.num_images, len(rows))))
    images = ImageDataset(rows, EvaluationTransform(processor))
    size = min(arguments.batch_size, len(images))
    loader = DataLoader(images, size, collate_fn=collate, drop_last=True, generator=torch.Generator())
    return (batch["pixel_values"] for batch in loader)


if __name__ == "__main__":
    run(main)
