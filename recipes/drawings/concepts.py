"""Which things the sets show: drawn by all designers, not twice, and in which subgroup of Unicode."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from advbn_hf.errors import InputError
from advbn_hf.utils.documents import read_yaml

from .packages import DESIGNERS, IconSet

_SUBGROUPS = Path(__file__).parent / "subgroups.yaml"

# Things; not faces, people, signs and flags.
_CATEGORIES = ("Animals & Nature", "Food & Drink", "Travel & Places", "Activities", "Objects")
_UNWANTED = {"flag", "flags", "clock", "oclock", "thirty", "keycap", "skin", "tone"}
# What follows one of these words tells variants of a thing apart, and not things: cloud-with-rain, sun-behind-cloud.
_VARIANTS = {"with", "without", "behind", "on", "over", "at", "in", "of", "and", "showing", "tilted"}
# The other one of two that look alike under names that differ.
_ALIKE = {
    "airplane-arrival", "airplane-departure", "card-index-dividers", "chart-decreasing", "dvd", "e-mail", "ewe",
    "foggy", "hourglass-not-done", "mountain-cableway", "page-with-curl", "softball", "sunset", "unlocked",
}  # fmt: skip

_SHARES = {"train": 0.5, "validation": 0.2, "test": 0.3}  # of a subgroup's concepts
_FEWEST = 8  # concepts of a subgroup that is a class


def shared_concepts(sets: Mapping[str, IconSet]) -> list[str]:
    """Names of the things that all designers drew, near-duplicates left out: one of each head word, as of cats.

    Args:
        sets: by designer; the first that sorts its icons into categories says what is a thing.

    Returns:
        The names, sorted.
    """
    kept: dict[str, str] = {}
    shared = _things(sets).intersection(*(icons.names for icons in sets.values()))
    for name in sorted(shared, key=lambda name: (name.count("-"), name)):
        kept.setdefault(_head(name), name)
    return sorted(kept.values())


def choose(sets: Mapping[str, IconSet], count: int, skip: int, seed: int) -> list[str]:
    """Draws shared concepts by chance; the same seed with `skip` raised by `count` gives others.

    Args:
        sets: by designer.
        count: to choose.
        skip: to leave out first.
        seed: of the order.

    Returns:
        The names, sorted.

    Raises:
        InputError: there are fewer; names the designer that lacks most.
    """
    concepts = shared_concepts(sets)
    if skip + count > len(concepts):
        lacking = {name: sorted(_things(sets) - icons.names) for name, icons in sets.items()}
        worst = max(lacking, key=lambda name: len(lacking[name]))
        raise InputError(
            f"num_concepts: {count} wanted and {skip} skipped, but all designers drew only {len(concepts)}; most are "
            f"lacking in {DESIGNERS[worst].package}: {', '.join(lacking[worst][:3]) or 'none'}"
        )
    order = np.random.default_rng(seed).permutation(len(concepts))
    return sorted(concepts[index] for index in order[skip : skip + count])


def subgroups(concepts: Sequence[str], seed: int) -> dict[str, dict[str, list[str]]]:
    """Sorts concepts into Unicode's subgroups and splits each subgroup's.

    Args:
        concepts: names.
        seed: of the splits.

    Returns:
        By split ("train", "validation", "test") and subgroup the names; no name is in two splits.

    Raises:
        InputError: fewer than two subgroups have enough concepts.
    """
    splits: dict[str, dict[str, list[str]]] = {split: {} for split in _SHARES}
    rng = np.random.default_rng(seed)
    for subgroup, members in read_yaml(_SUBGROUPS).items():
        names = [name for name in members if name in set(concepts)]
        if len(names) < _FEWEST:
            continue
        names = [names[index] for index in rng.permutation(len(names))]
        ends = np.round(np.cumsum(list(_SHARES.values())) * len(names)).astype(int)
        for split, start, end in zip(_SHARES, (0, *ends), ends, strict=False):
            splits[split][subgroup] = sorted(names[start:end])
    if len(splits["train"]) < 2:
        raise InputError(f"packages: fewer than two subgroups have {_FEWEST} things that all designers drew")
    return splits


def _things(sets: Mapping[str, IconSet]) -> set[str]:
    """Names of things in the categories of the first package that has them."""
    categories = next((icons.categories for icons in sets.values() if icons.categories), {})
    names = {str(name) for category in _CATEGORIES for name in categories.get(category, ())} - _ALIKE
    return {name for name in names if not _UNWANTED & set(name.split("-"))}


def _head(name: str) -> str:
    """The word for the thing: "cat" of black-cat and cat-face, "cloud" of cloud-with-rain, "book" of books."""
    words = name.split("-")
    end = next((place for place, word in enumerate(words) if word in _VARIANTS and place), len(words))
    words = words[:end]
    return (words[-2] if len(words) > 1 and words[-1] == "face" else words[-1]).rstrip("s")
