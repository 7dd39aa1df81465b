"""One forward pass of a classifier, watched: what each module gave out, in which order, and where one could cut."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .errors import InputError


@dataclass(frozen=True)
class ModuleCall:
    """One call of one module during a forward pass, in the order in which the calls ended.

    Args:
        path: the module's path in the model.
        shape: shape of its feature map, or None where its output is none: (B, C, H, W) or (B, N, C), floating point.
        rectified: whether no feature was negative.
        overwritten: whether something later in the pass wrote into the feature map.
    """

    path: str
    shape: tuple[int, ...] | None
    rectified: bool
    overwritten: bool


def first_tensor(output: Any) -> Tensor | None:
    """The feature map of a module's output: the output itself, or the first entry of a tuple or `ModelOutput`."""
    if isinstance(output, ModelOutput):
        output = output.to_tuple()
    if isinstance(output, (tuple, list)) and output:
        return first_tensor(output[0])
    return output if isinstance(output, Tensor) else None


def probe_inputs(model: PreTrainedModel, batch_size: int = 2) -> dict[str, Tensor]:
    """A batch of noise of the size that the model's config names, or 224 pixels where it names none.

    Args:
        model: a classifier with `pixel_values` as its main input.
        batch_size: B.

    Returns:
        `{"pixel_values": (B, C, H, W)}`, the same at every call.
    """
    config = model.config
    size = getattr(config, "image_size", None) or 224
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    channels = getattr(config, "num_channels", None) or 3
    noise = torch.randn(batch_size, channels, height, width, generator=torch.Generator().manual_seed(0))
    return {"pixel_values": noise.to(model.device, model.dtype)}


def probe(model: nn.Module, inputs: dict[str, Tensor]) -> list[ModuleCall]:
    """Runs a model once in eval mode and without gradients and tells what each module did; changes nothing.

    Args:
        model: the classifier.
        inputs: what its forward takes.

    Returns:
        One entry for each module call, in the order in which they ended; the last is the model's own, with path "".

    Raises:
        InputError: if the forward fails on these inputs or gives no logits.
    """
    batch_size = len(next(iter(inputs.values())))
    seen: list[tuple[str, Tensor | None, bool, int]] = []

    def watch(path: str, output: Any) -> None:
        features = first_tensor(output)
        if features is None or not _is_feature_map(features, batch_size):
            seen.append((path, None, False, 0))
        else:
            seen.append((path, features, bool((features >= 0).all()), features._version))

    with _hooked(model, watch), evaluating(model), torch.no_grad():
        try:
            output = model(**inputs)
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{type(model).__name__} does not run on pixel_values alone: {reason}") from error
    if getattr(output, "logits", None) is None or output.logits.ndim != 2:
        raise InputError(
            f"{type(model).__name__} returns no logits (B, classes): a model with a classification head is needed"
        )
    return [
        ModuleCall(
            path=path,
            shape=None if features is None else tuple(features.shape),
            rectified=rectified,
            overwritten=features is not None and features._version != version,
        )
        for path, features, rectified, version in seen
    ]


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Puts modules into eval mode within the block and gives each of them its own mode back afterwards."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _hooked(model: nn.Module, watch: Any) -> Iterator[None]:
    handles = [
        module.register_forward_hook(lambda _, __, output, path=path: watch(path, output))
        for path, module in model.named_modules()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_feature_map(tensor: Tensor, batch_size: int) -> bool:
    return tensor.is_floating_point() and tensor.ndim in (3, 4) and tensor.shape[0] == batch_size
