"""The layout that AdvBN DenseNets were first published in, read into timm's DenseNet in Transformers' wrapper.

`feature_x.conv0` and `.norm0` come first, then `feature_x.denseblock{i}` and `.transition{i}` up to the cut, which
follows a transition; `head.denseblock{i}` and `head.transition{i}` behind it are counted from 1 again;
`head.{branch}_norm5` and `head.classifier` come last. A block has `denselayer{j}` with `{branch}_norm1`, `conv1`,
`{branch}_norm2` and `conv2`, a transition `{branch}_norm` and `conv`; the branches are "clean" and "adv". The first
layer behind the cut has no norm1: it takes the features, which nothing has rectified, through a ReLU alone.
"""

import copy
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification
from transformers.utils import is_timm_available

from ..config import AdvBNConfig
from ..errors import InputError
from .keys import check_keys, output_width

LAYOUT = (
    "the published AdvBN layout of a DenseNet: feature_x.conv0, feature_x.denseblock<i> and feature_x.transition<i> "
    "up to the cut, head.denseblock<i> behind it, head.classifier"
)

_LAYER = re.compile(r"(feature_x|head)\.denseblock(\d+)\.denselayer\d+\.conv1\.weight")
_PART_OF_OURS = re.compile(r"timm_model\.features\.(denseblock|transition)(\d+)\.(.+)")
_OUTSIDE_PARTS = (
    ("timm_model.features.conv0.", "feature_x.conv0."),
    ("timm_model.features.norm0.", "feature_x.norm0."),
    ("timm_model.features.norm5.", "head.{branch}_norm5."),
    ("timm_model.classifier.", "head.classifier."),
)


def recognises(state_dict: Mapping[str, torch.Tensor]) -> bool:
    """Whether a state dict has this layout's classifier or a block of its tail."""
    return any(key.startswith(("head.classifier.", "head.denseblock")) for key in state_dict)


def convert(
    state_dict: dict[str, torch.Tensor],
) -> tuple[TimmWrapperForImageClassification, TimmWrapperForImageClassification, AdvBNConfig]:
    """Converts a DenseNet. Depth, cut, widths and number of classes are inferred from keys and shapes.

    The `adv` norms of the stem are required but not used: the algorithm runs the stem through its `clean` ones alone,
    and so do both models. Where the published network lacks a norm that timm's has, this norm is set to the identity
    of eval mode, bit for bit. In training it is a norm like any other.

    Args:
        state_dict: tensors by key, without the `module.` prefix. Left untouched.

    Returns:
        The clean model, the auxiliary model (both float32, in eval mode, with copies of the tensors), and
        `AdvBNConfig.paper()` with `insert_after` set to the transition that the cut follows.

    Raises:
        InputError: if timm is missing, or if a key is missing, unexpected or of the wrong shape.
    """
    if not is_timm_available():
        raise InputError('a DenseNet needs timm, by pip install "advbn_hf[timm]"')
    config, cut = _infer_config(state_dict)
    clean = TimmWrapperForImageClassification(config).eval()
    _make_identity(clean.get_submodule(f"timm_model.features.denseblock{cut + 1}.denselayer1.norm1"))
    auxiliary = copy.deepcopy(clean)
    shapes = {key: value.shape for key, value in clean.state_dict().items()}
    clean_names, adv_names = ({key: _published_key(key, branch, cut) for key in shapes} for branch in ("clean", "adv"))
    wanted = {of[key]: shape for of in (clean_names, adv_names) for key, shape in shapes.items() if of[key]}
    check_keys(state_dict, wanted, LAYOUT)
    for model, names in ((clean, clean_names), (auxiliary, adv_names)):
        for key, value in model.state_dict().items():
            name = names[key]
            if name is not None:
                value.copy_(state_dict[clean_names[key] if name.startswith("feature_x.") else name])
    return clean, auxiliary, replace(AdvBNConfig.paper(), insert_after=f"timm_model.features.transition{cut}")


def _infer_config(state_dict: dict[str, torch.Tensor]) -> tuple[TimmWrapperConfig, int]:
    """The DenseNet that the keys describe, and after which of its blocks, from 1, it is cut."""
    depths = Counter((match[1], int(match[2])) for match in map(_LAYER.fullmatch, state_dict) if match)
    stem, tail = ([depths[place] for place in sorted(depths) if place[0] == part] for part in ("feature_x", "head"))
    if not stem or not tail:
        raise InputError(f"has no dense layers {'behind' if stem else 'before'} the cut; expected {LAYOUT}")
    growth_rate = output_width(state_dict, "feature_x.denseblock1.denselayer1.conv2.weight", LAYOUT)
    settings = {
        "growth_rate": growth_rate,
        "block_config": stem + tail,
        "bn_size": output_width(state_dict, "feature_x.denseblock1.denselayer1.conv1.weight", LAYOUT) // growth_rate,
    }
    num_labels = output_width(state_dict, "head.classifier.weight", LAYOUT)
    # A setting of every config, which this one hands on.
    # pyrefly: ignore[unexpected-keyword]
    return TimmWrapperConfig(architecture="densenet121", model_args=settings, num_labels=num_labels), len(stem)


def _published_key(key: str, branch: str, cut: int) -> str | None:
    """Translates a key of timm's DenseNet for the branch "clean" or "adv"; None for the norm that only timm's has."""
    for ours, theirs in _OUTSIDE_PARTS:
        if key.startswith(ours):
            return theirs.format(branch=branch) + key.removeprefix(ours)
    kind, number, inner = _PART_OF_OURS.fullmatch(key).groups()
    number = int(number)
    if kind == "denseblock" and number == cut + 1 and inner.startswith("denselayer1.norm1."):
        return None
    inner = re.sub(r"\bnorm", f"{branch}_norm", inner)
    return f"feature_x.{kind}{number}.{inner}" if number <= cut else f"head.{kind}{number - cut}.{inner}"


def _make_identity(norm: nn.BatchNorm2d) -> None:
    """Makes a new batch norm, whose mean is 0 and weight 1, the identity in eval mode: variance + eps is 1."""
    norm.running_var -= norm.eps
