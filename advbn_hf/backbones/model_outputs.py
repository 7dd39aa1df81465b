"""What modules of any model return, read and rebuilt."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor
from transformers.utils import ModelOutput


def first_tensor(output: Any) -> Tensor | None:
    """The feature map of a module's output: the output itself, or the first entry of a tuple or `ModelOutput`."""
    if isinstance(output, ModelOutput):
        output = output.to_tuple()
    if isinstance(output, (tuple, list)) and output:
        return first_tensor(output[0])
    return output if isinstance(output, Tensor) else None


def logits_of(output: ModelOutput) -> Tensor:
    """A classifier's logits (B, K): its `logits`, or the first entry of an output that does not name them."""
    return output.logits if "logits" in output else first_tensor(output)


def with_first_tensor(output: Any, features: Tensor) -> Any:
    """A module's output with another feature map."""
    if isinstance(output, Tensor):
        return features
    if isinstance(output, ModelOutput):
        name = next(iter(output))
        return replace(output, **{name: with_first_tensor(output[name], features)})
    return type(output)([with_first_tensor(output[0], features), *output[1:]])


def map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The same structure with every tensor mapped."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, ModelOutput):
        return replace(value, **{name: map_tensors(entry, function) for name, entry in value.items()})
    if isinstance(value, dict):
        return {name: map_tensors(entry, function) for name, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)([map_tensors(entry, function) for entry in value])
    return value
