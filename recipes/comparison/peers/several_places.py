"""MixStyle and DSU at several places of a network, as published; found in any network by `stage_ends`."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from advbn_hf.backbones.insertion import channel_axis, find_insertion, named_places, stage_ends
from advbn_hf.backbones.model_outputs import first_tensor, with_first_tensor
from advbn_hf.backbones.split import Recording
from advbn_hf.backbones.tracing import ModuleCall, probe, probe_inputs
from advbn_hf.config import AdvBNConfig
from advbn_hf.errors import InputError
from advbn_hf.method.losses import AdvBNOutput, Objective

from .dsu import DSUForImageClassification
from .feature_styles import FeatureStylesForImageClassification
from .mixstyle import MixStyleForImageClassification


class _SeveralPlaces(FeatureStylesForImageClassification, ABC):
    """Features get other styles at several places, each place in batches of its own; in the stem there are none.

    Its attribute `places` maps the paths of the places, apart from the insertion point, to the axis of their channels.

    Raises:
        InputError: if no place is left.
    """

    def __init__(self, backbone: PreTrainedModel, config: AdvBNConfig) -> None:
        super().__init__(backbone, config)
        calls, _ = probe(backbone, probe_inputs(backbone))
        found = {call.path: channel_axis(backbone, calls, call) for call in self.published(backbone, calls)}
        self.at_insertion = self.split.insert_after in found
        stem = {name for module in self.split.stem_modules for name, other in backbone.named_modules()
                if any(other is part for part in module.modules())}  # fmt: skip
        self.places = {path: axis for path, axis in found.items() if path not in stem}
        if not self.places:
            raise InputError(f"insert_after: after {self.split.insert_after} there is no stage to mix styles after")

    @abstractmethod
    def published(self, backbone: PreTrainedModel, calls: list[ModuleCall]) -> list[ModuleCall]:
        """The places of the paper.

        Args:
            backbone: the classifier.
            calls: its calls, from `probe`.
        """

    def training_output(self, recording: Recording, objective: Objective) -> AdvBNOutput:
        """CE(tail(f')), f' in random styles with `probability` at each place."""
        features = recording.features
        if self.at_insertion:
            features = self.in_some_batches(features, self.split.channel_axis)
        with self._restyled():
            logits = self.tail_logits(recording, features, "clean")
        loss = objective.loss(logits)
        return AdvBNOutput(loss=loss, logits=logits, clean_loss=loss)

    @contextmanager
    def _restyled(self) -> Iterator[None]:
        with ExitStack() as hooks:
            for path, axis in self.places.items():
                module = self.backbone.get_submodule(path)
                hook = module.register_forward_hook(partial(self._with_other_styles, axis))
                hooks.callback(hook.remove)
            yield

    def _with_other_styles(self, axis: int, _: nn.Module, __: tuple[Tensor, ...], output: Any) -> Any:
        return with_first_tensor(output, self.in_some_batches(first_tensor(output), axis))


class MixStyleAtPlacesForImageClassification(_SeveralPlaces, MixStyleForImageClassification):
    """MixStyle after every stage but the last, as published for PACS: after stages 1 to 3 of a ResNet's 4."""

    def published(self, backbone: PreTrainedModel, calls: list[ModuleCall]) -> list[ModuleCall]:
        """Ends of stages."""
        return stage_ends(backbone, calls)[:-1]


class DSUAtPlacesForImageClassification(_SeveralPlaces, DSUForImageClassification):
    """DSU after the embeddings and after every stage.

    Published for a ResNet: there, and once more between the first convolution and its norm, which has no counterpart
    in other networks.
    """

    def published(self, backbone: PreTrainedModel, calls: list[ModuleCall]) -> list[ModuleCall]:
        """The embeddings and the ends of stages."""
        embeddings = find_insertion(calls, named_places(backbone, calls), "embeddings")
        return [embeddings, *stage_ends(backbone, calls)]
