"""Stem and tail of any model, by recording the outputs of its modules and replaying them.

The stem is all that a forward pass has computed when the insertion module ends: the outermost modules that had ended
by then. To run the tail, the model is called again while those modules return their recorded outputs, so that only
what follows the insertion point is computed. Nothing here knows an architecture; `insertion` says where "embeddings"
and "auto" cut. Several threads may run one model: what they record and replay is their own.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate.utils import recursively_apply
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from ..errors import InputError
from .activation_checkpointing import recomputed_within
from .insertion import channel_axis, find_insertion, named_places, tokens_of_no_patch
from .model_outputs import first_tensor, logits_of, with_first_tensor
from .replay import ReachedInsertion, recording, replayable, replaying
from .tracing import evaluating, probe, probe_inputs


@dataclass(frozen=True)
class Recording:
    """What one forward pass has computed up to the insertion point.

    Args:
        inputs: the model's keyword arguments.
        outputs: for each stem module the outputs of its calls, in order.
        features: the insertion module's feature map, (B, C, H, W), (B, H, W, C) or (B, N, C).
    """

    inputs: dict[str, Any]
    outputs: list[list[Any]]
    features: Tensor

    def with_features(self, features: Tensor) -> "Recording":
        """The same with another feature map, like `features`."""
        *before, (*calls, last) = self.outputs
        return replace(self, outputs=[*before, [*calls, with_first_tensor(last, features)]], features=features)

    def rows(self, index: Tensor) -> "Recording":
        """The same for some of the samples: `index` is (K,) int64."""
        size = len(self.features)

        def pick(tensor: Tensor) -> Tensor:
            return tensor[index] if tensor.ndim and len(tensor) == size else tensor

        return self.mapped(pick)

    def to(self, device: torch.device, non_blocking: bool = False) -> "Recording":
        """The same on a device; Accelerate calls it on the values of a batch."""
        return self.mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def mapped(self, function: Callable[[Tensor], Tensor]) -> "Recording":
        """The same with every tensor mapped: those of the inputs first, then those of the outputs in their order."""
        inputs, outputs = recursively_apply(function, self.inputs), recursively_apply(function, self.outputs)
        return Recording(inputs, outputs, first_tensor(outputs[-1][-1]))


class Split:
    """A classifier cut in two after a module.

    Its attributes, besides `model` and `insert_after` (a path): `named_places`, the paths that "embeddings" and "auto"
    are resolved to; `stem_modules`, the outermost modules of the stem; `stem_weights`, all of its parameters;
    `channel_axis`, 1 or -1, the axis of the features' channels; `rectified`, whether none of the features is negative;
    `other_tokens`, the positions of tokens that are no patches, such as a class token.

    Args:
        model: the classifier; it is run on noise to trace its modules.
        insert_after: path of the insertion module, "embeddings" or "auto" (see `advbn_hf.backbones.insertion`).

    Raises:
        InputError: if the model does not run on images alone or gives no logits, or if the module does not exist,
            outputs no feature map, runs more than once in a forward pass, or the model cannot be cut there.
    """

    def __init__(self, model: PreTrainedModel, insert_after: str) -> None:
        inputs = probe_inputs(model)
        calls, logits = probe(model, inputs)
        self.named_places = named_places(model, calls)
        call = find_insertion(calls, self.named_places, insert_after)
        self.model = model
        self.insert_after = call.path
        self.channel_axis = channel_axis(model, calls, call)
        self.other_tokens = tokens_of_no_patch(model, calls, call)
        ended = list(dict.fromkeys(call.path for call in calls[: calls.index(call) + 1]))
        self._stem_paths = [path for path in ended if not any(_inside(path, other) for other in ended)]
        self.find_stem()
        self._run: Callable = model  # while the stem's outputs are replayed, this is the tail
        self._overwrites = False
        with evaluating(model, forget=True), torch.no_grad():
            recording = self.stem(**inputs)
            self.rectified = bool((recording.features >= 0).all() and (recording.features > 0).any())
            versions = _versions(recording.outputs)
            replayed = logits_of(self.tail(recording))
            self._overwrites = _versions(recording.outputs) != versions
            self.stem_weights = [weight for module in self.stem_modules for weight in module.parameters()]
            self.stem_weights += self._loose_stem_weights(recording)
        tolerance = 1e-2 * logits.nan_to_num().abs().max().item()
        if not torch.allclose(replayed, logits, rtol=1e-2, atol=tolerance, equal_nan=True):
            raise InputError(
                f"insert_after: {type(model).__name__} cut after {self.insert_after} gives other logits than uncut; "
                "choose another module"
            )

    def find_stem(self) -> None:
        """Finds the stem's modules by their paths; to be called after some were replaced."""
        self.stem_modules: list[nn.Module] = [self.model.get_submodule(path) for path in self._stem_paths]
        self._replays = [replayable(module) for module in self.stem_modules]

    def stem(self, **inputs: Any) -> Recording:
        """Runs the model up to the insertion point.

        Args:
            inputs: keyword arguments of the model's forward.

        Returns:
            The recording that `tail` replays.
        """
        outputs: list[list[Any]] = [[] for _ in self._replays]
        with recomputed_within(self.model, nullcontext), recording(self._replays, outputs):
            try:
                self.model(**inputs)
            except ReachedInsertion:
                pass
            else:
                raise RuntimeError(f"the forward pass ended without reaching {self.insert_after}")
        return Recording(inputs, outputs, first_tensor(outputs[-1][-1]))

    def compile_tail(self, **settings: Any) -> None:
        """Compiles the tail when it next runs with gradients, once for each branch, mode and batch size.

        Args:
            settings: for `torch.compile`.
        """
        self._run = torch.compile(self.model, **settings)

    def tail(
        self,
        recording: Recording,
        features: Tensor | None = None,
        within: Callable[[], AbstractContextManager] = nullcontext,
    ) -> ModelOutput:
        """Runs what follows the insertion point.

        Args:
            recording: from `stem`.
            features: replace the insertion module's output; like `recording.features`, which is the default.
            within: makes the context to run in, each time that the tail or a checkpointed part of it runs.

        Returns:
            The model's own output, with `logits` (B, classes).
        """
        outputs = (recording if features is None else recording.with_features(features)).outputs
        if self._overwrites:  # the tail writes into its inputs: give it copies
            outputs = recursively_apply(Tensor.clone, outputs)

        @contextmanager
        def running(returned: list[int]) -> Iterator[None]:
            with within(), replaying(self._replays, outputs, returned):
                yield

        again = lambda: running([replay.state.returned for replay in self._replays])  # noqa: E731
        run = self._run if torch.is_grad_enabled() else self.model  # evaluation is not worth compiling for
        with recomputed_within(self.model, again), running([0] * len(outputs)):
            return run(**recording.inputs)

    def _loose_stem_weights(self, recording: Recording) -> list[nn.Parameter]:
        """Parameters that belong to the stem but to none of its modules, such as the class token of timm's ViT.

        The modules around the insertion module hold them, and no gradient reaches them through the tail.
        """
        parts = self.insert_after.split(".")
        around = [self.model.get_submodule(".".join(parts[:depth])) for depth in range(len(parts))]
        loose = [weight for module in around for weight in module.parameters(recurse=False) if weight.requires_grad]
        if not loose:
            return []
        with torch.enable_grad():
            total = logits_of(self.tail(recording)).sum()
        if not total.requires_grad:
            return loose
        gradients = torch.autograd.grad(total, loose, allow_unused=True)
        return [weight for weight, gradient in zip(loose, gradients, strict=True) if gradient is None]


def _inside(path: str, other: str) -> bool:
    return path.startswith(f"{other}.")


def _versions(outputs: list[list[Any]]) -> list[int]:
    """How often each recorded tensor has been written into."""
    versions: list[int] = []
    recursively_apply(lambda tensor: versions.append(tensor._version), outputs)
    return versions
