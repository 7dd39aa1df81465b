"""One run at a time in a folder, by a lock that the system takes back when the run ends, however it ends."""

import fcntl
import os
from pathlib import Path

from ..errors import InputError
from .files import remove_unfinished

_descriptors: dict[Path, int] = {}  # of the folders of this process; the lock lasts as long as they are open


def claim(folder: str | Path) -> None:
    """Makes a folder this process's own until it ends; to claim it twice is as good as once.

    What a run that died was still writing there is removed.

    Args:
        folder: where a run writes; created if missing.

    Raises:
        InputError: if another process has claimed it.
    """
    folder = Path(folder).resolve()
    if folder in _descriptors:
        return
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise InputError(f"output_dir: another run is writing to {folder}; wait for it, or name another") from error
    except OSError:  # some network file systems have no locks
        pass
    else:
        remove_unfinished(folder)
    _descriptors[folder] = descriptor
