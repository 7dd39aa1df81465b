"""What stands at the positions of a feature map: patches of the image, position codes, tokens that are no patches.

All is found by what a model outputs for three images: two of noise, which differ in every pixel, and one of a single
colour. A token that is the same for both images of noise is no patch: a class token or a register, before attention
mixes them. In the image of one colour all patches are equal, so neighbours that differ carry a position code.
"""

from collections.abc import Iterable
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .model_outputs import first_tensor
from .tracing import evaluating, probe_inputs

_LEAST_SIDE = 8  # of a map that is judged: in smaller ones the padding of convolutions may reach every position


def probe_maps(model: PreTrainedModel, paths: Iterable[str]) -> dict[str, Tensor]:
    """Feature maps for two images of noise and one of a single colour, of the size that `probe_inputs` gives.

    Args:
        model: the classifier; it runs once, in eval mode and without gradients.
        paths: modules that output feature maps.

    Returns:
        By path the map of the module's first call, with a first axis of 3.
    """
    inputs = probe_inputs(model)
    colour = inputs["pixel_values"][:1].mean(dim=(2, 3), keepdim=True).expand_as(inputs["pixel_values"][:1])
    maps: dict[str, Tensor] = {}
    with ExitStack() as stack:
        stack.enter_context(evaluating(model, forget=True))
        stack.enter_context(torch.no_grad())
        for path in paths:
            stack.callback(_keep(model.get_submodule(path), path, maps).remove)
        model(pixel_values=torch.cat([inputs["pixel_values"], colour]))
    return maps


def _keep(module: nn.Module, path: str, maps: dict[str, Tensor]) -> torch.utils.hooks.RemovableHandle:
    def keep(_: nn.Module, __: tuple, output: object) -> None:
        if path not in maps:
            maps[path] = first_tensor(output).clone()  # what follows may write into it

    return module.register_forward_hook(keep)


def holds_patches_alone(features: Tensor, channel_axis: int) -> bool:
    """Whether a feature map has neither position codes nor tokens that are no patches.

    Args:
        features: from `probe_maps`, (3, C, H, W), (3, H, W, C), (3, N, C) or (3, C, N).
        channel_axis: the axis of C.
    """
    if other_tokens(features, channel_axis):
        return False
    in_one_colour = features[2].movedim(channel_axis if channel_axis < 0 else channel_axis - 1, -1)
    if in_one_colour.ndim == 3 and min(in_one_colour.shape[:2]) < _LEAST_SIDE:
        return True
    tolerance = max(1e-5, 2 * torch.finfo(features.dtype).eps) * in_one_colour.abs().max()
    differences = [in_one_colour.diff(dim=axis).abs().amax(-1) for axis in range(in_one_colour.ndim - 1)]
    # Some neighbours are enough: at the borders padding makes them differ.
    return all(bool((size <= tolerance).any()) for size in differences if size.numel())


def other_tokens(features: Tensor, channel_axis: int) -> tuple[int, ...]:
    """The tokens that are no patches: those that do not vary with the image.

    Args:
        features: from `probe_maps`, (3, N, C) or (3, C, N); maps have none.
        channel_axis: the axis of C.

    Returns:
        Positions along N, those of the second half counted from the end (-1 is the last), so that they are the same
        for other sizes of images.
    """
    if features.ndim == 4:
        return ()
    tokens = features.movedim(channel_axis, -1)
    same = (tokens[0] == tokens[1]).all(-1).nonzero().flatten().tolist()
    count = tokens.shape[1]
    return tuple(place if 2 * place < count else place - count for place in same)
