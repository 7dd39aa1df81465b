"""The perturbation of AdvBN as functions of tensors (Shu et al., NeurIPS 2021, section 3).

Shapes used below: B images, C channels, G groups of images. Features are (B, C, H, W), (B, H, W, C) or tokens
(B, N, C); `channel_axis` says which. `other_tokens` are positions of tokens that are no patches: they count in no
statistic and keep their values. A group is a contiguous part of the batch that shares one perturbation. Multipliers
are (2, G, C): those of the mean, then those of the standard deviation. Statistics and multipliers are float32 whatever
the features are.
"""

from collections.abc import Callable

import torch
from torch import Tensor

MEAN, STD = 0, 1  # first axis of multipliers


def assign_groups(batch_size: int, num_groups: int) -> Tensor:
    """Cuts a batch into contiguous groups whose sizes differ by one at most.

    Args:
        batch_size: B.
        num_groups: G, at most B.

    Returns:
        (B,) int64 on the CPU, the group of each sample in 0..G-1, ascending.
    """
    return torch.arange(batch_size) * num_groups // batch_size


def leading_share(groups: Tensor, num_groups: int, fraction: float) -> Tensor:
    """Indices of the first `fraction` of each group's samples, at least one of each.

    Args:
        groups: (B,) as from `assign_groups`, on the CPU.
        num_groups: G.
        fraction: above 0, at most 1.

    Returns:
        (K,) int64 on the CPU, ascending.
    """
    sizes = torch.bincount(groups, minlength=num_groups)
    position = torch.arange(len(groups)) - (sizes.cumsum(0) - sizes)[groups]
    # The slack keeps 0.1 * 30 = 3.0000000000000004 from being four samples.
    return torch.nonzero(position < torch.ceil(sizes * fraction - 1e-6)[groups]).flatten()


def group_means(
    features: Tensor, groups: Tensor, num_groups: int, channel_axis: int, other_tokens: tuple[int, ...] = ()
) -> Tensor:
    """Mean of each channel over the pixels (or tokens of patches) and the images of a group.

    Args:
        features: (B, C, H, W), (B, H, W, C) or (B, N, C).
        groups: (B,) as from `assign_groups`.
        num_groups: G.
        channel_axis: the axis of C, counted from either end.
        other_tokens: positions along N that do not count, negative ones from its end.

    Returns:
        (G, C) float32.
    """
    positions = [axis for axis in range(1, features.ndim) if axis != channel_axis % features.ndim]
    if other_tokens:
        counted = _patches(features, channel_axis, other_tokens)
        total = torch.where(counted, features, 0).sum(dim=positions, dtype=torch.float32)
        means = total / (counted.numel() - len(other_tokens))
    else:
        means = features.mean(dim=positions, dtype=torch.float32)
    if num_groups == len(means):
        return means
    membership = torch.nn.functional.one_hot(groups, num_groups).to(means.dtype)
    # A product instead of index_add_, whose order of additions is not fixed on a GPU.
    with torch.autocast(features.device.type, enabled=False):
        return (membership / membership.sum(dim=0)).T @ means


def perturb(
    features: Tensor,
    means: Tensor,
    multipliers: Tensor,
    groups: Tensor,
    rectify: bool,
    channel_axis: int,
    other_tokens: tuple[int, ...] = (),
) -> Tensor:
    """Rescales mean and standard deviation of each channel: `activation((f - mu) * s + mu * m)`, section 3.1.

    Computed as `f * s + mu * (m - s)`, which is exactly `f` where both multipliers are 1.

    Args:
        features: (B, C, H, W), (B, H, W, C) or (B, N, C).
        means: (G, C).
        multipliers: (2, G, C).
        groups: (B,).
        rectify: whether the activation is a ReLU, for features that are rectified already, or the identity.
        channel_axis: the axis of C, counted from either end.
        other_tokens: positions along N that keep their values, negative ones from its end.

    Returns:
        like `features`, in their dtype.
    """
    scale = multipliers[STD]
    shift = means * (multipliers[MEAN] - scale)
    shape = [1] * features.ndim
    shape[0], shape[channel_axis] = len(features), -1
    perturbed = features * scale[groups].view(shape) + shift[groups].view(shape)
    perturbed = perturbed.to(features.dtype)
    # Neither relu nor clamp (since torch 2.15): their gradient at 0 is 0, so where both multipliers are 1, rectified
    # features would get none.
    perturbed = torch.where(perturbed < 0, 0, perturbed) if rectify else perturbed
    return (
        torch.where(_patches(features, channel_axis, other_tokens), perturbed, features) if other_tokens else perturbed
    )


def _patches(features: Tensor, channel_axis: int, other_tokens: tuple[int, ...]) -> Tensor:
    """Which tokens are patches: bool, of the shape (1, N, 1) or, where channels come first, (1, 1, N)."""
    shape = list(features.shape)
    shape[0] = shape[channel_axis] = 1
    patches = torch.ones(max(shape), dtype=torch.bool, device=features.device)
    for position in other_tokens:  # one by one: an index tensor would make a GPU wait
        patches[position] = False
    return patches.view(shape)


def initial_multipliers(
    num_groups: int, num_channels: int, epsilon: float, generator: torch.Generator | None = None
) -> Tensor:
    """Multipliers of 1, or with a generator uniform in [1 - epsilon, 1 + epsilon].

    Drawn group by group, so that drawing for G groups and then for G' more gives what drawing for G + G' gives.

    Args:
        num_groups: G.
        num_channels: C.
        epsilon: half the width of the box.
        generator: source of the random start, on the CPU.

    Returns:
        (2, G, C) float32 on the CPU.
    """
    if generator is None:
        return torch.ones(2, num_groups, num_channels)
    uniform = torch.rand(num_groups, 2, num_channels, generator=generator).transpose(0, 1)
    return 1 + epsilon * (2 * uniform - 1)


def ascend(
    loss_of: Callable[[Tensor], Tensor], multipliers: Tensor, *, epsilon: float, step_size: float, num_steps: int
) -> Tensor:
    """Projected sign ascent of a loss over the multipliers (section 3.2; the sign steps are those of PGD).

    Only the multipliers are differentiated: no other tensor receives a gradient.

    Args:
        loss_of: maps multipliers (2, G, C) to the loss that is maximised, a scalar.
        multipliers: (2, G, C), where to start.
        epsilon: half the width of the box around 1, to which the multipliers are clipped.
        step_size: length of a step.
        num_steps: number of steps.

    Returns:
        (2, G, C), detached.
    """
    for _ in range(num_steps):
        with torch.enable_grad():
            multipliers = multipliers.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss_of(multipliers), multipliers)
        multipliers = sign_step(multipliers.detach(), gradient, epsilon=epsilon, step_size=step_size)
    return multipliers.detach()


def sign_step(multipliers: Tensor, gradient: Tensor, *, epsilon: float, step_size: float) -> Tensor:
    """One step of the ascent: along the gradient's sign, then clipped to the box.

    Args:
        multipliers: (2, ..., C).
        gradient: of the loss that is maximised, like the multipliers.
        epsilon: half the width of the box around 1.
        step_size: length of the step.

    Returns:
        like the multipliers.
    """
    return torch.clamp(multipliers + step_size * gradient.sign(), 1 - epsilon, 1 + epsilon)
