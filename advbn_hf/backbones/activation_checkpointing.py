"""Activation checkpointing of a model whose branch and replayed outputs differ from pass to pass."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from ..errors import InputError


class ActivationCheckpointing:
    """Transformers' methods that switch checkpointing, for a model that wraps another."""

    backbone: PreTrainedModel

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Saves memory as the backbone's own method does: activations are recomputed in the backward pass.

        Args:
            activation_checkpointing_kwargs: for `torch.utils.checkpoint.checkpoint`; `use_reentrant` is always false.
            kwargs: for the backbone's own `activation_checkpointing_enable`.

        Raises:
            InputError: if the backbone does not support it.
        """
        enable(self.backbone, activation_checkpointing_kwargs, **kwargs)

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """The earlier name of `activation_checkpointing_enable`, which Trainer calls in earlier releases."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **kwargs)

    def activation_checkpointing_disable(self) -> None:
        """Undoes `activation_checkpointing_enable`."""
        disable(self.backbone)

    def gradient_checkpointing_disable(self) -> None:
        """The earlier name of `activation_checkpointing_disable`."""
        self.activation_checkpointing_disable()


def can_recompute(model: nn.Module) -> bool:
    """Whether a model is checkpointed, or can be, in Transformers' way, which is what `recomputed_within` knows."""
    return any(hasattr(module, "gradient_checkpointing") for module in model.modules())


def enable(model: PreTrainedModel, settings: dict[str, Any] | None = None, **kwargs: Any) -> None:
    """Makes a model keep fewer activations, by its own method.

    Args:
        model: a Transformers model.
        settings: for `torch.utils.checkpoint.checkpoint`.
        kwargs: for the model's own `activation_checkpointing_enable`.

    Raises:
        InputError: if it cannot, or not in a way that `recomputed_within` knows.
    """
    if model.supports_gradient_checkpointing and not can_recompute(model):
        raise InputError(
            f"gradient_checkpointing: {type(model).__name__} has its own kind, which would recompute the auxiliary "
            "branch as the clean one; leave it off"
        )
    # Its name in earlier releases of Transformers is gradient_checkpointing_enable.
    method = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    try:
        method(settings, **kwargs)
    except ValueError as error:
        raise InputError(f"gradient_checkpointing: {error}") from error


def disable(model: PreTrainedModel) -> None:
    """Makes a model keep all activations again."""
    getattr(model, "activation_checkpointing_disable", model.gradient_checkpointing_disable)()


@contextmanager
def recomputed_within(model: nn.Module, context: Callable[[], AbstractContextManager]) -> Iterator[None]:
    """Has what checkpointed modules compute within the block recomputed in the same context.

    A checkpointed module (`model.gradient_checkpointing_enable()`) runs again in the backward pass, often in another
    thread, when the context of its first run has ended: the branch of its norms, the outputs that are replayed. The
    second run needs that context too, and must not update running statistics again. Only non-reentrant checkpoints
    of torch allow that, so they are used whatever was asked for.

    Args:
        model: a Transformers model, checkpointed or not.
        context: called when a checkpointed module runs; makes the context for its second run.
    """
    # In eval mode nothing is checkpointed, and other threads may use the model: it stays as it is.
    modules = [
        module for module in model.modules() if module.training and getattr(module, "gradient_checkpointing", False)
    ]
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
    """Enters a context, and at its end restores the buffers."""
    kept = [(module, dict(module._buffers)) for module in model.modules() if module.training and module._buffers]
    for module, buffers in kept:
        module._buffers.update({name: None if buffer is None else buffer.clone() for name, buffer in buffers.items()})
    try:
        with context:
            yield
    finally:
        for module, buffers in kept:
            module._buffers.update(buffers)
