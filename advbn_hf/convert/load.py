"""From a file to a model: tensors are read, the layout is found, the classes are named."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from ..backbones.loading import PICKLED
from ..config import AdvBNConfig
from ..data.imagenet import imagenet_classes
from ..errors import InputError, first_line
from ..modeling import AdvBNForImageClassification
from . import efficientnet_lite, published_densenet, published_resnet, torchvision_resnet
from .efficientnet_lite import installed_checkpoint

LAYOUTS = (published_densenet, published_resnet, torchvision_resnet, efficientnet_lite)
EXPECTED = "expected " + ", or ".join(layout.LAYOUT for layout in LAYOUTS)


def load_checkpoint(path: str | Path) -> AdvBNForImageClassification:
    """Reads a checkpoint in one of the known layouts. Nothing in the file is executed.

    Args:
        path: a `torch.save` of `{"epoch", "arch", "state_dict", ...}` or of a bare state dict, or a `.safetensors`
            file; or the name of an installed model, such as "efficientnet-lite0".

    Returns:
        The model with both branches, in eval mode; 1,000 classes get ImageNet's names.

    Raises:
        InputError: if the file is missing, cannot be read without running code, or is in no known layout.

    Example:
        >>> model = load_checkpoint("resnet50-advbn.pth.tar")  # doctest: +SKIP
        >>> model.save_pretrained("resnet50-advbn")  # doctest: +SKIP
    """
    path = installed_checkpoint(str(path)) or Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file, {EXPECTED}")
    try:
        return AdvBNForImageClassification.from_branches(*convert_state_dict(_read_state_dict(path)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def convert_state_dict(
    state_dict: Mapping[str, torch.Tensor], id2label: dict[int, str] | None = None
) -> tuple[PreTrainedModel, PreTrainedModel, AdvBNConfig]:
    """Turns a state dict in one of the known layouts into one Transformers model per branch.

    Args:
        state_dict: tensors by key, with or without the `module.` prefix of `DataParallel`. Left untouched.
        id2label: class names by index; by default ImageNet's where there are 1,000 classes, else `LABEL_i`.

    Returns:
        The clean model, the auxiliary model (both float32, in eval mode, with copies of the tensors), and the config;
        its `insert_after` is where the file's network was cut, if it was.

    Raises:
        InputError: if a key is missing, unexpected or of the wrong shape, or `id2label` does not fit the classes.
    """
    state_dict = _without_data_parallel(state_dict)
    layout = next((layout for layout in LAYOUTS if layout.recognises(state_dict)), None)
    if layout is None:
        raise InputError(f"its first key is {next(iter(state_dict), None)!r}, of no known layout; {EXPECTED}")
    clean, auxiliary, config = layout.convert(state_dict)
    classes = range(clean.config.num_labels)
    if id2label is None and len(classes) == 1000:
        id2label = dict(enumerate(name for _, name in imagenet_classes()))
    if id2label is not None:
        if sorted(id2label) != list(classes):
            raise InputError(f"id2label: its keys must be 0 to {len(classes) - 1}, one for each class")
        for model in (clean, auxiliary):
            model.config.id2label = dict(id2label)
            model.config.label2id = {label: index for index, label in id2label.items()}
    return clean, auxiliary, config


def _read_state_dict(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise InputError(f"cannot be read as plain tensors ({PICKLED}); {EXPECTED}") from error
    except Exception as error:  # a file that is not what its name says fails in a dozen ways
        raise InputError(f"cannot be read as plain tensors ({first_line(error)}); {EXPECTED}") from error
    return content.get("state_dict", content) if isinstance(content, Mapping) else content


def _without_data_parallel(state_dict: Any) -> dict[str, torch.Tensor]:
    if not isinstance(state_dict, Mapping):
        raise InputError(f"holds a {type(state_dict).__name__} and not a state dict; {EXPECTED}")
    for key, value in state_dict.items():
        if not isinstance(value, torch.Tensor):
            raise InputError(f"key {key!r} holds a {type(value).__name__} and not a tensor; {EXPECTED}")
        if value.layout != torch.strided or value.device.type != "cpu":
            raise InputError(f"key {key!r} holds a sparse tensor, or one without values; {EXPECTED}")
        if value.is_complex():
            raise InputError(f"key {key!r} holds complex numbers; {EXPECTED}")
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(
                f"key {key!r} holds non-finite values (NaN or inf); convert a checkpoint from before they arose"
            )
    wrapped = all(str(key).startswith("module.") for key in state_dict)
    return {str(key).removeprefix("module.") if wrapped else str(key): value for key, value in state_dict.items()}
