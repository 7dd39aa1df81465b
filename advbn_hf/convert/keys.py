"""Whether a state dict has the keys and shapes of a layout."""

from collections.abc import Mapping

import torch

from ..errors import InputError


def check_keys(state_dict: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Size], layout: str) -> None:
    """Checks that a state dict holds exactly the keys of a layout, in the right shapes.

    Args:
        state_dict: tensors by key.
        expected: shapes by key.
        layout: description of the layout.

    Raises:
        InputError: names the first key that does not fit.
    """
    for key, shape in expected.items():
        if key not in state_dict:
            raise InputError(f"key {key!r} is missing; expected {layout}")
        if state_dict[key].shape != shape:
            found = tuple(state_dict[key].shape)
            raise InputError(f"key {key!r} has shape {found} and should have {tuple(shape)}; expected {layout}")
    for key in state_dict:
        if key not in expected:
            raise InputError(f"key {key!r} is unexpected; expected {layout}")


def output_width(state_dict: Mapping[str, torch.Tensor], key: str, layout: str) -> int:
    """How many channels or classes a layer outputs.

    Args:
        state_dict: tensors by key.
        key: of the layer's weight.
        layout: description of the layout.

    Raises:
        InputError: the key is missing, or its tensor is no weight.
    """
    if key not in state_dict:
        raise InputError(f"key {key!r} is missing; expected {layout}")
    shape = tuple(state_dict[key].shape)
    if len(shape) < 2:
        raise InputError(f"key {key!r} has shape {shape}, and a weight has two axes or more; expected {layout}")
    return shape[0]
