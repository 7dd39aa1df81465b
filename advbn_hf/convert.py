"""Checkpoints in the layout that AdvBN was first published in, read into Transformers ResNets.

The layout names a standard ResNet (stride 1 in the first stage, stride 2 in the 3x3 convolution of later bottlenecks):
`feature_x.0` and `.1` are the first convolution and batch norm, `feature_x.{3+stage}.{block}` the blocks up to the
cut, `head.layer{stage}_{block}` those behind it, `head.fc` the classifier. Stages count from 1, blocks from 0. A block
has `conv{k}`, `clean_bn{k}`, `adv_bn{k}` and, where it changes shape, `downsample.conv`, `.clean_bn` and `.adv_bn`.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import ResNetConfig, ResNetForImageClassification

from .config import AdvBNConfig
from .errors import InputError
from .modeling import AdvBNForImageClassification

NUM_STAGES = 4
LAYOUT = (
    "expected the published AdvBN layout of a ResNet: feature_x.0, feature_x.1, feature_x.<3+stage>.<block> up to the "
    "cut (after stage 1, 2 or 3), head.layer<stage>_<block> behind it, head.fc"
)

_STEM_BLOCK = re.compile(r"feature_x\.([4-7])\.(\d+)\.")
_TAIL_BLOCK = re.compile(r"head\.layer([1-4])_(\d+)\.")
_BLOCK_OF_OURS = re.compile(r"resnet\.encoder\.stages\.(\d+)\.layers\.(\d+)\.(.+)")
_OUTSIDE_BLOCKS = (
    ("resnet.embedder.embedder.convolution.", "feature_x.0."),
    ("resnet.embedder.embedder.normalization.", "feature_x.1."),
    ("classifier.1.", "head.fc."),
)


def load_published(path: str | Path) -> AdvBNForImageClassification:
    """Reads a checkpoint in the published layout. Nothing in the file is executed.

    Args:
        path: a `torch.save` of `{"epoch", "arch", "state_dict", ...}` or of a bare state dict, or a `.safetensors`
            file.

    Returns:
        the model with both branches, in eval mode, inserted after the stage that the file was cut at. Its other
        settings are `AdvBNConfig.paper()`.

    Raises:
        InputError: if the file is missing, cannot be read without running code, or is not in the published layout.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a checkpoint in the published AdvBN layout")
    try:
        return AdvBNForImageClassification.from_branches(*convert_state_dict(_read_state_dict(path)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def convert_state_dict(
    state_dict: Mapping[str, torch.Tensor], id2label: dict[int, str] | None = None
) -> tuple[ResNetForImageClassification, ResNetForImageClassification, AdvBNConfig]:
    """Turns a state dict in the published layout into one Transformers model per branch.

    Depth, kind of block, cut, widths and number of classes are read off the keys and shapes. The `adv_bn` norms of the
    stem are required but not used: the algorithm runs the stem through its `clean_bn` alone, and so do both models.

    Args:
        state_dict: tensors by key, with or without the `module.` prefix of `DataParallel`. Left untouched.
        id2label: class names by index. `LABEL_i` without it.

    Returns:
        the clean model, the auxiliary model (both float32, in eval mode, with their own copies of the tensors), and
        `AdvBNConfig.paper()` with `insert_after` set to the module path of the stage that the cut follows.

    Raises:
        InputError: if a key is missing, unexpected or of the wrong shape, or `id2label` does not fit the classes.
    """
    state_dict = _without_data_parallel(state_dict)
    architecture, cut = _infer_architecture(state_dict)
    if id2label is not None:
        if sorted(id2label) != list(range(architecture.num_labels)):
            raise InputError(f"id2label: its keys must be 0 to {architecture.num_labels - 1}, one for each class")
        architecture.id2label = dict(id2label)
        architecture.label2id = {label: index for index, label in id2label.items()}

    with torch.device("meta"):
        shapes = {key: value.shape for key, value in ResNetForImageClassification(architecture).state_dict().items()}
    clean = {key: _published_key(key, "clean", cut) for key in shapes}
    auxiliary = {key: _published_key(key, "adv", cut) for key in shapes}
    _check(state_dict, {names[key]: shapes[key] for names in (clean, auxiliary) for key in shapes})

    auxiliary = {key: clean[key] if name.startswith("feature_x.") else name for key, name in auxiliary.items()}
    config = replace(AdvBNConfig.paper(), insert_after=f"resnet.encoder.stages.{cut - 1}")
    return _build(architecture, state_dict, clean), _build(architecture, state_dict, auxiliary), config


def _read_state_dict(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is not what its name says fails in a dozen ways
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"cannot be read as plain tensors ({reason}); {LAYOUT}") from error
    return content.get("state_dict", content) if isinstance(content, Mapping) else content


def _without_data_parallel(state_dict: Any) -> dict[str, torch.Tensor]:
    if not isinstance(state_dict, Mapping):
        raise InputError(f"holds a {type(state_dict).__name__} and not a state dict; {LAYOUT}")
    for key, value in state_dict.items():
        if not isinstance(value, torch.Tensor):
            raise InputError(f"key {key!r} holds a {type(value).__name__} and not a tensor; {LAYOUT}")
    wrapped = all(str(key).startswith("module.") for key in state_dict)
    return {str(key).removeprefix("module.") if wrapped else str(key): value for key, value in state_dict.items()}


def _infer_architecture(state_dict: dict[str, torch.Tensor]) -> tuple[ResNetConfig, int]:
    """Returns the ResNet that the keys describe and the cut. `_check` finds whatever does not fit them."""
    stem_blocks = {(int(m[1]) - 3, m[2]) for m in map(_STEM_BLOCK.match, state_dict) if m}
    tail_blocks = {(int(m[1]), m[2]) for m in map(_TAIL_BLOCK.match, state_dict) if m}
    # Outside 1 to 3 there is no stem or no tail to convert, and the clamped cut makes the missing key the one named.
    cut = min(max(len({stage for stage, _ in stem_blocks}), 1), NUM_STAGES - 1)
    stages = range(1, NUM_STAGES + 1)
    bottleneck = f"{_published_block(1, 0, cut)}.conv3.weight" in state_dict
    last = 3 if bottleneck else 2
    architecture = ResNetConfig(
        embedding_size=_width(state_dict, "feature_x.0.weight"),
        hidden_sizes=[_width(state_dict, f"{_published_block(s, 0, cut)}.conv{last}.weight") for s in stages],
        depths=[sum(s == stage for stage, _ in stem_blocks | tail_blocks) for s in stages],
        layer_type="bottleneck" if bottleneck else "basic",
        num_labels=_width(state_dict, "head.fc.weight"),
    )
    return architecture, cut


def _width(state_dict: dict[str, torch.Tensor], key: str) -> int:
    if key not in state_dict:
        raise InputError(f"key {key!r} is missing, its first key is {next(iter(state_dict), None)!r}; {LAYOUT}")
    if state_dict[key].ndim < 2:
        raise InputError(f"key {key!r} has shape {tuple(state_dict[key].shape)}, which is no weight's; {LAYOUT}")
    return state_dict[key].shape[0]


def _published_block(stage: int, block: int, cut: int) -> str:
    return f"feature_x.{3 + stage}.{block}" if stage <= cut else f"head.layer{stage}_{block}"


def _published_key(key: str, branch: str, cut: int) -> str:
    """Translates a key of `ResNetForImageClassification` for the branch "clean" or "adv"."""
    for ours, theirs in _OUTSIDE_BLOCKS:
        if key.startswith(ours):
            return theirs + key.removeprefix(ours)
    stage, block, inner = _BLOCK_OF_OURS.fullmatch(key).groups()
    inner = re.sub(r"^shortcut\.convolution", "downsample.conv", inner)
    inner = re.sub(r"^shortcut\.normalization", f"downsample.{branch}_bn", inner)
    inner = re.sub(r"^layer\.(\d+)\.convolution", lambda m: f"conv{int(m[1]) + 1}", inner)
    inner = re.sub(r"^layer\.(\d+)\.normalization", lambda m: f"{branch}_bn{int(m[1]) + 1}", inner)
    return f"{_published_block(int(stage) + 1, int(block), cut)}.{inner}"


def _check(state_dict: dict[str, torch.Tensor], expected: dict[str, torch.Size]) -> None:
    for key, shape in expected.items():
        if key not in state_dict:
            raise InputError(f"key {key!r} is missing; {LAYOUT}")
        if state_dict[key].shape != shape:
            found = tuple(state_dict[key].shape)
            raise InputError(f"key {key!r} has shape {found} and should have {tuple(shape)}; {LAYOUT}")
    for key in state_dict:
        if key not in expected:
            raise InputError(f"key {key!r} is unexpected; {LAYOUT}")


def _build(
    architecture: ResNetConfig, state_dict: dict[str, torch.Tensor], published: dict[str, str]
) -> ResNetForImageClassification:
    with torch.device("meta"):
        model = ResNetForImageClassification(architecture)
    values = {key: state_dict[published[key]].to(dtype=v.dtype, copy=True) for key, v in model.state_dict().items()}
    model.load_state_dict(values, assign=True)
    return model.eval()
