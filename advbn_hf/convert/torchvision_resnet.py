"""Plain ResNets with torchvision's names, to be made robust: both branches start equal."""

import re
from collections.abc import Mapping

import torch
from transformers import ResNetForImageClassification

from ..config import AdvBNConfig
from .resnet import NUM_STAGES, Naming, build, check, infer_config

LAYOUT = "a torchvision ResNet: conv1, bn1, layer<stage>.<block>, fc"
NAMING = Naming(
    convolution="conv1",
    norm="bn1",
    classifier="fc",
    block=lambda stage, block: f"layer{stage}.{block}",
    block_norm="bn",
    shortcut_convolution="downsample.0",
    shortcut_norm="downsample.1",
    layout=LAYOUT,
)

_BLOCK = re.compile(r"layer([1-4])\.(\d+)\.")


def recognises(state_dict: Mapping[str, torch.Tensor]) -> bool:
    """Whether a state dict has this layout's blocks."""
    return any(_BLOCK.match(key) for key in state_dict)


def convert(
    state_dict: dict[str, torch.Tensor],
) -> tuple[ResNetForImageClassification, ResNetForImageClassification, AdvBNConfig]:
    """Converts a ResNet. Depth, kind of block, widths and number of classes are inferred from keys and shapes.

    Args:
        state_dict: tensors by key.

    Returns:
        The model twice, and `AdvBNConfig()`.

    Raises:
        InputError: if a key is missing, unexpected or of the wrong shape, as in a ResNeXt or a wide ResNet.
    """
    blocks = {(int(m[1]), m[2]) for m in map(_BLOCK.match, state_dict) if m}
    depths = [sum(stage == wanted for stage, _ in blocks) for wanted in range(1, NUM_STAGES + 1)]
    architecture = infer_config(state_dict, NAMING, depths)
    check(state_dict, architecture, [NAMING])
    clean, auxiliary = (build(architecture, state_dict, NAMING.name_of) for _ in range(2))
    return clean, auxiliary, AdvBNConfig()
