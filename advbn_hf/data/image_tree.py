"""The images of a folder, counted by the folders that they lie in."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from PIL import Image as PILImage

Place = tuple[str, ...]  # a folder or file, by the names that lead to it from the dataset's folder

_JUNK = ("__MACOSX", "__pycache__")
_KNOWN = frozenset(ImageFolder.EXTENSIONS)
_UNKNOWN = frozenset({".avif", ".avifs", ".heic", ".heif", ".jxl"})  # endings of images that `datasets` does not know


class ImageTree:
    """What lies in a folder, hidden files and folders left out; symbolic links are followed.

    Attributes:
        root: the folder, as an absolute path.
        images: number of images directly in each folder that has any.
        unread: images whose names `datasets` does not look for, such as "1.Jpg" and "1.avif".
        metadata: folders that hold a metadata file.
        folders: all folders.
        links: folders that are symbolic links.
    """

    def __init__(self, folder: str | Path) -> None:
        self.root = Path(folder).expanduser().resolve()
        self.images: Counter[Place] = Counter()
        self.unread: list[Place] = []
        self.metadata: set[Place] = set()
        self.folders: set[Place] = set()
        self.links: set[Place] = set()
        self._walk((), frozenset())

    def _walk(self, place: Place, above: frozenset[str]) -> None:
        path = self.root.joinpath(*place)
        above = above | {os.path.realpath(path)}
        for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
            inner = (*place, entry.name)
            if entry.name.startswith(".") or entry.name in _JUNK:
                continue
            if entry.is_dir():
                if entry.is_symlink():
                    if os.path.realpath(entry) in above:  # a link to a folder that it lies in
                        continue
                    self.links.add(inner)
                self.folders.add(inner)
                self._walk(inner, above)
            elif entry.name in ImageFolder.METADATA_FILENAMES:
                self.metadata.add(place)
            elif _is_image(entry):
                self.images[place] += 1
                if not is_looked_for(entry.name):
                    self.unread.append(inner)

    def below(self, places: Iterable[Place]) -> Counter[Place]:
        """Number of images in each folder that is one of `places` or lies in one."""
        starts = tuple(places)
        return Counter({found: n for found, n in self.images.items() if any(is_in(found, start) for start in starts)})

    def found(self, files: Iterable[str]) -> Counter[Place]:
        """The same as `images` for some files only, such as those that `datasets` found for a split."""
        folders = Counter(file.rpartition("/")[0] for file in files if _ending(file).lower() in _KNOWN)
        return Counter({Path(os.path.relpath(folder, self.root)).parts: n for folder, n in folders.items()})


def is_in(place: Place, start: Place) -> bool:
    return place[: len(start)] == start


def is_looked_for(name: str) -> bool:
    """Whether `datasets` looks for files of that name: it knows endings in lower and in upper case."""
    ending = _ending(name)
    return ending in (ending.lower(), ending.upper()) and ending.lower() in _KNOWN


def _ending(name: str) -> str:
    return Path(name).suffix


def _is_image(entry: os.DirEntry) -> bool:
    ending = _ending(entry.name).lower()
    if ending:
        return ending in _KNOWN or ending in _UNKNOWN
    try:
        with PILImage.open(entry.path):
            return True
    except Exception:  # what is no image raises more than a dozen types in PIL
        return False
