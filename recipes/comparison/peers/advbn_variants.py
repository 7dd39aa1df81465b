"""Variations on AdvBN that go beyond the paper: random steps, momentum, mixed and correlated styles, more depth."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from advbn_hf.backbones.model_outputs import with_first_tensor
from advbn_hf.backbones.norms import using_branch
from advbn_hf.backbones.split import Recording, Split
from advbn_hf.backbones.tracing import evaluating
from advbn_hf.config import AdvBNConfig
from advbn_hf.errors import InputError
from advbn_hf.method.attack import starting_multipliers
from advbn_hf.method.losses import AdvBNOutput, Objective, two_branch_output
from advbn_hf.method.perturbation import ascend, group_means, perturb
from advbn_hf.modeling import AdvBNForImageClassification

from .mixstyle_dsu import mix_styles


class RandomStepForImageClassification(AdvBNForImageClassification):
    """AdvBN whose step size is uniform between 0 and twice `step_size`, drawn for each batch."""

    def perturb(self, recording: Recording, objective: Objective) -> tuple[Tensor, dict[str, Tensor] | None]:
        """As `AdvBNForImageClassification.perturb`."""
        config = self.advbn_config
        drawn = 2 * config.step_size * (1 - torch.rand((), generator=self.generator).item())  # never 0
        self.advbn_config = dataclasses.replace(config, step_size=drawn)
        try:
            return super().perturb(recording, objective)
        finally:
            self.advbn_config = config


class MomentumForImageClassification(AdvBNForImageClassification):
    """AdvBN whose starts are moved to where the ascents of earlier batches ended; each image has a perturbation.

    Raises:
        InputError: if the settings ask for fewer perturbations.
    """

    MOMENTUM = 0.9

    def __init__(self, backbone: PreTrainedModel, config: AdvBNConfig) -> None:
        _refuse_fewer_perturbations("advbn_momentum", config)
        super().__init__(backbone, config)
        self.drift: Tensor | float = 0.0  # (2, 1, C), running mean of the multipliers found, less 1

    def perturb(self, recording: Recording, objective: Objective) -> tuple[Tensor, None]:
        """As `AdvBNForImageClassification.perturb`; ascent statistics are not returned."""
        config, features = self.advbn_config, recording.features
        means, start, applied = _one_per_image(self, features)
        start = torch.clamp(start + self.drift, 1 - config.epsilon, 1 + config.epsilon)

        def loss_at(multipliers: Tensor) -> Tensor:
            perturbed = perturb(features.detach(), means.detach(), multipliers, *applied)
            return objective.loss(self.tail_logits(recording, perturbed, "auxiliary"), "sum")

        with evaluating(self.backbone):
            found = ascend(
                loss_at, start, epsilon=config.epsilon, step_size=config.step_size, num_steps=config.num_steps
            )
        average = found.mean(dim=1, keepdim=True) - 1
        self.drift = self.MOMENTUM * self.drift + (1 - self.MOMENTUM) * average
        return perturb(features, means, found, *applied), None


class CleanGradientForImageClassification(AdvBNForImageClassification):
    """AdvBN whose step follows the gradient that the clean branch has anyway, at multipliers of 1.

    Raises:
        InputError: if the settings ask for more than one step, or for fewer perturbations than one an image.
    """

    def __init__(self, backbone: PreTrainedModel, config: AdvBNConfig) -> None:
        _refuse_fewer_perturbations("advbn_clean_gradient", config)
        if config.num_steps != 1:
            raise InputError(f"advbn_clean_gradient: num_steps must be 1, got {config.num_steps}")
        super().__init__(backbone, config)

    def training_output(self, recording: Recording, objective: Objective) -> AdvBNOutput:
        """CE(tail_clean(f)) + CE(tail_auxiliary(f_adv)); ascent statistics are not returned."""
        config, features = self.advbn_config, recording.features
        means, start, applied = _one_per_image(self, features)
        seen = features if features.requires_grad else features.detach().requires_grad_()
        logits = self.tail_logits(recording, seen, "clean")
        (upwards,) = torch.autograd.grad(objective.loss(logits, "sum"), seen, retain_graph=True)
        ones = torch.ones_like(start).requires_grad_()
        maximised = (perturb(features.detach(), means.detach(), ones, *applied) * upwards).sum()
        (slope,) = torch.autograd.grad(maximised, ones)
        found = torch.clamp(start + config.step_size * slope.sign(), 1 - config.epsilon, 1 + config.epsilon)
        auxiliary_logits = self.tail_logits(recording, perturb(features, means, found, *applied), "auxiliary")
        return two_branch_output(logits, auxiliary_logits, objective)


def _refuse_fewer_perturbations(method: str, config: AdvBNConfig) -> None:
    if config.num_perturbations != "per_sample":
        raise InputError(f"{method}: num_perturbations must be per_sample, got {config.num_perturbations}")


def _one_per_image(
    model: AdvBNForImageClassification, features: Tensor
) -> tuple[Tensor, Tensor, tuple[Tensor, bool, int]]:
    """Means (B, C), starting multipliers (2, B, C) and the last arguments of `perturb`: a perturbation an image."""
    groups, axis = torch.arange(len(features), device=features.device), model.split.channel_axis
    means = group_means(features, groups, len(features), axis)
    start = starting_multipliers(*means.shape, model.advbn_config, model.generator).to(features.device)
    return means, start, (groups, model.split.rectified, axis)


class MixedStartForImageClassification(AdvBNForImageClassification):
    """AdvBN that perturbs features whose style is mixed, in a uniformly random share, with that of another image."""

    def perturb(self, recording: Recording, objective: Objective) -> tuple[Tensor, dict[str, Tensor] | None]:
        """As `AdvBNForImageClassification.perturb`."""
        features = recording.features
        partners = torch.randperm(len(features), generator=self.generator)
        weight = torch.rand(len(features), generator=self.generator)
        mixed = mix_styles(features, partners, weight, self.split.channel_axis)
        mixed = mixed.clamp(min=0) if self.split.rectified else mixed
        return super().perturb(recording.with_features(mixed), objective)


class CorrelatedForImageClassification(AdvBNForImageClassification):
    """AdvBN that perturbs features whose channels are mixed: style as their correlation (Gatys et al., CVPR 2016).

    Each image's deviations from its means go through I + R; entries of R have variance 1 / (4 C).
    """

    def perturb(self, recording: Recording, objective: Objective) -> tuple[Tensor, dict[str, Tensor] | None]:
        """As `AdvBNForImageClassification.perturb`."""
        features, axis = recording.features, self.split.channel_axis
        channels = features.shape[axis]
        drawn = torch.randn(len(features), channels, channels, generator=self.generator) / (2 * channels**0.5)
        mixed = mix_channels(features, torch.eye(channels) + drawn, axis)
        mixed = mixed.clamp(min=0) if self.split.rectified else mixed
        return super().perturb(recording.with_features(mixed), objective)


def mix_channels(features: Tensor, matrices: Tensor, channel_axis: int) -> Tensor:
    """mu + M (f - mu) for each image, mu its means over positions.

    Args:
        features: (B, C, H, W), (B, H, W, C) or (B, N, C).
        matrices: M, (B, C, C).
        channel_axis: the features' axis of C.
    """
    last = features.movedim(channel_axis, -1)
    flat = last.flatten(1, -2)
    means = flat.mean(dim=1, keepdim=True)
    mixed = means + (flat - means) @ matrices.to(flat).mT
    return mixed.view(last.shape).movedim(-1, channel_axis)


class _Deeper(AdvBNForImageClassification):
    """Knows a second place to perturb: the module after the one of `insert_after` in the same list.

    Raises:
        InputError: if that is in no list.
    """

    def __init__(self, backbone: PreTrainedModel, config: AdvBNConfig) -> None:
        super().__init__(backbone, config)
        blocks, _, index = self.split.insert_after.rpartition(".")
        if not index.isdecimal():
            raise InputError(
                f'insert_after: after {self.split.insert_after} there is no second place; name a stage, or "auto"'
            )
        self.deeper = Split(self.backbone, f"{blocks}.{int(index) + 1}")

    def deeper_logits(self, recording: Recording, features: Tensor, objective: Objective) -> Tensor:
        """Auxiliary logits (B, K) for features of the first place, with those of the second perturbed."""
        first = self.backbone.get_submodule(self.split.insert_after)
        replaced = first.register_forward_hook(lambda _, __, output: with_first_tensor(output, features))
        try:
            with using_branch("auxiliary"):
                deep = self.deeper.stem(**recording.inputs)
        finally:
            replaced.remove()
        with self._cut_deeper():
            perturbed, _ = self.perturb(deep, objective)
            return self.tail_logits(deep, perturbed, "auxiliary")

    @contextmanager
    def _cut_deeper(self) -> Iterator[None]:
        first = self.split
        self.split = self.deeper
        try:
            yield
        finally:
            self.split = first


class TwoDepthsForImageClassification(_Deeper):
    """AdvBN that perturbs twice: after the first stage and, what comes of that, after the second."""

    def training_output(self, recording: Recording, objective: Objective) -> AdvBNOutput:
        """CE(tail_clean(f)) + CE(tail_auxiliary(f_adv)) with both perturbations in the latter."""
        adversarial, _ = self.perturb(recording, objective)
        auxiliary_logits = self.deeper_logits(recording, adversarial, objective)
        logits = self.tail_logits(recording, None, "clean")
        return two_branch_output(logits, auxiliary_logits, objective)


class RandomDepthForImageClassification(_Deeper):
    """AdvBN that perturbs after the first stage in one half of the batches and after the second in the other."""

    def training_output(self, recording: Recording, objective: Objective) -> AdvBNOutput:
        """CE(tail_clean(f)) + CE(tail_auxiliary(f_adv)) with one perturbation in the latter."""
        if torch.rand((), generator=self.generator) < 0.5:
            return super().training_output(recording, objective)
        auxiliary_logits = self.deeper_logits(recording, recording.features, objective)
        logits = self.tail_logits(recording, None, "clean")
        return two_branch_output(logits, auxiliary_logits, objective)
