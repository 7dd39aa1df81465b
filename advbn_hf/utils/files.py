"""Writing files and folders atomically: under a temporary name first, then renamed into place."""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError

_UNFINISHED = ".partial-"  # begins the name of what is still being written
_PACKAGE = Path(__file__).resolve().parents[1]


def shipped(name: str) -> Path:
    """The path of a file or folder that comes with the package but is not code.

    Args:
        name: its path in the repository, for example "recipes/suites" or "model_cards/template.md".

    Returns:
        Where it is: inside the package where that was installed from a wheel, at the top of the repository in a
        checkout.

    Raises:
        FileNotFoundError: it is in neither, so that the installation is incomplete.
    """
    places = [folder / name for folder in (_PACKAGE, _PACKAGE.parent)]
    for path in places:
        if path.exists():
            return path
    raise FileNotFoundError(f"{name} is missing from this installation of advbn_hf; it belongs at {places[0]}")


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file so that a reader sees the old content or the new, never a part.

    Args:
        path: the file; its folder must exist.
        content: text (written as UTF-8) or bytes.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to, which takes its place when the block ends without an error."""
    path = Path(path)
    # The suffix stays last, since writers such as matplotlib read the format from it.
    temporary = path.with_name(f"{_UNFINISHED}{os.getpid()}-{threading.get_native_id()}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def filling(folder: str | os.PathLike) -> Iterator[Path]:
    """Gives an empty temporary folder whose files move into `folder` when the block ends without an error.

    Every file arrives by a rename; files of `folder` that have no successor stay as they are.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder))
    try:
        yield temporary
        for source in sorted(temporary.rglob("*")):
            target = folder / source.relative_to(temporary)
            if source.is_dir():
                target.mkdir(exist_ok=True)
            else:
                source.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_unfinished(folder: str | os.PathLike) -> None:
    """Removes what processes that died were still writing in a folder and those in it; no other may write there."""
    for path in [*Path(folder).glob(f"{_UNFINISHED}*"), *Path(folder).glob(f"*/{_UNFINISHED}*")]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def check_empty(folder: str | os.PathLike, field: str) -> None:
    """Stops where new files would mix with others.

    Args:
        folder: to write to.
        field: what the person called it.

    Raises:
        InputError: it is a file or holds something.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{field}: {folder} is not an empty folder; name a new one")
