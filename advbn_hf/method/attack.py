"""The worst style of a batch: groups, statistics, start and ascent, as `AdvBNConfig` says."""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from ..backbones.split import Recording
from ..config import AdvBNConfig
from .perturbation import (
    MEAN,
    STD,
    ascend,
    assign_groups,
    group_means,
    initial_multipliers,
    leading_share,
    perturb,
)


def attack(
    loss_of: Callable[[Recording, Tensor, Tensor | None], Tensor],
    recording: Recording,
    config: AdvBNConfig,
    generator: torch.Generator,
    *,
    rectify: bool,
    channel_axis: int,
    other_tokens: tuple[int, ...] = (),
    measure: bool = False,
) -> tuple[Tensor, dict[str, Tensor] | None]:
    """Perturbs features by the multipliers that maximise a loss.

    Args:
        loss_of: maps a recording, features to replace its own, and the rows of the batch that it holds ((K,) int64, or
            None for all of them) to the sum of their losses, a scalar.
        recording: the stem's outputs, with features (B, C, H, W), (B, H, W, C) or (B, N, C).
        config: how strongly to perturb.
        generator: source of the random start, on the CPU.
        rectify: whether the features are rectified.
        channel_axis: the features' axis of C.
        other_tokens: tokens that are no patches; with `patches_only` they keep their values.
        measure: whether ascent statistics are returned, at the cost of two tail passes.

    Returns:
        The perturbed features, like the features, and if `measure`, the ascent statistics: fields of `AdvBNOutput`,
        scalars on the features' device.
    """
    features = recording.features
    num_groups = _num_groups(len(features), config)
    groups = assign_groups(len(features), num_groups)
    rows = None
    if config.attack_fraction < 1:  # found on the CPU: their number would make a GPU wait
        rows = leading_share(groups, num_groups, config.attack_fraction).to(features.device, non_blocking=True)
    groups = groups.to(features.device, non_blocking=True)
    kept = other_tokens if config.patches_only else ()
    means = group_means(features, groups, num_groups, channel_axis, kept)
    attacked = recording if rows is None else recording.rows(rows)
    attacked_groups = groups if rows is None else groups[rows]
    fixed_features, fixed_means = attacked.features.detach(), means.detach()

    def loss_at(multipliers: Tensor) -> Tensor:
        perturbed = perturb(fixed_features, fixed_means, multipliers, attacked_groups, rectify, channel_axis, kept)
        return loss_of(attacked, perturbed, rows)

    start = starting_multipliers(num_groups, means.shape[1], config, generator)
    start = start.to(features.device, non_blocking=True)
    multipliers = ascend(
        loss_at, start, epsilon=config.epsilon, step_size=config.step_size, num_steps=config.num_steps
    )
    statistics = None
    if measure:
        # Not under no_grad: autocast would keep the weights that it casts here, and the loss lose its gradient.
        before, after = (loss_at(place).detach() / len(fixed_features) for place in (start, multipliers))
        distance = (multipliers - 1).square().mean(dim=(1, 2)).sqrt()
        statistics = {"loss_before_ascent": before, "loss_after_ascent": after}
        statistics |= {"mean_distance": distance[MEAN], "std_distance": distance[STD]}
    return perturb(features, means, multipliers, groups, rectify, channel_axis, kept), statistics


def starting_multipliers(
    num_groups: int, num_channels: int, config: AdvBNConfig, generator: torch.Generator
) -> Tensor:
    """Where the ascent starts. Each process draws for all and takes its part: the same numbers on any number of them.

    Args:
        num_groups: G, of this process.
        num_channels: C.
        config: whether the start is random, and the half width of the box.
        generator: source of the random start, in the same state on every process.

    Returns:
        (2, G, C) float32 on the CPU.
    """
    if not config.random_start:
        return initial_multipliers(num_groups, num_channels, config.epsilon)
    rank, processes = world()
    everyone = initial_multipliers(processes * num_groups, num_channels, config.epsilon, generator)
    return everyone[:, rank * num_groups : (rank + 1) * num_groups]


def _num_groups(batch_size: int, config: AdvBNConfig) -> int:
    """Groups of this process's batch; a batch shorter than the others may have fewer than asked for."""
    if config.num_perturbations == "per_sample":
        return batch_size
    return min(max(config.num_perturbations // world()[1], 1), batch_size)


def world() -> tuple[int, int]:
    """This process's rank and the number of processes."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1
