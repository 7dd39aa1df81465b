"""Things as several designers drew them: Noto to train on, Twemoji to choose settings on, the others to report on."""

from pathlib import Path

import datasets
from drawings.sets import SPLITS

from advbn_hf.data.loading import load_images
from advbn_hf.errors import InputError

FOLDER = "outputs/designers"  # where `recipes/designers.py` is asked to write to, unless another is named
_CLEAN = {"clean": "noto"}  # new placements of the drawings that are trained on
_CHOSEN_ON = {split.title: split.name for split in SPLITS if split.pool == "validation"}
_REPORTED = {split.title: split.name for split in SPLITS if split.reported}
_SPLIT_OF = _CLEAN | _CHOSEN_ON | _REPORTED
MEASURED = {"validation": (*_CLEAN, *_CHOSEN_ON), "test": (*_CLEAN, *_REPORTED)}
SHIFTS = (*_CHOSEN_ON, *_REPORTED)


def load_set(folder: Path, name: str, split: str, num_images: int | None) -> datasets.Dataset:
    """One set of a task.

    Args:
        folder: of the task.
        name: of the set, "clean" or one of `SHIFTS`.
        split: "train" for the images to train on; else the set's own.
        num_images: how many, drawn with seed 0; None for all.

    Raises:
        InputError: there is no such folder.
    """
    if not (folder / "suite.yaml").is_file():
        raise InputError(f"designers: {folder} is no dataset; make it: python recipes/designers.py {folder.parent}")
    rows = load_images(str(folder), "train" if split == "train" else _SPLIT_OF[name])
    rows = rows.cast_column("image", datasets.Image())
    return rows if num_images is None else rows.shuffle(seed=0).select(range(min(num_images, len(rows))))


def folder_contents(folder: Path) -> str:
    """What the trials on a task depend on: its card and its number of files."""
    if not (folder / "README.md").is_file():
        return ""
    return f"{(folder / 'README.md').read_text(encoding='utf-8')}{sum(1 for _ in folder.rglob('*.png'))}"
