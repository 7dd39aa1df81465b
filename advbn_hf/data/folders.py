"""Folders of images: which part is which split, whatever the classes are called, and whether all of it is read."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from glob import escape
from pathlib import Path

from transformers.utils import logging

from ..errors import InputError
from .image_tree import ImageTree, Place, is_in, is_looked_for

logger = logging.get_logger(__name__)

# Names of splits to `datasets`; also with other words before or after, set off by one of "-._ 0123456789".
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_EXACT = {word: split for split, words in _WORDS.items() for word in words}
_WITHIN = {
    split: re.compile(rf"(.*[-._ 0-9])?({'|'.join(words)})([-._ 0-9].*)?", re.IGNORECASE | re.DOTALL)
    for split, words in _WORDS.items()
}
_FIX = "arrange the folder as SPLIT/CLASS/file, with splits called train, validation and test"


def find_splits(name: str, tree: ImageTree, place: Place = ()) -> dict[str, list[Place]] | None:
    """The folders of each split of a folder of images: SPLIT/CLASS/file, or CLASS/file, which is one split "train".

    Args:
        name: the dataset, for messages.
        tree: what its folder holds.
        place: where in the folder to look.

    Returns:
        Split -> its folders, with all that lies below them; None where folders do not tell, but names of files or
        metadata may.

    Raises:
        InputError: a folder may be a split or a class, or there are no classes.
    """
    below = tree.below([place])
    depths = {len(found) - len(place) for found in below}
    tops = sorted({found[len(place)] for found in below if len(found) > len(place)})
    if not tops:
        return None
    splits = {top: _split_of(top) for top in tops}
    exact = {_EXACT[top.lower()] for top in tops if top.lower() in _EXACT}
    if len(tops) == 1 and 0 not in depths and (not splits[tops[0]] or max(depths) > 2):
        inner = find_splits(name, tree, (*place, *tops))
        if not splits[tops[0]] or len(inner or ()) > 1:
            return inner
    if max(depths) == 1 and not any((*place, top) in tree.metadata for top in tops):
        if len(exact) < 2 and not all(top.lower() in _EXACT for top in tops):
            return {"train": [place]}
        raise InputError(
            f"dataset {name!r}: lies as SPLIT/file, such as {tops[0]}/..., without classes; {_FIX}, or put a metadata "
            "file into the folder of each split"
        )
    if len(exact) < 2 and not all(splits.values()):
        if any(splits.values()):
            split, other = (next(top for top in tops if bool(splits[top]) is named) for named in (True, False))
            raise InputError(
                f"dataset {name!r}: {split!r} has the name of a split, but {other!r} beside it has not; {_FIX}"
            )
        second = {found[len(place) + 1].lower() for found in below if len(found) > len(place) + 1}
        if second <= set(_EXACT) and len(second) > 1 and depths == {2}:
            raise InputError(f"dataset {name!r}: lies as CLASS/SPLIT/file, such as {tops[0]}/train/...; {_FIX}")
        return None
    found = defaultdict(list)
    for top, split in splits.items():
        if split:
            found[split].append((*place, top))
    return dict(found)


def arrange(
    name: str, tree: ImageTree, data_files: Mapping[str, Iterable[str]]
) -> tuple[dict[str, list[Place]] | None, dict[str, list[str]] | None]:
    """Compares what `datasets` takes for splits with what the folders say.

    Args:
        name: the dataset, for messages.
        tree: what its folder holds.
        data_files: the files that `datasets` found for each split.

    Returns:
        The folders of each split, as from `find_splits`; None where `datasets` knows better. And, where its files
        are not those of the folders, the `data_files` to read it with, links included.

    Raises:
        InputError: as in `find_splits`.
    """
    splits = find_splits(name, tree)
    counts = {str(split): tree.found(files) for split, files in data_files.items()}
    if splits is None or counts == {split: tree.below(starts) for split, starts in splits.items()}:
        return splits, None
    if list(splits) == ["train"] and not any(map(_split_of, {place[-1] for place in tree.images if place})):
        found = sum(counts.values(), Counter())
        if found == tree.images:  # names of files say it, such as "cat/train-1.png"
            return None, None
        if found.total() < tree.images.total():
            logger.warning_once(
                f"dataset {name!r}: only some names of files name a split ({found.total():,} of "
                f"{tree.images.total():,} do); all are read as the split 'train'"
            )
    patterns = {
        split: [
            "/".join([*map(escape, place), "**"])
            for start in starts
            for place in (start, *sorted(link for link in tree.links if is_in(link, start) and link != start))
        ]
        for split, starts in splits.items()
    }
    return splits, patterns


def check_read(
    name: str,
    tree: ImageTree,
    splits: Mapping[str, Iterable[Place]] | None,
    data_files: Mapping[str, Iterable[str]],
) -> None:
    """Counts what `datasets` found against what lies in the folder.

    Args:
        name: the dataset, for messages.
        tree: what its folder holds.
        splits: its splits' folders, from `find_splits`.
        data_files: the files that `datasets` found for each split.

    Raises:
        InputError: images would be left out, or lie at different depths. The number of images that lie in no split's
            folder is logged.
    """
    found = sum(map(tree.found, data_files.values()), Counter())
    missing = tree.images - found
    starts = [place for places in splits.values() for place in places] if splits else [()]
    inside = Counter({place: n for place, n in missing.items() if any(is_in(place, start) for start in starts)})
    total = sum(tree.images.values())
    if inside:
        place = next(iter(inside))
        example = next((unread for unread in tree.unread if unread[:-1] == place), (*place, "..."))
        raise InputError(
            f"dataset {name!r}: {sum(inside.values()):,} of {total:,} images would be left out, such as "
            f"{'/'.join(example)}; {_why(example, bool(splits))}"
        )
    if missing:
        logger.warning_once(
            f"dataset {name!r}: {sum(missing.values()):,} of {total:,} images lie outside its splits "
            f"({', '.join(splits)}) and are left out, such as {'/'.join(next(iter(missing)))}/..."
        )
    if splits and not any(is_in(place, start) for place in tree.metadata for start in starts):
        _check_classes(name, tree, splits)


def check_disjoint(name: str, data_files: Mapping[str, Iterable[str]]) -> None:
    """Checks that no file belongs to two splits.

    Args:
        name: the dataset, for messages.
        data_files: the files of each split.

    Raises:
        InputError: one does; the message names it.
    """
    seen: dict[str, str] = {}
    for split, files in data_files.items():
        for file in map(str, files):
            if seen.setdefault(file, str(split)) != str(split):
                raise InputError(f"dataset {name!r}: {file} belongs to the splits {seen[file]} and {split}; {_FIX}")


def _check_classes(name: str, tree: ImageTree, splits: Mapping[str, Iterable[Place]]) -> None:
    """Compares the class folders of the splits, and looks for empty ones."""
    by_split = {split: tree.below(starts) for split, starts in splits.items()}
    places = [(place, start) for starts in splits.values() for start in starts for place in tree.below([start])]
    depths = {len(place) - len(start): place for place, start in places}
    if len(depths) > 1:
        shallow, deep = (f"{'/'.join(depths[pick(depths)])}/..." for pick in (min, max))
        raise InputError(f"dataset {name!r}: images lie at different depths, such as {shallow} and {deep}; {_FIX}")
    depth = next(iter(depths))
    classes = {split: {place[-1] for place in found} for split, found in by_split.items()}
    known = set().union(*classes.values())
    starts = [start for starts in splits.values() for start in starts]
    empty = sorted(
        "/".join(place)
        for place in tree.folders
        if place[-1] not in known and any(is_in(place, start) and len(place) - len(start) == depth for start in starts)
    )
    if empty:
        logger.warning_once(f"dataset {name!r}: {_some(empty)} without images: not taken for classes")
    for split, names in classes.items():
        others = known - names
        if others:
            logger.warning_once(f"dataset {name!r}: split {split!r} has no images of {_some(sorted(others))}")


def _split_of(folder: str) -> str | None:
    """The split that a folder's name says."""
    if folder.lower() in _EXACT:
        return _EXACT[folder.lower()]
    return next((split for split, pattern in _WITHIN.items() if pattern.fullmatch(folder)), None)


def _why(example: Place, arranged: bool) -> str:
    hidden = next((part for part in example[:-1] if part.startswith("__")), None)
    if hidden:
        return f"rename {hidden!r}, since datasets passes over folders whose names begin with __"
    if not is_looked_for(example[-1]) and example[-1] != "...":
        return f"datasets does not know the ending {Path(example[-1]).suffix!r}; convert or rename them"
    return "remove or restore them" if arranged else _FIX


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
