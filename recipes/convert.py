"""Turns a checkpoint that people already have into a Transformers one with both branches, ready to publish.

python recipes/convert.py CHECKPOINT OUTPUT_DIR

It takes the layout that AdvBN ResNets were first published in, and plain torchvision ResNets, whose branches start
equal. Architecture and cut are read off the file; nothing in it is executed. 1,000 classes are taken for ImageNet's.
OUTPUT_DIR must be empty or new.
"""

import argparse
from pathlib import Path
from typing import NoReturn

from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

from advbn_hf import InputError
from advbn_hf.cli import run
from advbn_hf.convert import load_checkpoint


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; usage: recipes/convert.py CHECKPOINT OUTPUT_DIR")


def imagenet_processor() -> ConvNextImageProcessorPil:
    """Shorter side to 256 (bilinear), the central 224 x 224, ImageNet's mean and std.

    The AdvBN authors evaluate so, and torchvision its first weights. Hub ResNets resize bicubically; these were not
    evaluated so. Where a margin is odd, the crop may lie one pixel from torchvision's, which rounds half to even
    where Transformers rounds down.
    """
    return ConvNextImageProcessorPil(
        size={"shortest_edge": 224},
        crop_pct=224 / 256,
        resample=PILImageResampling.BILINEAR,
        image_mean=IMAGENET_DEFAULT_MEAN,
        image_std=IMAGENET_DEFAULT_STD,
    )


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a .pth.tar, .pth or .safetensors file")
    parser.add_argument("output_dir", type=Path, metavar="OUTPUT_DIR", help="an empty or new folder")
    arguments = parser.parse_args()
    output = arguments.output_dir
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise InputError(f"OUTPUT_DIR: {output} is not an empty folder; name a new one")

    model = load_checkpoint(arguments.checkpoint)
    model.save_pretrained(output, processor=imagenet_processor())
    config = model.config
    print(
        f"{output}: a {config.layer_type} ResNet with {config.depths} blocks per stage and {config.num_labels} "
        f"classes, perturbed after {model.advbn_config.insert_after}; the auxiliary branch in {output / 'auxiliary'}"
    )


if __name__ == "__main__":
    run(main)
