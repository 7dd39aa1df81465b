"""One traced forward pass of a classifier: what each module outputs, in which order, and at what cost."""

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from ..errors import InputError, first_line
from .model_outputs import first_tensor, logits_of
from .norms import BRANCHES, using_branch


@dataclass(frozen=True)
class ModuleCall:
    """One call of one module during a forward pass.

    Args:
        path: the module's path in the model; "" is the model itself.
        shape: shape of its feature map, (B, C, H, W), (B, H, W, C) or (B, N, C); None where it outputs none.
        flops: floating point operations of the forward pass up to the end of the call; 0 where they are not counted.
        varies: whether its feature map differs from image to image; learned latents do not.
    """

    path: str
    shape: tuple[int, ...] | None
    flops: int
    varies: bool


def probe_inputs(model: PreTrainedModel, batch_size: int = 2) -> dict[str, Tensor]:
    """A batch of noise of the image size in the model's config, or in timm's; of 224 pixels where neither has one.

    Each image has its own colour cast, so that features visibly differ from image to image.

    Args:
        model: a classifier with `pixel_values` as its main input.
        batch_size: B.

    Returns:
        `{"pixel_values": (B, C, H, W)}`, the same at every call.
    """
    channels, height, width = _input_size(model)
    generator = torch.Generator().manual_seed(0)
    cast = torch.randn(batch_size, channels, 1, 1, generator=generator)
    noise = torch.randn(batch_size, channels, height, width, generator=generator)
    return {"pixel_values": (noise + cast).to(model.device, model.dtype)}


def probe(
    model: PreTrainedModel, inputs: dict[str, Tensor], count_flops: bool = False
) -> tuple[list[ModuleCall], Tensor]:
    """Runs a model once in eval mode and without gradients and records every module call; changes nothing.

    Args:
        model: the classifier.
        inputs: what its forward takes.
        count_flops: whether to count operations, which takes longer.

    Returns:
        One entry for each module call, in the order in which they ended, and the logits (B, K).

    Raises:
        InputError: if the forward fails on these inputs or gives no logits.
    """
    batch_size = len(inputs["pixel_values"])
    calls: list[ModuleCall] = []
    counter = FlopCounterMode(display=False)

    def watch(path: str, output: Any) -> None:
        features = first_tensor(output)
        flops = counter.get_total_flops() if count_flops else 0
        if features is None or not _is_feature_map(features, batch_size):
            calls.append(ModuleCall(path, None, flops, varies=False))
        else:
            varies = not torch.equal(features[0], features[-1])
            calls.append(ModuleCall(path, tuple(features.shape), flops, varies))

    with ExitStack() as stack:
        stack.enter_context(evaluating(model, forget=True))
        stack.enter_context(torch.no_grad())
        if count_flops:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))  # the counter does not count the CPU's fused attention
            stack.enter_context(counter)
        for path, module in model.named_modules():
            handle = module.register_forward_hook(lambda _, __, output, path=path: watch(path, output))
            stack.callback(handle.remove)
        try:
            # On detached weights, since the counter fails on views of weights that want a gradient under no_grad.
            output = functional_call(model, {name: w.detach() for name, w in model.named_parameters()}, kwargs=inputs)
        except Exception as error:
            takes = ", ".join(list(inspect.signature(model.forward).parameters)[:4])
            raise InputError(
                f"{type(model).__name__} does not run on pixel_values {tuple(inputs['pixel_values'].shape)} alone; "
                f"its forward takes ({takes}, ...) and fails with: {first_line(error)}"
            ) from error
    logits = logits_of(output) if isinstance(output, ModelOutput) else None
    if logits is None or logits.shape != (batch_size, model.config.num_labels):
        raise InputError(
            f"{type(model).__name__} returns no logits (B, {model.config.num_labels}): "
            "a model with a classification head is needed"
        )
    return calls, logits


def unused_weights(model: PreTrainedModel) -> list[str]:
    """Names of weights that are to learn and get no gradient from the logits, such as those of a head of another task.

    Args:
        model: the classifier; both its branches are run on noise.
    """
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    inputs, total = probe_inputs(model), torch.zeros((), device=model.device)
    with evaluating(model, forget=True), torch.enable_grad():
        for branch in BRANCHES:
            with using_branch(branch):
                total = total + logits_of(model(**inputs)).sum()
        gradients = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
    return [name for name, gradient in zip(weights, gradients, strict=True) if gradient is None]


@contextmanager
def evaluating(model: nn.Module, forget: bool = False) -> Iterator[None]:
    """Puts a model into eval mode within the block, and each module back into its own mode afterwards.

    Args:
        model: where it is in eval mode already, it is left alone, since other threads may use it.
        forget: whether it also loses what modules keep in eval mode until they are to train again, such as LeViT's
            attention biases.
    """
    modes = [(module, module.training) for module in model.modules()]
    if not forget and not any(mode for _, mode in modes):
        yield
        return
    model.eval()
    try:
        yield
    finally:
        model.train()
        for module, mode in modes:
            if module.training != mode:
                module.train(mode)


def _input_size(model: nn.Module) -> tuple[int, int, int]:
    """Channels, height and width, by the config of the model, else by the `pretrained_cfg` that timm's models have."""
    of_timm = [module.pretrained_cfg["input_size"] for module in model.modules() if hasattr(module, "pretrained_cfg")]
    channels, *size = of_timm[0] if of_timm else (3, 224, 224)
    size = _config_value(model, "image_size", size)
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return _config_value(model, "num_channels", channels), height, width


def _config_value(model: nn.Module, name: str, default: Any) -> Any:
    """A setting of the model's config, or of the config of the outermost of its parts whose config has it."""
    for module in model.modules():
        value = getattr(getattr(module, "config", None), name, None)
        if value is not None:
            return value
    return default


def _is_feature_map(tensor: Tensor, batch_size: int) -> bool:
    return tensor.is_floating_point() and tensor.ndim in (3, 4) and tensor.shape[0] == batch_size
