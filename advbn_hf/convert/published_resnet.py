"""The layout that AdvBN ResNets were first published in.

`feature_x.0` and `.1` are the first convolution and batch norm, `feature_x.{3+stage}.{block}` the blocks up to the
cut, `head.layer{stage}_{block}` those behind it, `head.fc` the classifier. Stages count from 1, blocks from 0. A block
has `conv{k}`, `clean_bn{k}`, `adv_bn{k}` and, where it changes shape, `downsample.conv`, `.clean_bn` and `.adv_bn`.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from transformers import ResNetForImageClassification

from ..config import AdvBNConfig
from .resnet import NUM_STAGES, Naming, build, check, infer_config

LAYOUT = (
    "the published AdvBN layout of a ResNet: feature_x.0, feature_x.1, feature_x.<3+stage>.<block> up to the "
    "cut (after stage 1, 2 or 3), head.layer<stage>_<block> behind it, head.fc"
)

_STEM_BLOCK = re.compile(r"feature_x\.([4-7])\.(\d+)\.")
_TAIL_BLOCK = re.compile(r"head\.layer([1-4])_(\d+)\.")


def recognises(state_dict: Mapping[str, torch.Tensor]) -> bool:
    """Whether a state dict has this layout's classifier or a block of its tail."""
    return any(key.startswith("head.fc.") or _TAIL_BLOCK.match(key) for key in state_dict)


def convert(
    state_dict: dict[str, torch.Tensor],
) -> tuple[ResNetForImageClassification, ResNetForImageClassification, AdvBNConfig]:
    """Converts a ResNet. Depth, kind of block, cut, widths and number of classes are inferred from keys and shapes.

    The `adv_bn` norms of the stem are required but not used: the algorithm runs the stem through its `clean_bn` alone,
    and so do both models.

    Args:
        state_dict: tensors by key.

    Returns:
        The clean model, the auxiliary model, and `AdvBNConfig.paper()` with `insert_after` set to the module path of
        the stage that the cut follows.

    Raises:
        InputError: if a key is missing, unexpected or of the wrong shape.
    """
    stem = {(int(m[1]) - 3, m[2]) for m in map(_STEM_BLOCK.match, state_dict) if m}
    blocks = stem | {(int(m[1]), m[2]) for m in map(_TAIL_BLOCK.match, state_dict) if m}
    # Outside 1 to 3 there is no stem or no tail to convert, and the clamped cut makes the missing key the one named.
    cut = min(max(len({stage for stage, _ in stem}), 1), NUM_STAGES - 1)
    clean, auxiliary = _naming("clean", cut), _naming("adv", cut)
    depths = [sum(stage == wanted for stage, _ in blocks) for wanted in range(1, NUM_STAGES + 1)]
    architecture = infer_config(state_dict, clean, depths)
    check(state_dict, architecture, [clean, auxiliary])

    def auxiliary_name(key: str) -> str:
        name = auxiliary.name_of(key)
        return clean.name_of(key) if name.startswith("feature_x.") else name

    config = replace(AdvBNConfig.paper(), insert_after=f"resnet.encoder.stages.{cut - 1}")
    clean_model = build(architecture, state_dict, clean.name_of)
    return clean_model, build(architecture, state_dict, auxiliary_name), config


def _naming(branch: str, cut: int) -> Naming:
    """The names of the "clean" or "adv" norms and of all else."""
    return Naming(
        convolution="feature_x.0",
        norm="feature_x.1",
        classifier="head.fc",
        block=lambda stage, i: f"feature_x.{3 + stage}.{i}" if stage <= cut else f"head.layer{stage}_{i}",
        block_norm=f"{branch}_bn",
        shortcut_convolution="downsample.conv",
        shortcut_norm=f"downsample.{branch}_bn",
        layout=LAYOUT,
    )
