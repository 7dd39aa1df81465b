"""Writing files and folders atomically: under a temporary name first, then renamed into place."""

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import InputError

_UNFINISHED = ".partial-"  # begins the name of what is still being written
_COMPLETE = ".complete-"  # begins the name of a folder whose files are being moved into place
_REPLACED = ".replaced.json"  # in it: what goes when they have arrived
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
        path: the file; its folder is created if missing.
        content: text (written as UTF-8) or bytes.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to, which takes its place when the block ends without an error.

    The folder is created if missing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last, since writers such as matplotlib read the format from it.
    temporary = path.with_name(f"{_UNFINISHED}{os.getpid()}-{threading.get_native_id()}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def filling(folder: str | os.PathLike, replaced: Callable[[Path], Iterable[Path]] | None = None) -> Iterator[Path]:
    """Gives an empty temporary folder whose files move into `folder` when the block ends without an error.

    Every file arrives by a rename. If the process dies before the first, everything is as it was; if it dies between
    them, `finish_filling` moves the rest. Files of `folder` without a successor stay, but for those that are replaced.

    Args:
        folder: created if missing.
        replaced: takes the temporary folder, filled; returns the paths in `folder` that the new files replace.

    Raises:
        InputError: if a file would take the place of a folder, or a folder that of a file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    finish_filling(folder)
    temporary = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder))
    try:
        yield temporary
        for source in temporary.rglob("*"):
            target = folder / source.relative_to(temporary)
            if target.exists() and target.is_dir() != source.is_dir():
                kind = "folder" if source.is_dir() else "file"
                raise InputError(f"{target} is in the way of a {kind} of that name; move it away")
        old = [path.relative_to(folder).as_posix() for path in (replaced(temporary) if replaced else ())]
        (temporary / _REPLACED).write_text(json.dumps([name for name in old if not (temporary / name).exists()]))
        temporary.rename(temporary.with_name(temporary.name.replace(_UNFINISHED, _COMPLETE, 1)))
        try:
            finish_filling(folder)
        except KeyboardInterrupt:
            finish_filling(folder)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def finish_filling(folder: str | os.PathLike) -> None:
    """Moves into a folder what a process that died had written completely, but not moved.

    Args:
        folder: need not exist.

    Raises:
        InputError: if files cannot be moved there.
    """
    folder = Path(folder)
    for complete in sorted(folder.glob(f"{_COMPLETE}*/")):
        try:
            _move(complete, folder)
        except PermissionError as error:
            raise InputError(f"{folder}: what was being saved is not all in place, and it is read-only") from error


def _move(complete: Path, folder: Path) -> None:
    """Every file to its place, then what they replace away; what another process has done meanwhile is done."""
    try:
        old = [folder / name for name in json.loads((complete / _REPLACED).read_bytes())]
    except (OSError, ValueError, TypeError):  # all are gone already
        old = []
    for source in sorted(complete.rglob("*")):
        target = folder / source.relative_to(complete)
        if source.is_dir():
            target.mkdir(exist_ok=True)
        elif source.name != _REPLACED:
            with suppress(FileNotFoundError):
                source.replace(target)
    for path in old:
        if path.parent.resolve().is_relative_to(folder.resolve()):
            path.unlink(missing_ok=True)
    shutil.rmtree(complete, ignore_errors=True)


def remove_unfinished(folder: str | os.PathLike) -> None:
    """Removes what processes that died were still writing in a folder and those in it; no other may write there.

    What they had written completely is moved into place.
    """
    for place in [Path(folder), *Path(folder).glob("*/")]:
        finish_filling(place)
    for path in [*Path(folder).glob(f"{_UNFINISHED}*"), *Path(folder).glob(f"*/{_UNFINISHED}*")]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def check_folder(name: str | Path) -> None:
    """Checks that what can only be a folder, by its form, is there.

    Args:
        name: folder or Hub id.

    Raises:
        InputError: there is no such folder.
    """
    text = str(name)
    is_path = isinstance(name, Path) or text.startswith((".", "~", "/", "\\")) or text.count("/") > 1
    if (is_path or Path(text).is_absolute()) and not Path(text).exists():
        raise InputError(f"there is no folder {text}; name one, or a Hub id such as microsoft/resnet-50")


def check_empty(folder: str | os.PathLike, field: str) -> None:
    """Stops where new files would mix with others.

    Args:
        folder: to write to.
        field: what the person called it.

    Raises:
        InputError: it is a file or holds something, or cannot be written to.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{field}: {folder} is not an empty folder; name a new one")
    check_writable(folder, field)


def check_writable(folder: str | os.PathLike, field: str) -> None:
    """Stops before work whose results could not be written.

    Args:
        folder: to write to; need not be there yet.
        field: what the person called it.

    Raises:
        InputError: nothing can be written there.
    """
    folder = Path(folder)
    try:
        there = next((path for path in (folder, *folder.parents) if path.exists()), Path())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise InputError(f"{field}: {folder} cannot be written to ({error.strerror}); name another folder") from error


def check_file(path: str | os.PathLike, field: str, ending: str) -> None:
    """Stops before work whose result could not be written.

    Args:
        path: the file to write.
        field: what the person called it.
        ending: of its name, such as ".png".

    Raises:
        InputError: it has another ending, is a folder, or cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ending:
        raise InputError(f"{field}: {path} does not end in {ending}; name a file that does")
    if path.is_dir():
        raise InputError(f"{field}: {path} is a folder; name a file")
    check_writable(path.parent, field)
