"""A Transformers ResNet from tensors with other names.

All layouts name a standard ResNet: stride 1 in the first stage, stride 2 in the 3x3 convolution of later bottlenecks.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import ResNetConfig, ResNetForImageClassification

from .keys import check_keys, output_width

NUM_STAGES = 4

_BLOCK_OF_OURS = re.compile(r"resnet\.encoder\.stages\.(\d+)\.layers\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Naming:
    """The names of a ResNet's parts in a file.

    Args:
        convolution: the first convolution.
        norm: the norm behind it.
        classifier: the linear layer.
        block: name of a block by stage (from 1) and block (from 0); its convolutions are `conv1`, `conv2`, ...
        block_norm: start of the norms of a block, `{block_norm}1`, `{block_norm}2`, ...
        shortcut_convolution: in a block that changes shape.
        shortcut_norm: likewise.
        layout: description of the layout, for messages.
    """

    convolution: str
    norm: str
    classifier: str
    block: Callable[[int, int], str]
    block_norm: str
    shortcut_convolution: str
    shortcut_norm: str
    layout: str

    def name_of(self, key: str) -> str:
        """Translates a key of `ResNetForImageClassification`."""
        for ours, theirs in (
            ("resnet.embedder.embedder.convolution.", self.convolution),
            ("resnet.embedder.embedder.normalization.", self.norm),
            ("classifier.1.", self.classifier),
        ):
            if key.startswith(ours):
                return f"{theirs}.{key.removeprefix(ours)}"
        stage, block, inner = _BLOCK_OF_OURS.fullmatch(key).groups()
        inner = re.sub(r"^shortcut\.convolution", self.shortcut_convolution, inner)
        inner = re.sub(r"^shortcut\.normalization", self.shortcut_norm, inner)
        inner = re.sub(r"^layer\.(\d+)\.convolution", lambda m: f"conv{int(m[1]) + 1}", inner)
        inner = re.sub(r"^layer\.(\d+)\.normalization", lambda m: f"{self.block_norm}{int(m[1]) + 1}", inner)
        return f"{self.block(int(stage) + 1, int(block))}.{inner}"


def infer_config(state_dict: dict[str, torch.Tensor], naming: Naming, depths: list[int]) -> ResNetConfig:
    """Infers kind of block, widths and number of classes from keys and shapes.

    Args:
        state_dict: tensors by key.
        naming: of the keys.
        depths: blocks per stage.

    Raises:
        InputError: if a key that gives a width is missing.
    """
    bottleneck = f"{naming.block(1, 0)}.conv3.weight" in state_dict
    last = "conv3" if bottleneck else "conv2"
    stages = range(1, NUM_STAGES + 1)
    return ResNetConfig(
        embedding_size=output_width(state_dict, f"{naming.convolution}.weight", naming.layout),
        hidden_sizes=[output_width(state_dict, f"{naming.block(s, 0)}.{last}.weight", naming.layout) for s in stages],
        depths=depths,
        layer_type="bottleneck" if bottleneck else "basic",
        # A setting of every config, which this one hands on.
        # pyrefly: ignore[unexpected-keyword]
        num_labels=output_width(state_dict, f"{naming.classifier}.weight", naming.layout),
    )


def check(state_dict: dict[str, torch.Tensor], config: ResNetConfig, namings: list[Naming]) -> None:
    """Checks that a state dict holds exactly the keys of all namings together, in the right shapes.

    Raises:
        InputError: names the first key that does not fit.
    """
    with torch.device("meta"):
        ours = ResNetForImageClassification(config).state_dict()
    expected = {naming.name_of(key): value.shape for naming in namings for key, value in ours.items()}
    # torch wrote none of these before 0.4.1
    absent = {key for key in expected if key.endswith("num_batches_tracked") and key not in state_dict}
    expected = {key: shape for key, shape in expected.items() if key not in absent}
    check_keys(state_dict, expected, namings[0].layout)


def build(
    config: ResNetConfig, state_dict: dict[str, torch.Tensor], name_of: Callable[[str], str]
) -> ResNetForImageClassification:
    """A model in eval mode and float32 with copies of the tensors.

    Args:
        config: architecture.
        state_dict: tensors by key, checked.
        name_of: key of the model -> key of the state dict.
    """
    with torch.device("meta"):
        model = ResNetForImageClassification(config)
    none = torch.tensor(0)  # batches tracked
    ours = model.state_dict()
    values = {key: state_dict.get(name_of(key), none).to(dtype=v.dtype, copy=True) for key, v in ours.items()}
    model.load_state_dict(values, assign=True)
    return model.eval()
