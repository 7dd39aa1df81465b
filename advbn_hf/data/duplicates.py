"""Images of the evaluation split that the training split has as well, so that the accuracy on them says too much."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset, IterableDataset
from transformers.utils import logging

logger = logging.get_logger(__name__)

_TAIL = 4096  # bytes at the end of a file that are compared before all of it
_BATCH = 64  # rows between two looks at the clock


@dataclass(frozen=True)
class Duplicates:
    """What `find_duplicates` found.

    Args:
        rows: row numbers of the evaluation split whose images are in the training split, in ascending order.
        num_evaluation: number of rows of the evaluation split that were compared.
        num_training: number of rows of the training split that were compared.
    """

    rows: list[int]
    num_evaluation: int
    num_training: int


def find_duplicates(training: Dataset, evaluation: Dataset, seconds: float = 60.0) -> Duplicates:
    """Looks for images of the evaluation split in the training split, byte for byte; nothing is decoded.

    Sizes and last bytes are compared first, and all bytes where those are the same. An image that was resized or
    encoded again is another one.

    Args:
        training: a split from `load_images`.
        evaluation: another.
        seconds: the time after which to stop; rows that are not reached by then are not compared.
    """
    begin = time.monotonic()
    known: dict[tuple[int, bytes], list[int]] = {}
    num_evaluation = num_training = 0
    for row, image in _until(begin + seconds / 2, evaluation):
        num_evaluation = row + 1
        if (key := _key(image)) is not None:
            known.setdefault(key, []).append(row)
    digests: dict[int, bytes | None] = {}
    found: set[int] = set()
    for row, image in _until(begin + seconds, training):
        num_training = row + 1
        key = _key(image)
        if not known.get(key):
            continue
        digest = _digest(image)
        for place in known[key]:
            if place not in digests:
                digests[place] = _digest(evaluation[place]["image"])
            if digests[place] == digest is not None:
                found.add(place)
        known[key] = [place for place in known[key] if place not in found]
    return Duplicates(sorted(found), num_evaluation, num_training)


def warn_of_duplicates(
    training: Dataset | IterableDataset, evaluation: Dataset | IterableDataset, seconds: float = 60.0
) -> None:
    """Logs one warning with the number of evaluation images that are in the training split, if there are any.

    The main process alone looks; streams are not looked through.

    Args:
        training: as in `find_duplicates`.
        evaluation: as in `find_duplicates`.
        seconds: as in `find_duplicates`.
    """
    if isinstance(training, IterableDataset) or isinstance(evaluation, IterableDataset):
        return
    if not PartialState().is_main_process:
        return
    found = find_duplicates(training, evaluation, seconds)
    compared = ""
    if found.num_evaluation < len(evaluation) or found.num_training < len(training):
        compared = (
            f" (of {found.num_evaluation:,} of {len(evaluation):,} images that were compared with "
            f"{found.num_training:,} of {len(training):,} in {seconds:.0f} s)"
        )
    if found.rows:
        first = found.rows[0]
        path = evaluation[first]["image"]["path"]
        place = f"row {first} ({path})" if path else f"row {first}"
        logger.warning(
            f"{len(found.rows):,} of {len(evaluation):,} evaluation images are in the training split as well"
            f"{compared}, such as {place}; accuracy on them says nothing of new images"
        )
    elif compared:
        logger.info(f"no evaluation image was found in the training split{compared}")


def _until(end: float, dataset: Dataset) -> Iterator[tuple[int, dict[str, Any]]]:
    """The images of a split and their row numbers, until `time.monotonic()` reaches `end`."""
    row = 0
    for batch in dataset.select_columns("image").iter(_BATCH):
        if time.monotonic() >= end:
            return
        for image in batch["image"]:
            yield row, image
            row += 1


def _key(image: dict[str, Any] | None) -> tuple[int, bytes] | None:
    """Size and last bytes; None where there is no image or file."""
    if image is None:
        return None
    if image["bytes"] is not None:
        return len(image["bytes"]), hashlib.sha256(image["bytes"][-_TAIL:]).digest()
    try:
        with Path(image["path"]).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(size - _TAIL, 0))
            return size, hashlib.sha256(file.read()).digest()
    except OSError:
        return None


def _digest(image: dict[str, Any]) -> bytes | None:
    try:
        content = image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
    except OSError:
        return None
    return hashlib.sha256(content).digest()
