"""Activation checkpointing of a model that computes differently at different times."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from ..errors import InputError


def can_recompute(model: nn.Module) -> bool:
    """Whether a model is checkpointed, or can be, in Transformers' way, which is what `recomputed_within` knows."""
    return any(hasattr(module, "gradient_checkpointing") for module in model.modules())


def enable(model: PreTrainedModel, settings: dict[str, Any] | None = None, **kwargs: Any) -> None:
    """Has a model keep fewer activations, by its own method.

    Args:
        model: a Transformers model.
        settings: for `torch.utils.checkpoint.checkpoint`.
        kwargs: for the model's own `activation_checkpointing_enable`.

    Raises:
        InputError: if it cannot, or not in a way that `recomputed_within` knows.
    """
    if model.supports_gradient_checkpointing and not can_recompute(model):
        raise InputError(
            f"gradient_checkpointing: {type(model).__name__} has one of its own, which would compute the auxiliary "
            "branch again as the clean one; leave it off"
        )
    # Its name in earlier releases of Transformers is gradient_checkpointing_enable.
    method = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    try:
        method(settings, **kwargs)
    except ValueError as error:
        raise InputError(f"gradient_checkpointing: {error}") from error


@contextmanager
def recomputed_within(model: nn.Module, context: Callable[[], AbstractContextManager]) -> Iterator[None]:
    """Lets what checkpointed modules compute within the block be computed again as it was.

    A checkpointed module (`model.gradient_checkpointing_enable()`) runs a second time in the backward pass, when what
    it ran in has ended: the branch of its norms, the outputs that modules in it answer with. It is to run in that once
    more, and without a second update of running statistics. Only torch's checkpoints without reentrance can do that,
    so they are used whatever was asked for.

    Args:
        model: a Transformers model, checkpointed or not.
        context: called when a checkpointed module runs, gives the context for it to run in a second time.
    """
    modules = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]
    before = [vars(module).get("_gradient_checkpointing_func") for module in modules]

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), _keeping_buffers(model, context())

    for module, function in zip(modules, before, strict=True):
        if function is not None:
            module._gradient_checkpointing_func = partial(function, use_reentrant=False, context_fn=contexts)
    try:
        yield
    finally:
        for module, function in zip(modules, before, strict=True):
            if function is not None:
                module._gradient_checkpointing_func = function


@contextmanager
def _keeping_buffers(model: nn.Module, context: AbstractContextManager) -> Iterator[None]:
    """Enters a context, and forgets at its end what was written into buffers within."""
    kept = [(module, dict(module._buffers)) for module in model.modules() if module.training and module._buffers]
    for module, buffers in kept:
        module._buffers.update({name: None if buffer is None else buffer.clone() for name, buffer in buffers.items()})
    try:
        with context:
            yield
    finally:
        for module, buffers in kept:
            module._buffers.update(buffers)
