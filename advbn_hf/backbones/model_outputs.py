"""Outputs of modules of any model: read and rebuilt."""

from dataclasses import replace
from typing import Any

from accelerate.utils import honor_type
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
    return honor_type(output, [with_first_tensor(output[0], features), *output[1:]])
