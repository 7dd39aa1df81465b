"""Turns a checkpoint that people already have into a Transformers one with both branches, ready to publish.

python recipes/convert.py CHECKPOINT OUTPUT_DIR

It takes the layouts that AdvBN ResNets and DenseNets were first published in (DenseNets need timm), and plain
torchvision ResNets, whose branches start equal. Architecture and cut are read off the file; nothing in it is executed.
1,000 classes are taken for ImageNet's. OUTPUT_DIR must be empty or new.
"""

import argparse
from pathlib import Path
from typing import NoReturn

from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

from advbn_hf import InputError
from advbn_hf.convert import load_checkpoint
from advbn_hf.utils.cli import run
from advbn_hf.utils.files import check_empty


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
    check_empty(output, "OUTPUT_DIR")

    model = load_checkpoint(arguments.checkpoint)
    model.save_pretrained(output, processor=imagenet_processor())
    weights = sum(weight.numel() for weight in model.export().parameters())
    print(
        f"{output}: a {type(model.backbone).__name__} of {weights / 1e6:.1f} million weights and "
        f"{model.config.num_labels} classes, perturbed after {model.advbn_config.insert_after}; "
        f"the auxiliary branch in {output / 'auxiliary'}"
    )


if __name__ == "__main__":
    run(main)
