"""Perturbations at two places: after one stage and after the next, in one batch or in turn."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from advbn_hf.backbones.model_outputs import with_first_tensor
from advbn_hf.backbones.norms import using_branch
from advbn_hf.backbones.split import Recording, Split
from advbn_hf.config import AdvBNConfig
from advbn_hf.errors import InputError
from advbn_hf.method.losses import AdvBNOutput, Objective, two_branch_output
from advbn_hf.modeling import AdvBNForImageClassification


class _TwoPlaces(AdvBNForImageClassification):
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


class TwoDepthsForImageClassification(_TwoPlaces):
    """AdvBN that perturbs twice: the features of the first stage, and those of the second that follow from them."""

    def training_output(self, recording: Recording, objective: Objective) -> AdvBNOutput:
        """CE(tail_clean(f)) + CE(tail_auxiliary(f_adv)) with both perturbations in the latter."""
        adversarial, _ = self.perturb(recording, objective)
        auxiliary_logits = self.deeper_logits(recording, adversarial, objective)
        logits = self.tail_logits(recording, None, "clean")
        return two_branch_output(logits, auxiliary_logits, objective)


class RandomDepthForImageClassification(_TwoPlaces):
    """AdvBN that perturbs after the first stage in one half of the batches and after the second in the other."""

    def training_output(self, recording: Recording, objective: Objective) -> AdvBNOutput:
        """CE(tail_clean(f)) + CE(tail_auxiliary(f_adv)) with one perturbation in the latter."""
        if torch.rand((), generator=self.generator) < 0.5:
            return super().training_output(recording, objective)
        auxiliary_logits = self.deeper_logits(recording, recording.features, objective)
        logits = self.tail_logits(recording, None, "clean")
        return two_branch_output(logits, auxiliary_logits, objective)
