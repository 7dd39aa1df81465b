"""One run at a time in a folder: an exclusive lock, which the system releases however the process ends."""

import atexit
import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import InputError
from .files import remove_unfinished

_LOCK_FILE = ".run.lock"
_locks: dict[Path, FileLock] = {}  # of the folders that this process has locked


def lock_folder(folder: str | Path) -> None:
    """Takes an exclusive lock on a folder until this process ends; locking it twice is as good as once.

    What a run that died was still writing there is removed. Processes forked from this one may write there too; the
    lock ends with this one.

    Args:
        folder: where a run writes; created if missing.

    Raises:
        InputError: another process holds the lock.
    """
    folder = Path(folder).resolve()
    if folder in _locks:
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK_FILE, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise InputError(f"output_dir: another run is writing to {folder}; wait for it, or name another") from error
    except OSError:  # some network file systems have no locks
        pass
    else:
        atexit.register(_remove, lock, os.getpid())
        remove_unfinished(folder)
    _locks[folder] = lock


def holds_files(folder: str | Path) -> bool:
    """Whether a folder exists and holds anything but the lock file that a killed run leaves behind.

    Args:
        folder: where a run would write.
    """
    folder = Path(folder)
    return folder.is_dir() and any(path.name != _LOCK_FILE for path in folder.iterdir())


def _remove(lock: FileLock, process: int) -> None:
    """Removes the lock file while its lock is still held, since a file that is no longer locked may be another's."""
    if os.getpid() == process:  # not where a fork of it ends
        with suppress(OSError):  # Windows removes no open file, but filelock does so there after the release
            Path(lock.lock_file).unlink()
        lock.release()
