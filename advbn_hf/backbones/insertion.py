"""Where to perturb: the possible modules, the two named places, and the axis of the channels.

Names are resolved against the network's sequence of blocks, or of stages of blocks: modules that are called one after
another and are siblings, as entries of a list of modules (nested lists are read as one) or as children of the same
class in any other module; single layers do not count where there are blocks. Of several sequences the one with the
most parameters is taken.

"embeddings" is the module that ends last before the sequence begins, in time: name the module in a network that
computes something else in between. Where its feature map holds position codes or tokens that are no patches (see
`tokens`), as a vision transformer's does, it is the last module before it whose map holds neither: the projection of
the patches. Where none ends before, since the first stage holds the embeddings itself, it is the end of that stage.
Where its map is larger than a quarter of the image's side and the network is hierarchical, as a RegNet or EfficientNet
is, it is the first entry up to "auto" whose map is not, so that it is where a ResNet's or Swin's embeddings end.

"auto" is where the method was published, after the first of a ResNet's four stages. A stage is the entries of one
resolution; where the resolution never changes, as in a vision transformer, a quarter of the entries. "auto" is the end
of the first of a network's last four stages, so that a stage before them, as an EfficientNet has at half the image's
side, moves it to where a ResNet has it, a quarter of the side; of less than four stages it is the end of the first.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from ..errors import InputError
from .norms import is_norm
from .tokens import holds_patches_alone, other_tokens, probe_maps
from .tracing import ModuleCall, probe, probe_inputs

NAMED_PLACES = ("embeddings", "auto")


@dataclass(frozen=True)
class InsertionPoint:
    """A module after which features could be perturbed.

    Args:
        path: the module's path in the model, for `AdvBNConfig.insert_after`.
        shape: shape of its feature map for one image: (C, H, W), (H, W, C) or (N, C).
        share: share of the forward pass's floating point operations done by the end of the module, in 0..1.
        names: which of "embeddings" and "auto" are resolved to it.
    """

    path: str
    shape: tuple[int, ...]
    share: float
    names: tuple[str, ...] = ()


def insertion_points(model: PreTrainedModel) -> list[InsertionPoint]:
    """Every module after which features could be perturbed: it runs once and outputs a feature map.

    Args:
        model: the classifier; it is run once on noise.

    Returns:
        One entry a module, in the order in which they end.

    Raises:
        InputError: if the model does not run on images alone or gives no logits.
    """
    calls, _ = probe(model, probe_inputs(model), count_flops=True)
    total, named = max(calls[-1].flops, 1), named_places(model, calls)
    return [
        InsertionPoint(
            call.path,
            call.shape[1:],
            call.flops / total,
            tuple(name for name, path in named.items() if path == call.path),
        )
        for call in _usable(calls)
    ]


def to_text(points: list[InsertionPoint]) -> str:
    """A table of insertion points, one a line, with the share of the forward pass in percent and the names."""
    rows = [("module", "output", "share", "")]
    rows += [
        (
            point.path,
            " x ".join(map(str, point.shape)),
            f"{point.share:.1%}",
            f"  <- {', '.join(point.names)}" if point.names else "",
        )
        for point in points
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"{path:{widths[0]}}  {shape:{widths[1]}}  {share:>6}{mark}" for path, shape, share, mark in rows)


def named_places(model: PreTrainedModel, calls: list[ModuleCall]) -> dict[str, str | None]:
    """Path of each of the `NAMED_PLACES`; None where the model has no sequence of stages or blocks.

    Args:
        model: the classifier.
        calls: its calls, from `probe`.
    """
    sequence = _largest_sequence(model, calls)
    if not sequence:
        return dict.fromkeys(NAMED_PLACES)
    ends = _stage_ends(sequence)
    auto = ends[-4:][0]
    embeddings = _patch_embeddings(model, calls, sequence[0]) or ends[0]
    if not _is_isotropic(sequence):
        choices = (embeddings, *sequence[: sequence.index(auto) + 1])
        embeddings = next((call for call in choices if _is_at_most_a_quarter(model, calls, call)), embeddings)
    return {"embeddings": embeddings.path, "auto": auto.path}


def stage_ends(model: PreTrainedModel, calls: list[ModuleCall]) -> list[ModuleCall]:
    """The last entry of each resolution of a hierarchical network; of an isotropic one, of each quarter.

    Args:
        model: the classifier.
        calls: its calls, from `probe`.

    Returns:
        In order; "auto" is the first of the last four. Empty where the model has no sequence of stages or blocks.
    """
    sequence = _largest_sequence(model, calls)
    return _stage_ends(sequence) if sequence else []


def find_insertion(calls: list[ModuleCall], places: Mapping[str, str | None], insert_after: str) -> ModuleCall:
    """The call after which to perturb.

    Args:
        calls: the classifier's, from `probe`.
        places: its named places.
        insert_after: a module path, or one of the names.

    Raises:
        InputError: if the module does not exist, outputs no feature map, or runs more than once in a forward pass.
    """
    path = places.get(insert_after, insert_after)
    if path is None:
        raise InputError(
            f'insert_after: "{insert_after}" finds no sequence of stages or blocks in this model; name a module path'
        )
    found = [call for call in calls if call.path == path and path]
    if not found:
        known = ", ".join(_outline([call.path for call in _usable(calls)]))
        raise InputError(
            f'insert_after: no module {path!r} runs in this model; choose "embeddings", "auto" or one of {known}'
        )
    if len(found) > 1:
        raise InputError(
            f"insert_after: {path} runs {len(found)} times in one forward pass; choose a module that runs once"
        )
    if found[0].shape is None:
        raise InputError(
            f"insert_after: {path} outputs no feature map (B, C, H, W) or (B, N, C); choose another module"
        )
    return found[0]


def channel_axis(model: nn.Module, calls: list[ModuleCall], call: ModuleCall) -> int:
    """Which axis of a feature map holds the channels: 1, or -1 for the last.

    Found by the weights: going back in time from the end of the call, the first module whose number of outputs equals
    the length of one of the two axes, but not of the other. Without one it is 1 for maps and -1 for tokens.

    Args:
        model: the classifier.
        calls: its calls, from `probe`.
        call: one of them, with a feature map.
    """
    for earlier in reversed(calls[: calls.index(call) + 1]):
        module = model.get_submodule(earlier.path)
        outputs = {weight.shape[0] for weight in module.parameters(recurse=False) if weight.ndim} - {1}
        if isinstance(module, nn.Embedding):  # its first axis is that of what it looks up, such as positions
            outputs = {module.embedding_dim}
        fitting = [axis for axis in (1, -1) if call.shape[axis] in outputs]
        if len(fitting) == 1:
            return fitting[0]
    return 1 if len(call.shape) == 4 else -1


def tokens_of_no_patch(model: PreTrainedModel, calls: list[ModuleCall], call: ModuleCall) -> tuple[int, ...]:
    """The tokens of a feature map that are no patches, such as a class token: see `tokens.other_tokens`.

    They are found where so many tokens first hold the image, since attention then mixes them with patches.

    Args:
        model: the classifier.
        calls: its calls, from `probe`.
        call: one of them, with a feature map.
    """
    if len(call.shape) == 4:
        return ()
    channels = channel_axis(model, calls, call)
    positions = 1 if channels == -1 else 2
    alike = (one for one in calls if one.varies and len(one.shape) == 3)
    first = next((one.path for one in alike if one.shape[positions] == call.shape[positions]), call.path)
    return other_tokens(probe_maps(model, [first])[first], channels)


def _usable(calls: list[ModuleCall]) -> list[ModuleCall]:
    times = Counter(call.path for call in calls)
    return [call for call in calls if call.path and call.shape is not None and times[call.path] == 1]


def _stage_ends(sequence: list[ModuleCall]) -> list[ModuleCall]:
    if _is_isotropic(sequence):
        return list(dict.fromkeys(sequence[math.ceil(len(sequence) * part / 4) - 1] for part in (1, 2, 3, 4)))
    return list({_resolution(entry): entry for entry in sequence}.values())


def _is_isotropic(sequence: list[ModuleCall]) -> bool:
    return len({_resolution(entry) for entry in sequence}) == 1


def _is_at_most_a_quarter(model: PreTrainedModel, calls: list[ModuleCall], call: ModuleCall) -> bool:
    """Whether a feature map has at most a quarter of the image's side, counted in positions."""
    height, width = probe_inputs(model)["pixel_values"].shape[2:]
    positions = math.prod(call.shape[1:]) / call.shape[channel_axis(model, calls, call)]
    return positions <= math.ceil(height / 4) * math.ceil(width / 4)


def _patch_embeddings(model: PreTrainedModel, calls: list[ModuleCall], entry: ModuleCall) -> ModuleCall | None:
    """The last module before an entry begins whose feature map is of the images, if possible of patches alone.

    None where no module outputs a feature map of the images before.
    """
    ended = calls[: calls.index(entry)]  # those within the entry too
    before = [call for call in _usable(calls) if call in ended and call.varies]
    outside = [call for call in before if not call.path.startswith(f"{entry.path}.")]
    if not outside:
        return None
    maps = probe_maps(model, [call.path for call in outside])
    for call in reversed(outside):
        if holds_patches_alone(maps[call.path], channel_axis(model, calls, call)):
            return call
    return outside[-1]


def _largest_sequence(model: nn.Module, calls: list[ModuleCall]) -> list[ModuleCall]:
    """The sequence of blocks or stages of the most parameters, in the order of the calls; perhaps empty."""
    first_calls = {call.path: call for call in reversed(calls)}
    order = {path: place for place, path in enumerate(dict.fromkeys(call.path for call in calls))}
    best: list[ModuleCall] = []
    best_size = (False, 0)
    for path, module in model.named_modules():
        for sequence in _sequences(path, module, first_calls):
            entries = [first_calls[entry] for entry in sorted(sequence, key=order.get) if first_calls[entry].shape]
            modules = [model.get_submodule(entry.path) for entry in entries]
            weights = sum(weight.numel() for module in modules for weight in module.parameters())
            size = (any(_is_block(module) for module in modules), weights)
            if len(entries) > 1 and size > best_size:
                best, best_size = entries, size
    return best


def _sequences(path: str, module: nn.Module, called: dict[str, ModuleCall]) -> list[list[str]]:
    """Paths of modules in a module that form a sequence, by the rule at the top of this file."""
    entries = _entries(path, module, called)
    if isinstance(module, (nn.ModuleList, nn.Sequential)):
        blocks = [entry for entry, child in entries.items() if _is_block(child)]
        return [blocks or list(entries)]
    of_class = defaultdict(list)
    for entry, child in entries.items():
        of_class[_kind(child)].append(entry)
    return list(of_class.values())


def _is_block(module: nn.Module) -> bool:
    """Whether a module is made of modules; a norm that also activates counts as one layer."""
    return any(module.children()) and not is_norm(module)


def _kind(module: nn.Module) -> tuple[type, ...]:
    """A module's class, and that of a list's last entry too: stages may be lists, but so may a stem."""
    if isinstance(module, nn.Sequential) and len(module):
        return (type(module), *_kind(module[-1]))
    return (type(module),)


def _entries(path: str, module: nn.Module, called: dict[str, ModuleCall]) -> dict[str, nn.Module]:
    """The called children of a module, and those of children that are never called themselves, as lists are."""
    entries = {}
    for name, child in module.named_children():
        inner = f"{path}.{name}" if path else name
        entries |= {inner: child} if inner in called else _entries(inner, child, called)
    return entries


def _resolution(call: ModuleCall) -> tuple[int, ...]:
    """What changes where the resolution does: height and width, or the number of tokens."""
    return call.shape[2:] if len(call.shape) == 4 else call.shape[1:2]


def _outline(paths: list[str], most: int = 24) -> list[str]:
    """The paths of the outermost levels, as many complete levels as fit into `most`."""
    for depth in range(max((path.count(".") for path in paths), default=0), 0, -1):
        shown = [path for path in paths if path.count(".") <= depth]
        if len(shown) <= most:
            return shown
    return paths[:most]
