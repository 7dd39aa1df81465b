"""Which checkpoints a run can go on from: those that are whole, and of a model that is cut as the run's.

Each ends with a list of its files and their hashes, written last of all.
"""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from transformers.utils import logging

from ..config import AdvBNConfig
from ..errors import InputError, first_line
from ..utils.files import write_atomically
from ..utils.fingerprint import hash_file

logger = logging.get_logger(__name__)

CONTENTS_FILE = "checkpoint_contents.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def seal(checkpoint: str | Path) -> None:
    """Lists the files of a checkpoint with their SHA-256 in `checkpoint_contents.json`: it is whole from now on.

    Args:
        checkpoint: folder, to which nothing is added afterwards.
    """
    files = sorted(path for path in Path(checkpoint).rglob("*") if path.is_file() and path.name != CONTENTS_FILE)
    contents = {path.relative_to(checkpoint).as_posix(): hash_file(path) for path in files}
    write_atomically(Path(checkpoint) / CONTENTS_FILE, json.dumps(contents, indent=2) + "\n")


def damage(checkpoint: str | Path) -> str | None:
    """What is wrong with a checkpoint of a run, in words; None if every file is as it was written.

    Args:
        checkpoint: folder.
    """
    listed = Path(checkpoint) / CONTENTS_FILE
    if not listed.is_file():
        return f"it was never finished (it has no {CONTENTS_FILE})"
    try:
        contents = dict(json.loads(listed.read_bytes()))
    except (ValueError, TypeError, RecursionError):
        return f"{CONTENTS_FILE} is damaged"
    for name, expected in contents.items():
        path = Path(checkpoint) / name
        if not path.is_file():
            return f"{name} is missing"
        if hash_file(path) != expected:
            return f"{name} is not as it was written"
    return None


def complete_checkpoint(checkpoint: str | Path | bool, output_dir: str | Path) -> str:
    """The checkpoint to go on from, checked.

    Args:
        checkpoint: folder, or True for the last whole one of the run.
        output_dir: folder of the run.

    Raises:
        InputError: if it is not whole, or there is none; names the checkpoint and the file.
    """
    if checkpoint is True:
        last = last_complete_checkpoint(output_dir)
        if last is None:
            raise InputError(f"resume_from_checkpoint: {output_dir} has no whole checkpoint; start anew")
        return last
    if reason := damage(checkpoint):
        raise InputError(
            f'resume_from_checkpoint: {checkpoint} is not whole: {reason}; take "last" for the last that is'
        )
    return str(checkpoint)


def last_complete_checkpoint(output_dir: str | Path) -> str | None:
    """The last whole checkpoint of a run; every later one is named with what is wrong with it.

    Args:
        output_dir: folder of the run; there need not be one.

    Returns:
        The folder `checkpoint-STEP`, or None if none is whole.
    """
    found = {int(match[1]): path for path in Path(output_dir).glob("*") if (match := _CHECKPOINT.fullmatch(path.name))}
    for _, path in sorted(found.items(), reverse=True):
        reason = damage(path)
        if reason is None:
            return str(path)
        logger.warning(f"{path} is passed over, since it is not whole: {reason}")
    return None


def check_same_structure(checkpoint: str | Path, saved: AdvBNConfig, running: AdvBNConfig) -> None:
    """Stops a run that would go on with weights of a model that was built otherwise.

    Args:
        checkpoint: folder, for the message.
        saved: the settings that it was trained with.
        running: those of the run; both with the insertion point found.

    Raises:
        InputError: names the setting and both values.
    """
    if difference := saved.difference_in_structure(running):
        name, was, now = difference
        raise InputError(
            f"resume_from_checkpoint: {checkpoint} was trained with {name} {was}, and this run has {now}; "
            f"add --{name} {was}, or start anew in another output_dir"
        )


@contextmanager
def reporting_full_disk(checkpoint: Path) -> Iterator[None]:
    """Removes what the block has written of a checkpoint if the disk has no room for all of it, and says so.

    Raises:
        InputError: names the folder.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors give no number of the error
        shutil.rmtree(checkpoint, ignore_errors=True)
        raise InputError(
            f"{checkpoint}: cannot be written ({first_line(error)}); make room, for example by save_total_limit, "
            "and go on by --resume_from_checkpoint last"
        ) from error
