"""What variants with an ascent of their own have in common: each image has a perturbation."""

import torch
from torch import Tensor

from advbn_hf.config import AdvBNConfig
from advbn_hf.errors import InputError
from advbn_hf.method.attack import starting_multipliers
from advbn_hf.method.perturbation import group_means
from advbn_hf.modeling import AdvBNForImageClassification


def check_one_per_image(method: str, config: AdvBNConfig, one_step: bool = False) -> None:
    """Refuses settings that the variant would leave out.

    Args:
        method: its name.
        config: its settings.
        one_step: whether it takes one step only.

    Raises:
        InputError: `num_perturbations` is a number, or `num_steps` not 1 where one step is taken.
    """
    if config.num_perturbations != "per_sample":
        raise InputError(f"{method}: num_perturbations must be per_sample, got {config.num_perturbations}")
    if one_step and config.num_steps != 1:
        raise InputError(f"{method}: num_steps must be 1, got {config.num_steps}")


def start_per_image(
    model: AdvBNForImageClassification, features: Tensor
) -> tuple[Tensor, Tensor, tuple[Tensor, bool, int, tuple[int, ...]]]:
    """Where the ascent of each image starts.

    Args:
        model: with settings and generator of the start.
        features: (B, C, H, W), (B, H, W, C) or (B, N, C).

    Returns:
        Means (B, C), starting multipliers (2, B, C), and the last arguments of `perturb`.
    """
    groups, axis = torch.arange(len(features), device=features.device), model.split.channel_axis
    kept = model.split.other_tokens if model.advbn_config.patches_only else ()
    means = group_means(features, groups, len(features), axis, kept)
    start = starting_multipliers(*means.shape, model.advbn_config, model.generator).to(features.device)
    return means, start, (groups, model.split.rectified, axis, kept)
