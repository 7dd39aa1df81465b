"""Images made from images, cached on disk by the content of their sources."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, Features, Image, concatenate_datasets
from filelock import FileLock
from tqdm.auto import tqdm

from ..errors import InputError
from ..utils.fingerprint import hash_parts, hash_settings

_STORED = Features({"image": Image(decode=False)})
_content_hashes: dict[str, str] = {}  # by the fingerprint that `datasets` gives, which differs between copies


def cached_images(
    dataset: Dataset, make: Callable[..., dict[str, Any]], recipe: list[Any], num_proc: int | None, desc: str
) -> Dataset:
    """Makes one image from each image of a dataset, or reads those that an earlier call cached.

    A second process that asks for the same ones waits for the first. A cache is complete or it is not there.

    Args:
        dataset: a set with a column "image".
        make: from a row `{"image": {"bytes", "path"}}` and its index to such a row.
        recipe: all that `make` depends on besides the row, as JSON values.
        num_proc: processes that make images; None: this one.
        desc: the progress bar's text.

    Returns:
        A set of the one column "image", `Image(decode=False)`, with the same number of rows.

    Raises:
        InputError: an image's file is missing.
    """
    source = dataset.select_columns("image").with_format(None).cast_column("image", Image(decode=False))
    if source._fingerprint not in _content_hashes:  # hashing takes a while, and one call follows another
        _content_hashes[source._fingerprint] = _hash_content(source)
    key = hash_settings([_content_hashes[source._fingerprint], *recipe])[:32]
    root = Path(datasets.config.HF_DATASETS_CACHE) / "advbn_hf_shifts"
    root.mkdir(parents=True, exist_ok=True)
    folder = root / key
    with FileLock(root / f"{key}.lock"):
        if not folder.exists():
            for unfinished in root.glob(f".{key}-*"):  # of a process that died
                shutil.rmtree(unfinished, ignore_errors=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=root))
            try:
                source.map(
                    make,
                    with_indices=True,
                    features=_STORED,
                    num_proc=num_proc,
                    desc=desc,
                    cache_file_name=str(temporary / "images.arrow"),
                    load_from_cache_file=False,
                    new_fingerprint=key,
                    writer_batch_size=200,
                )
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    # One file for each process that generated, numbered in the order of the rows.
    return concatenate_datasets([Dataset.from_file(str(file)) for file in sorted(folder.glob("*.arrow"))])


def read_image(value: dict[str, Any] | None, index: int) -> tuple[str, bytes]:
    """The name and content of an image's file; both empty if there is none.

    Args:
        value: what a column of type `Image(decode=False)` holds.
        index: the row, for the message.

    Raises:
        InputError: the file is missing.
    """
    value = value or {}
    path, data = value.get("path"), value.get("bytes")
    if data is None and path is not None:
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise InputError(f"row {index} ({path}): cannot be read ({error.strerror}); restore the file") from error
    return Path(path or "").name, data or b""


def _hash_content(source: Dataset) -> str:
    """The digest of the images' names and files, in the order of the rows."""
    rows = enumerate(tqdm(source, desc="reading the images", delay=3, leave=False))
    files = (read_image(row["image"], index) for index, row in rows)
    return hash_parts(name.encode() + b"\0" + data for name, data in files)
