"""The model's class for each class of a set, which may have some of them only, or another order."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..data.imagenet import imagenet_classes
from ..errors import InputError

_SYNSET = re.compile(r"n\d{8}")
_IMAGENET_SHARE = 0.9  # of the names in their places, for a list to be ImageNet's: some rename a few ("crane2")


@dataclass(frozen=True)
class LabelMatch:
    """The model's class for each class of a set.

    Args:
        indices: entry i is the index of the model's logit for the set's class i; no index occurs twice.
        num_labels: how many classes the model has.
    """

    indices: tuple[int, ...]
    num_labels: int


def match_labels(
    model_labels: Sequence[str] | Mapping[int, str],
    set_labels: Sequence[str],
    mapping: Mapping[str, str | int] | None = None,
) -> LabelMatch:
    """Finds the model's class for each class of a set.

    The first of these that fits exactly one class decides: `mapping`; the WordNet synset, where both sides have one;
    the same name; the same name but for case, spaces, underscores and hyphens; the same first of the names separated
    by commas ("tench, Tinca tinca"); a name in common. A label has a synset if it is an id such as "n01440764", or if
    its list is that of ImageNet's 1000 classes. An id stands for ImageNet's name where the other side has only names.

    Args:
        model_labels: names in the order of the logits, or `config.id2label`.
        set_labels: names in the order of the set's labels.
        mapping: from names of the set to the name or index of the model's class, for those that would not match.

    Returns:
        The match.

    Raises:
        InputError: a class of the set fits no class of the model, or several, or one that another class of the set
            fits too (the message names all of them); or the mapping names a class that does not exist.

    Example:
        >>> match_labels(["tench, Tinca tinca", "goldfish", "white shark"], ["White-Shark", "tench"])
        LabelMatch(indices=(2, 0), num_labels=3)
    """
    fitting = _fitting_classes(model_labels, set_labels, mapping or {})
    names = _in_order(model_labels)
    missing = [label for label, indices in zip(set_labels, fitting, strict=True) if not indices]
    fix = "add them to the set's label mapping"
    if missing:
        counts = f"{len(missing)} of the set's {len(set_labels)} classes are none of the model's {len(names)}"
        raise InputError(f"labels: {counts} ({_quoted(names[:3])}, ...): {_quoted(missing)}; {fix}")
    ambiguous = [
        f"{label!r} ({_quoted([names[index] for index in indices])})"
        for label, indices in zip(set_labels, fitting, strict=True)
        if len(indices) > 1
    ]
    if ambiguous:
        raise InputError(
            f"labels: classes of the set that could be several of the model's: {'; '.join(ambiguous)}; {fix}"
        )
    by_index: dict[int, list[str]] = {}
    for label, (index,) in zip(set_labels, fitting, strict=True):
        by_index.setdefault(index, []).append(label)
    shared = [f"{_quoted(labels)} ({names[index]!r})" for index, labels in by_index.items() if len(labels) > 1]
    if shared:
        raise InputError(
            f"labels: classes of the set that are the same one of the model's: {'; '.join(shared)}; {fix}"
        )
    return LabelMatch(tuple(index for (index,) in fitting), len(names))


def count_matches(
    model_labels: Sequence[str] | Mapping[int, str],
    set_labels: Sequence[str],
    mapping: Mapping[str, str | int] | None = None,
) -> int:
    """Number of classes of the set that fit exactly one class of the model, for a report before anything runs.

    Args:
        model_labels: as for `match_labels`.
        set_labels: as for `match_labels`.
        mapping: as for `match_labels`.

    Raises:
        InputError: the mapping names a class that does not exist.
    """
    return sum(len(indices) == 1 for indices in _fitting_classes(model_labels, set_labels, mapping or {}))


def restrict(logits: Tensor, match: LabelMatch) -> Tensor:
    """Keeps the logits of the set's classes, in the order of the set.

    Args:
        logits: (B, number of the model's classes).
        match: from `match_labels` for this model and set.

    Returns:
        (B, number of the set's classes); the same tensor where all are kept in their order.

    Raises:
        ValueError: the logits are not those of the matched model.
    """
    if logits.shape[-1] != match.num_labels:
        raise ValueError(f"logits of {logits.shape[-1]} classes, but the match is for {match.num_labels}")
    if match.indices == tuple(range(match.num_labels)):
        return logits
    return logits[..., list(match.indices)]


def _fitting_classes(
    model_labels: Sequence[str] | Mapping[int, str], set_labels: Sequence[str], mapping: Mapping[str, str | int]
) -> list[tuple[int, ...]]:
    """For each class of the set, the model's classes that it fits, by the first rule that fits any."""
    model = _in_order(model_labels)
    model_synsets, set_synsets = _synsets(model), _synsets(set_labels)
    by_synset = _index([{synset} if synset else None for synset in model_synsets])
    model_names, set_names = _names(model, model_synsets), _names(set_labels, set_synsets)
    rules = [(rule, _index([rule(name) for name in model_names])) for rule in (_same, _plain, _first, _any)]
    chosen = _check_mapping(mapping, model, set_labels)
    fitting: list[tuple[int, ...]] = []
    for label, synset, name in zip(set_labels, set_synsets, set_names, strict=True):
        if label in chosen:
            fitting.append((chosen[label],))
        elif synset in by_synset:
            fitting.append(tuple(by_synset[synset]))
        else:
            fits = ({index for key in rule(name) for index in table.get(key, ())} for rule, table in rules)
            fitting.append(tuple(sorted(next(filter(None, fits), ()))))
    return fitting


def _in_order(labels: Sequence[str] | Mapping[int, str]) -> list[str]:
    if isinstance(labels, Mapping):
        labels = [label for _, label in sorted((int(index), label) for index, label in labels.items())]
    return [str(label) for label in labels]


def _synsets(labels: Sequence[str]) -> list[str | None]:
    """The labels that are synset ids, and the ids of ImageNet's 1000 classes in their usual order; else None."""
    classes = imagenet_classes()
    if len(labels) == len(classes):
        same = sum(_plain(label) == _plain(name) for label, (_, name) in zip(labels, classes, strict=True))
        if same >= _IMAGENET_SHARE * len(classes):
            return [synset for synset, _ in classes]
    return [label if _SYNSET.fullmatch(label) else None for label in labels]


def _names(labels: Sequence[str], synsets: Sequence[str | None]) -> list[str]:
    """The labels, with ImageNet's names in place of synset ids."""
    names = dict(imagenet_classes())
    return [
        names.get(label, label) if label == synset else label for label, synset in zip(labels, synsets, strict=True)
    ]


# The rules: each maps a name to the keys under which it is indexed.


def _same(name: str) -> set[str]:
    return {name}


def _plain(name: str) -> set[str]:
    return {re.sub(r"[\s_-]+", "", name.casefold()) or name}


def _first(name: str) -> set[str]:
    return _plain(name.split(",")[0])


def _any(name: str) -> set[str]:
    return set().union(*(_plain(part) for part in name.split(",")))


def _index(keys_of_each: list[set[str] | None]) -> dict[str, list[int]]:
    table: dict[str, list[int]] = {}
    for index, keys in enumerate(keys_of_each):
        for key in keys or ():
            table.setdefault(key, []).append(index)
    return table


def _check_mapping(
    mapping: Mapping[str, str | int], model: Sequence[str], set_labels: Sequence[str]
) -> dict[str, int]:
    """The mapping, with indices in place of names."""
    chosen = {}
    for label, target in mapping.items():
        if label not in set_labels:
            raise InputError(
                f"label mapping: {label!r} is no class of the set, which has {_quoted(set_labels[:5])}, ..."
            )
        places = [target] if isinstance(target, int) else [i for i, name in enumerate(model) if name == target]
        if len(places) != 1 or not 0 <= places[0] < len(model):
            raise InputError(
                f"label mapping: {label!r} -> {target!r} must be the name of one class of the model "
                f"({_quoted(model[:3])}, ...) or an index of 0 to {len(model) - 1}"
            )
        chosen[label] = places[0]
    return chosen


def _quoted(labels: Sequence[str]) -> str:
    return ", ".join(map(repr, labels))
