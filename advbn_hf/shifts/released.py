"""Released ImageNet-C folders, read as they are: nested by category as they are distributed, or flat."""

from pathlib import Path

from datasets import ClassLabel, Dataset, Features, Image

from ..errors import InputError
from .imagenet_c import SEVERITIES


def find_corruptions(folder: str | Path) -> dict[str, dict[int, Path]]:
    """Finds what a folder of released ImageNet-C files holds.

    Args:
        folder: CORRUPTION/SEVERITY/CLASS/FILE or CATEGORY/CORRUPTION/SEVERITY/CLASS/FILE; both may be mixed.

    Returns:
        Corruption -> severity -> the folder of its classes, sorted.

    Raises:
        InputError: there is no such folder or no corruption in it, or one corruption is there twice.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"dataset: there is no folder {folder}; unpack the released ImageNet-C files there")
    found: dict[str, dict[int, Path]] = {}
    for path in filter(Path.is_dir, _visible(folder)):
        # A folder without severities is a category.
        inside = [path] if _severities(path) else list(filter(Path.is_dir, _visible(path)))
        for corruption in filter(_severities, inside):
            if corruption.name in found:
                raise InputError(f"dataset: {folder} holds {corruption.name} twice; keep one of the folders")
            found[corruption.name] = _severities(corruption)
    if not found:
        raise InputError(
            f"dataset: {folder} holds no corruptions; it must have CORRUPTION/SEVERITY/CLASS/FILE, "
            "or a folder per category above that, as ImageNet-C is distributed"
        )
    return dict(sorted(found.items()))


def load_corruption(folder: Path) -> Dataset:
    """Reads the images of one corruption and severity; nothing is decoded or copied.

    Args:
        folder: with one folder a class.

    Returns:
        A dataset with "image" (undecoded, by path) and "label" (named after the folders), in the order of the names.

    Raises:
        InputError: the folder has no classes with files.
    """
    classes = [path.name for path in _visible(folder) if path.is_dir()]
    rows = [(str(file), label) for label, name in enumerate(classes) for file in _visible(folder / name)]
    if not rows:
        raise InputError(f"dataset: {folder} holds no images; it must have a folder for each class")
    images = [{"bytes": None, "path": file} for file, _ in rows]
    features = Features({"image": Image(decode=False), "label": ClassLabel(names=classes)})
    return Dataset.from_dict({"image": images, "label": [label for _, label in rows]}, features=features)


def _visible(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, without hidden files and folders such as .DS_Store and .ipynb_checkpoints."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _severities(folder: Path) -> dict[int, Path]:
    return {severity: folder / str(severity) for severity in SEVERITIES if (folder / str(severity)).is_dir()}
