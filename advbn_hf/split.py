"""Stem and tail of any model, by recording the outputs of its modules and replaying them.

The stem is all that a forward pass has computed when the insertion module ends: the outermost modules that had ended
by then. To run the tail, the model is called again while those modules answer from the record, so that only what
follows the insertion point is computed. Nothing here knows an architecture.

Where "auto" inserts: among the containers whose entries run one after another and give out feature maps, take the one
with the most parameters. If the resolution of its feature maps changes along the way, the network is hierarchical and
the perturbation goes after the last entry of the first resolution, the end of the first stage. If it never changes,
the network is isotropic and the perturbation goes after the first quarter of the entries.
"""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .errors import InputError
from .probe import ModuleCall, first_tensor, probe, probe_inputs


class _ReachedInsertion(Exception):  # noqa: N818 - it is a signal, not an error
    """Ends a forward pass at the insertion module."""


@dataclass(frozen=True)
class Recording:
    """What one forward pass had computed at the insertion point.

    Args:
        inputs: what the model was called with.
        outputs: for each stem module the outputs of its calls, in order.
        features: the insertion module's feature map, (B, C, H, W) or (B, N, C).
    """

    inputs: dict[str, Any]
    outputs: list[list[Any]]
    features: Tensor

    def rows(self, index: Tensor) -> "Recording":
        """The same for some of the samples: `index` is (K,) int64."""
        size = len(self.features)

        def pick(tensor: Tensor) -> Tensor:
            return tensor[index] if tensor.ndim and len(tensor) == size else tensor

        return Recording(_map_tensors(self.inputs, pick), _map_tensors(self.outputs, pick), self.features[index])


class Split:
    """A classifier cut in two after a module.

    Args:
        model: the classifier; it is run once on noise to see what its modules do.
        insert_after: path of the insertion module, or "auto" (see the top of this file).

    Raises:
        InputError: if the module does not exist, gives out no feature map, or runs more than once in a forward pass.
    """

    def __init__(self, model: PreTrainedModel, insert_after: str = "auto") -> None:
        calls = probe(model, probe_inputs(model))
        self.model = model
        self.insert_after = _choose(model, calls) if insert_after == "auto" else insert_after
        call = _insertion_call(calls, self.insert_after)
        self.rectified = call.rectified
        self._overwritten = call.overwritten
        ended = list(dict.fromkeys(call.path for call in calls[: calls.index(call) + 1]))
        self.stem_modules: list[nn.Module] = [
            model.get_submodule(path) for path in ended if not any(_inside(path, other) for other in ended)
        ]

    def stem(self, **inputs: Any) -> Recording:
        """Runs the model up to the insertion point.

        Args:
            inputs: what the model's forward takes.

        Returns:
            The recording that `tail` replays.
        """
        outputs: list[list[Any]] = [[] for _ in self.stem_modules]
        insertion = self.model.get_submodule(self.insert_after)

        def record(module: nn.Module, answers: list[Any], output: Any) -> None:
            answers.append(output)
            if module is insertion:
                raise _ReachedInsertion

        with ExitStack() as hooks:
            for module, answers in zip(self.stem_modules, outputs, strict=True):
                handle = module.register_forward_hook(
                    lambda module, _, output, answers=answers: record(module, answers, output)
                )
                hooks.callback(handle.remove)
            try:
                self.model(**inputs)
            except _ReachedInsertion:
                pass
            else:
                raise RuntimeError(f"the forward pass ended without reaching {self.insert_after}")
        return Recording(inputs, outputs, first_tensor(outputs[-1][-1]))

    def tail(self, recording: Recording, features: Tensor | None = None) -> ModelOutput:
        """Runs what follows the insertion point.

        Args:
            recording: from `stem`.
            features: what the insertion module shall have given out, like `recording.features`, which is the default.

        Returns:
            The model's own output, with `logits` (B, classes).
        """
        if self._overwritten:  # the tail writes into its input: give it a copy
            features = (recording.features if features is None else features).clone()
        answers = recording.outputs
        if features is not None:
            answers = [*answers[:-1], [_with_first_tensor(answers[-1][-1], features)]]
        with ExitStack() as stack:
            for module, outputs in zip(self.stem_modules, answers, strict=True):
                stack.enter_context(_answering(module, outputs))
            return self.model(**recording.inputs)


def candidates(model: PreTrainedModel) -> list[ModuleCall]:
    """Every module after which features could be perturbed: it runs once and gives out a feature map.

    Args:
        model: the classifier; it is run once on noise.

    Returns:
        One entry a module, in the order in which they end.
    """
    return _candidates(probe(model, probe_inputs(model)))


def _candidates(calls: list[ModuleCall]) -> list[ModuleCall]:
    times = Counter(call.path for call in calls)
    return [call for call in calls if call.path and call.shape is not None and times[call.path] == 1]


def _insertion_call(calls: list[ModuleCall], path: str) -> ModuleCall:
    found = [call for call in calls if call.path == path and path]
    if not found:
        known = ", ".join(_outline([call.path for call in _candidates(calls)]))
        raise InputError(f'insert_after: no module {path!r} runs in this model; choose "auto" or one of {known}')
    if len(found) > 1:
        raise InputError(
            f"insert_after: {path} runs {len(found)} times in one forward pass; choose a module that runs once"
        )
    if found[0].shape is None:
        raise InputError(
            f"insert_after: {path} gives out no feature map (B, C, H, W) or (B, N, C); choose another module"
        )
    return found[0]


def _choose(model: nn.Module, calls: list[ModuleCall]) -> str:
    """The rule at the top of this file."""
    by_path = {call.path: call for call in _candidates(calls)}
    best: list[ModuleCall] = []
    best_size = 0
    for path, container in model.named_modules():
        if not isinstance(container, (nn.ModuleList, nn.Sequential)):
            continue
        entries = [by_path.get(f"{path}.{name}") for name, _ in container.named_children()]
        size = sum(parameter.numel() for parameter in container.parameters())
        if len(entries) > 1 and None not in entries and size > best_size:
            best, best_size = entries, size
    if not best:
        raise InputError(
            'insert_after: "auto" finds no sequence of stages or blocks in this model; name a module path'
        )
    first = _resolution(best[0])
    if all(_resolution(entry) == first for entry in best):
        return best[math.ceil(len(best) / 4) - 1].path
    return [entry for entry in best if _resolution(entry) == first][-1].path


def _resolution(call: ModuleCall) -> tuple[int, ...]:
    """Height and width, or the number of tokens."""
    return call.shape[2:] if len(call.shape) == 4 else call.shape[1:2]


def _outline(paths: list[str], most: int = 24) -> list[str]:
    """The paths of the outermost levels, as many whole levels as fit into `most`."""
    for depth in range(max((path.count(".") for path in paths), default=0), 0, -1):
        shown = [path for path in paths if path.count(".") <= depth]
        if len(shown) <= most:
            return shown
    return paths[:most]


def _inside(path: str, other: str) -> bool:
    return path.startswith(f"{other}.")


@contextmanager
def _answering(module: nn.Module, outputs: list[Any]) -> Iterator[None]:
    """Lets a module answer with recorded outputs, and compute as usual once these are used up, within the block."""
    before = vars(module).get("forward")
    compute = module.forward
    remaining = iter(outputs)

    def forward(*args: Any, **kwargs: Any) -> Any:
        for output in remaining:
            return output
        return compute(*args, **kwargs)

    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def _with_first_tensor(output: Any, features: Tensor) -> Any:
    """A module's output with another feature map."""
    if isinstance(output, Tensor):
        return features
    if isinstance(output, ModelOutput):
        name = next(iter(output))
        return replace(output, **{name: _with_first_tensor(output[name], features)})
    return type(output)([_with_first_tensor(output[0], features), *output[1:]])


def _map_tensors(value: Any, function: Any) -> Any:
    """The same structure with every tensor mapped."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, ModelOutput):
        return replace(value, **{name: _map_tensors(entry, function) for name, entry in value.items()})
    if isinstance(value, dict):
        return {name: _map_tensors(entry, function) for name, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)([_map_tensors(entry, function) for entry in value])
    return value
