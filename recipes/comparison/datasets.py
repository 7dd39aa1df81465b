"""The datasets that are compared on, as tensors in memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor

from advbn_hf.data.embedded.digits import load_embedded
from advbn_hf.data.embedded.rendering import MEAN_OVER, STYLES

from .data import designers
from .data.characters import load_characters
from .data.patterns import load_patterns
from .data.unseen import UNSEEN, unseen


@dataclass(frozen=True)
class ShiftedSets:
    """A dataset to train on, with the sets to measure on.

    Args:
        load: from set, split, number of images (None for all) and folder to rows with "image" and "label"; the set
            "clean" of the split "train" is what is trained on.
        measured: by split, "validation" or "test", the sets; the first one is "clean".
        shifts: the sets that are averaged, as far as they are measured.
        from_folder: whether the images lie in a folder; else they are drawn.
    """

    load: Callable[[str, str, int | None, str], datasets.Dataset]
    measured: Mapping[str, tuple[str, ...]]
    shifts: tuple[str, ...]
    from_folder: bool = False


def _drawn(load: Callable[[str, str, int | None], datasets.Dataset]) -> ShiftedSets:
    def rows(name: str, split: str, num_images: int | None, _: str) -> datasets.Dataset:
        return load(name, split, num_images)

    return ShiftedSets(rows, {"validation": STYLES, "test": STYLES}, MEAN_OVER)


def _by_designers(task: str) -> ShiftedSets:
    def rows(name: str, split: str, num_images: int | None, folder: str) -> datasets.Dataset:
        return designers.load_set(Path(folder) / task, name, split, num_images)

    return ShiftedSets(rows, designers.MEASURED, designers.SHIFTS, from_folder=True)


DATASETS: dict[str, ShiftedSets] = {
    "digits": _drawn(load_embedded),
    "characters": _drawn(load_characters),
    "patterns": _drawn(load_patterns),
    "concepts": _by_designers("concepts"),
    "subgroups": _by_designers("subgroups"),
}


@dataclass(frozen=True, eq=False)
class DecodedImages(torch.utils.data.Dataset):
    """One style of a split, decoded.

    Args:
        pixels: uint8 (N, H, W, 3).
        labels: int64 (N,).
        names: of the classes.
    """

    pixels: np.ndarray
    labels: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pixels": self.pixels[index], "labels": int(self.labels[index])}


@cache
def load_decoded(
    dataset: str, name: str, split: str, num_images: int | None, folder: str = designers.FOLDER
) -> DecodedImages:
    """Loads one set of a split and keeps it in memory.

    Args:
        dataset: one of `DATASETS`.
        name: of the set; "clean" for the one that is trained on, "unseen" for shifts of the clean images that no
            setting was chosen on.
        split: "train", "validation" or "test".
        num_images: how many; None for all.
        folder: what `recipes/designers.py` wrote, for datasets that lie there.
    """
    if name == UNSEEN:
        clean = load_decoded(dataset, "clean", split, num_images, folder)
        return replace(clean, pixels=unseen(clean.pixels))
    rows = DATASETS[dataset].load(name, split, num_images, folder)
    pixels = np.stack([np.asarray(image) for image in rows["image"]])
    return DecodedImages(pixels, torch.tensor(rows["label"][:]), tuple(rows.features["label"].names))
