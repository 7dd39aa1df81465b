"""A split as its source has it: the embedded benchmark, a folder, or a dataset on the Hub."""

import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import yaml
from datasets import ClassLabel, Dataset, DatasetBuilder, Features, IterableDataset
from datasets.exceptions import (
    DatasetGenerationError,
    DatasetNotFoundError,
    DatasetsError,
    SplitsVerificationError,
)
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from huggingface_hub import metadata_load
from huggingface_hub.errors import HfHubHTTPError
from transformers.utils import logging

from ..errors import InputError, one_line
from ..utils.fingerprint import hash_state
from .embedded.digits import load_embedded
from .folders import arrange, check_disjoint, check_read
from .image_tree import ImageTree

logger = logging.get_logger(__name__)

_STREAM_SHARDS = 64  # for a stream made of a map-style split: enough for many processes times workers


def open_split(
    name: str, split: str | None, config: str | None, revision: str | None, streaming: bool
) -> Dataset | IterableDataset | dict[str, Dataset]:
    """The split as its source has it, or all splits by name if `split` is None; arguments as in `load_images`.

    Raises:
        InputError: it cannot be reached or read, has no such split, or the folder is not read completely.
    """
    if name == "embedded":
        return _stream(load_embedded(config or "clean", split), streaming)
    folder = Path(name)
    try:
        if not (folder / "dataset_dict.json").exists() and not (folder / "state.json").exists():
            builder = _find(name, config, revision)
            if streaming:
                return builder.as_streaming_dataset(split=split)
            builder.download_and_prepare()
            _count_rows(name, builder)
            return builder.as_dataset(split=split)
        saved = datasets.load_from_disk(name)
    except InputError:
        raise
    except DatasetNotFoundError as error:
        fix = "check the name and revision; if it is private or gated, ask for access on the Hub and `hf auth login`"
        raise InputError(f"dataset {name!r}: {one_line(error)}; {fix}") from error
    except (ConnectionError, HfHubHTTPError) as error:
        fix = "check the name and the network, or pass a folder"
        raise InputError(f"dataset {name!r}: {one_line(error)}; {fix}") from error
    except IndexError as error:  # `load_from_disk` fails so on a split that was saved without rows
        raise InputError(f"dataset {name!r}: a saved split is empty; save it again without that split") from error
    except DatasetGenerationError as error:
        raise InputError(f"dataset {name!r}: cannot be read: {one_line(error.__cause__ or error)}") from error
    except (SplitsVerificationError, TypeError, AttributeError, KeyError) as error:  # their text alone says little
        reason = f"{type(error).__name__}: {one_line(error)}"
        fix = "fix dataset_info and configs in its README.md, or take them out"
        raise InputError(f"dataset {name!r}: its card does not fit its files ({reason}); {fix}") from error
    except (DatasetsError, FileNotFoundError, RuntimeError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"dataset {name!r}: {one_line(error)}") from error
    # As `load_dataset` does, a single set without a split's name is taken for "train".
    splits = {str(saved.split or "train"): saved} if isinstance(saved, Dataset) else saved
    if split is None:
        return splits
    if split not in splits:
        raise InputError(f"dataset {name!r} has no split {split!r}; it has {', '.join(splits)}")
    return _stream(splits[split], streaming)


def _stream(dataset: Dataset, streaming: bool) -> Dataset | IterableDataset:
    if not streaming or not len(dataset):  # no rows cannot be cut into shards
        return dataset
    return dataset.to_iterable_dataset(num_shards=max(1, min(_STREAM_SHARDS, len(dataset))))


def _find(name: str, config: str | None, revision: str | None) -> DatasetBuilder:
    """The dataset as `datasets` reads it, or as its folders say where that is something else."""
    if not Path(name).is_dir():
        builder = datasets.load_dataset_builder(name, config, revision=revision)
        check_disjoint(name, builder.config.data_files or {})
        return builder
    root = os.path.realpath(name)
    files = [Path(folder, file) for folder, _, found in os.walk(root) for file in found]
    builder = _find_in_folder(name, config, hash_state(files))
    paths = [path for found in (builder.config.data_files or {}).values() for path in found]
    if any(os.path.commonpath([root, os.path.realpath(path)]) != root for path in paths):
        _find_in_folder.cache_clear()  # what lies elsewhere may change unseen
    return builder


@lru_cache(maxsize=4)  # `datasets` finds the files of all splits for each of them, in seconds where they are many
def _find_in_folder(name: str, config: str | None, state: str) -> DatasetBuilder:
    """As `_find`: the same as before as long as the files have the same state."""
    builder = datasets.load_dataset_builder(name, config)
    folder, files = Path(name), builder.config.data_files or {}
    if _has_configs(folder):
        check_disjoint(name, files)
        return _known_by_its_files(name, config, files)
    paths = [path for found in files.values() for path in found]
    archives = [path for path in paths if path.endswith(".zip")]
    if isinstance(builder, ImageFolder) and not archives:
        tree = ImageTree(folder)
        splits, data_files = arrange(name, tree, files)
        if data_files is not None:
            # Named files hide the card from `datasets`, which may declare the classes.
            options = {"data_files": data_files, "features": builder.info.features}
            builder = datasets.load_dataset_builder(name, config, **options)
        check_disjoint(name, builder.config.data_files)
        check_read(name, tree, splits, builder.config.data_files)
        return builder
    if archives and any(Path(path).suffix.lower() in ImageFolder.EXTENSIONS for path in paths):
        logger.warning_once(
            f"dataset {name!r}: both {Path(archives[0]).name} and image files beside it are read; keep one"
        )
    check_disjoint(name, files)
    _check_files(name, folder, paths)
    _check_same_features(name, [path for path in paths if path.endswith(".parquet")], builder.info.features)
    return builder


def _known_by_its_files(name: str, config: str | None, files: Mapping[str, Iterable[str]]) -> DatasetBuilder:
    """A dataset with configs in its card, with a cache of its own.

    `datasets` knows it by its card and the last part of its name alone: another folder that is called so, or whose
    files have changed, would be read as the one that was cached first.
    """
    state = hash_state(path for found in files.values() for path in found)
    cache = Path(datasets.config.HF_DATASETS_CACHE) / f"{Path(name).resolve().name}-{state[:16]}"
    return datasets.load_dataset_builder(name, config, cache_dir=str(cache))


def _has_configs(folder: Path) -> bool:
    """Whether the card says which files are which split."""
    card = folder / "README.md"
    return (folder / ".huggingface.yaml").exists() or (card.exists() and "configs" in (metadata_load(card) or {}))


def _check_files(name: str, folder: Path, paths: Iterable[str]) -> None:
    """Tells of files like those of the splits that belong to none."""
    found = {Path(path).resolve() for path in paths}
    kinds = {path.suffix for path in found}
    root = folder.expanduser().resolve()
    others = [
        path.relative_to(root).as_posix()
        for path in sorted(root.rglob("*"))
        if path.suffix in kinds and path.is_file() and path.resolve() not in found
    ]
    others = [path for path in others if not any(part.startswith((".", "__")) for part in path.split("/"))]
    if others:
        logger.warning_once(f"dataset {name!r}: {len(others)} files belong to no split, such as {others[0]}")


def _check_same_features(name: str, paths: Iterable[str], declared: Features | None) -> None:
    """Checks that the parquet files number their classes alike: `datasets` takes one file's names for all."""
    seen: dict[str, tuple[str, list[str]]] = {
        column: ("README.md", feature.names)
        for column, feature in (declared or {}).items()
        if isinstance(feature, ClassLabel)
    }
    for path in paths:
        try:
            features = Features.from_arrow_schema(pq.read_schema(path))
        except (OSError, ValueError, TypeError, KeyError):  # reading the rows says what is wrong with it
            continue
        for column, feature in features.items():
            if isinstance(feature, ClassLabel):
                first, names = seen.setdefault(column, (Path(path).name, feature.names))
                if feature.names != names:
                    raise InputError(
                        f"dataset {name!r}: {Path(path).name} declares other classes, or another order, for column "
                        f"{column!r} than {first}; write all files with one ClassLabel"
                    )


def _endings(path: str) -> list[str]:
    """The last two: `datasets` takes "1.jpg.bak" for an image."""
    return Path(path).suffixes[-2:]


def _count_rows(name: str, builder: DatasetBuilder) -> None:
    """Counts the rows of an image folder against its files."""
    if not isinstance(builder, ImageFolder) or not builder.info.splits:
        return
    for split, files in builder.config.data_files.items():
        if any(path.endswith(".zip") for path in files):
            return
        images = sum(any(ending.lower() in ImageFolder.EXTENSIONS for ending in _endings(path)) for path in files)
        rows = builder.info.splits[split].num_examples
        if rows != images:
            logger.warning_once(
                f"dataset {name!r}: split {split!r} has {rows:,} rows in its metadata and {images:,} image files"
            )
