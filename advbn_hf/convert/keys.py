"""Whether a state dict is in a layout: its keys and shapes."""

from collections.abc import Mapping

import torch

from ..errors import InputError


def check_keys(state_dict: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Size], layout: str) -> None:
    """Checks that a state dict holds what a layout asks for, in the right shapes, and nothing else.

    Args:
        state_dict: tensors by key.
        expected: shapes by key.
        layout: what the layout is, in words.

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
