"""Image-classification splits by Hub id, folder or "embedded", always with the two columns "image" and "label"."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Features, Image, IterableDataset, Value
from datasets.exceptions import DatasetsError
from transformers.utils import logging

from ..errors import InputError, one_line
from .sources import open_split

logger = logging.get_logger(__name__)

_STRINGS = ("string", "large_string")
_MOST_CLASSES = 0.5  # texts that are classes, as a share of the rows; more than `_FEW` are needed to tell
_FEW = 4


def load_images(
    name: str,
    split: str,
    *,
    config: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Dataset | IterableDataset:
    """Loads one split of an image-classification dataset; nothing is decoded.

    String and bool labels are numbered: strings in the sorted order of all the dataset's splits, so that a class has
    one number in all of them; a missing one becomes -1, which `check_labels` names.

    Args:
        name: "embedded", a Hub id, or a folder: of images as SPLIT/CLASS/file, or as CLASS/file, which is the split
            "train"; of images with metadata files; of parquet files; or one written by `save_to_disk`.
        split: the split's name; slices such as "train[:10%]" work where `datasets.load_dataset` reads them.
        config: the dataset's configuration; for "embedded" the style.
        revision: branch, tag or commit on the Hub.
        streaming: return an `IterableDataset` that reads as it goes.
        image_column: the images' column; by default the only one of type `Image`.
        label_column: the labels' column; by default the only `ClassLabel`, else the only integer, string or bool one.

    Returns:
        The split with exactly the columns "image" (`Image(decode=False)`: file bytes and path) and "label"
        (`ClassLabel` where the classes have names, else integers).

    Raises:
        InputError: the dataset, configuration, split or a column is not there (the message names what is), is not of
            a usable type, is ambiguous, or the split is empty.
    """
    dataset = open_split(name, split, config, revision, streaming)
    if dataset.features is None:
        raise InputError(f"dataset {name!r}: its stream does not say what its columns hold; load it without streaming")
    image = _find_image_column(name, dataset.features, image_column)
    label = _find_label_column(name, dataset.features, image, label_column)
    logger.info(f"dataset {name!r}: images from column {image!r}, labels from column {label!r}")
    kind = dataset.features[label]
    if streaming and kind.dtype in _STRINGS:
        raise InputError(f"label_column {label!r}: a stream of strings cannot be numbered; load it without streaming")

    # First of all: in any step before it, a stream would decode images and encode them again.
    dataset = dataset.cast_column(image, Image(decode=False)).select_columns([image, label])
    dataset = dataset.rename_columns({old: new for old, new in ((image, "image"), (label, "label")) if old != new})
    try:
        first = next(iter(dataset), None)
    except (DatasetsError, TypeError, ValueError, LookupError) as error:  # a stream is not read before
        raise InputError(f"dataset {name!r}: cannot be read: {one_line(error)}") from error
    if first is None:
        raise InputError(f"split {split!r} of dataset {name!r} is empty; choose another split")
    if not streaming and kind.dtype in _STRINGS:
        parts = list(open_split(name, None, config, revision, streaming=False).values())
        values = set().union(*(part.unique(label) for part in parts)) - {None}
        _check_classes(name, label, values, sum(map(len, parts)))
        dataset = _number_labels(dataset, sorted(values))
    elif not streaming and kind.dtype == "bool":
        dataset = _number_labels(dataset, [False, True])
    _check_names(name, class_names(dataset), declared=isinstance(kind, ClassLabel))
    return dataset


def class_names(dataset: Dataset | IterableDataset) -> list[str] | None:
    """The names of the classes of a split from `load_images`, in the order of their numbers; None if it has none."""
    label = dataset.features["label"]
    return label.names if isinstance(label, ClassLabel) else None


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a split before it is downloaded.

    Args:
        columns: names of its columns.
        num_rows: number of its rows; None where no metadata has it.
        names: names of its classes in the order of their numbers; None where no metadata has them.
    """

    columns: tuple[str, ...]
    num_rows: int | None
    names: list[str] | None


def inspect_images(
    name: str,
    split: str,
    *,
    config: str | None = None,
    revision: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> SourceInfo:
    """Reads the columns and metadata of one split, without downloading it.

    Args:
        name: as in `load_images`, and so are all others.
        split: the split's name.
        config: the dataset's configuration.
        revision: branch, tag or commit on the Hub.
        image_column: the images' column.
        label_column: the labels' column.

    Raises:
        InputError: as in `load_images`.
    """
    stream = open_split(name, split, config, revision, streaming=True)
    splits = stream.info.splits or {}
    num_rows = splits[split].num_examples if split in splits else None
    if stream.features is None:
        columns = tuple(next(iter(stream), {}))
        for field, wanted in (("image_column", image_column), ("label_column", label_column)):
            if wanted is not None:
                _check_present(name, field, wanted, columns)
        return SourceInfo(columns, num_rows or None, None)
    image = _find_image_column(name, stream.features, image_column)
    label = stream.features[_find_label_column(name, stream.features, image, label_column)]
    names = label.names if isinstance(label, ClassLabel) else None
    _check_names(name, names, declared=True)
    return SourceInfo(tuple(stream.features), num_rows or None, names)


def check_labels(dataset: Dataset | IterableDataset, num_labels: int) -> None:
    """Checks that a model with `num_labels` outputs can be trained on, or evaluated on, a split from `load_images`.

    Of a stream only the declared classes can be checked beforehand.

    Args:
        dataset: the split.
        num_labels: the number of the model's labels.

    Raises:
        InputError: some labels are missing or outside 0..num_labels - 1; the message names them.
    """
    fix = f"the model has the labels 0..{num_labels - 1}; fix the data, or choose another label_column or model"
    if isinstance(dataset, IterableDataset):
        names = class_names(dataset)
        if names is not None and len(names) > num_labels:
            raise InputError(f"labels: the dataset has {len(names)} classes, but {fix}")
        return
    labels = dataset.select_columns("label").with_format("arrow")[:]["label"]
    numbers = pc.cast(labels, pa.float64(), safe=False)  # which holds unsigned ones too
    wrong = pc.fill_null(pc.or_(pc.less(numbers, 0), pc.greater_equal(numbers, num_labels)), True)
    if pc.any(wrong).as_py():
        values = ["missing" if value is None else str(value) for value in labels.filter(wrong).unique().to_pylist()]
        shown = ", ".join(values[:5]) + (", ..." if len(values) > 5 else "")
        first = pc.index(wrong, True).as_py()
        raise InputError(f"labels: {pc.sum(wrong)} rows have {shown} (the first is row {first}), but {fix}")


def check_same_classes(dataset: Dataset | IterableDataset, other: Dataset | IterableDataset, field: str) -> None:
    """Checks that two splits from `load_images` number the same classes alike.

    Args:
        dataset: the split to go by.
        other: the split to check.
        field: what the person called `other`, for the message.

    Raises:
        InputError: the splits differ in the names of their classes or in their order.
    """
    names, others = class_names(dataset), class_names(other)
    if names == others:
        return
    if names is None or others is None:
        raise InputError(f"{field}: only one of the splits has names for its classes; choose splits of one dataset")
    if sorted(names) == sorted(others):
        number = next(number for number, name in enumerate(names) if name != others[number])
        raise InputError(
            f"{field}: has the classes of the training split in another order (label {number} is {others[number]!r}, "
            f"not {names[number]!r}); cast both to one ClassLabel"
        )
    extra = sorted(set(others) - set(names)) or sorted(set(names) - set(others))
    where = "it alone" if set(others) - set(names) else "the training split alone"
    raise InputError(
        f"{field}: its classes are not those of the training split: {where} has {', '.join(map(repr, extra[:3]))}"
        f"{', ...' if len(extra) > 3 else ''}; choose splits of one dataset"
    )


def _check_classes(name: str, column: str, values: Collection[str], num_rows: int) -> None:
    """Refuses texts that hardly ever repeat: captions, file names or ids."""
    if len(values) > max(num_rows * _MOST_CLASSES, _FEW):
        raise InputError(
            f"label_column {column!r} of {name!r}: holds {len(values):,} different texts in {num_rows:,} rows, which "
            "are captions or ids, not classes; name a column of classes"
        )


def _check_names(name: str, names: list[str] | None, declared: bool) -> None:
    """Refuses classes of a folder, or of texts, that are one by mistake; of a declared class it can only warn."""
    alike: dict[str, str] = {}
    for found in names or ():
        first = alike.setdefault("".join(found.split()).casefold(), found)
        if first is found or len(first) == len(found) == 1:  # letters may be classes in both cases
            continue
        message = f"dataset {name!r}: the classes {first!r} and {found!r} differ by case or blanks only"
        if declared and not Path(name).exists():
            logger.warning_once(message)
        else:
            raise InputError(f"{message}; make them one, or name them so that they differ")


def _find_image_column(name: str, features: Features, wanted: str | None) -> str:
    if wanted is None:
        found = [column for column, feature in features.items() if isinstance(feature, Image)]
        return _only(name, "image_column", found, features)
    _check_present(name, "image_column", wanted, features)
    try:  # `Image` itself knows what it can hold: images, their bytes, or their paths
        Image().cast_storage(pa.array([], type=features.arrow_schema.field(wanted).type))
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError(f"image_column {wanted!r} of {name!r} holds no images: {features[wanted]}") from error
    return wanted


def _find_label_column(name: str, features: Features, image: str, wanted: str | None) -> str:
    values = [column for column, feature in features.items() if column != image and _is_label(feature)]
    if wanted is None:
        classes = [column for column in values if isinstance(features[column], ClassLabel)]
        return _only(name, "label_column", classes or values, features)
    _check_present(name, "label_column", wanted, features)
    if wanted not in values:
        raise InputError(f"label_column {wanted!r} of {name!r} holds no labels: {features[wanted]}")
    return wanted


def _is_label(feature: object) -> bool:
    if isinstance(feature, Value):
        return feature.dtype.startswith(("int", "uint")) or feature.dtype in ("bool", *_STRINGS)
    return isinstance(feature, ClassLabel)


def _only(name: str, field: str, found: list[str], features: Features) -> str:
    if len(found) == 1:
        return found[0]
    count = "several columns could be it" if found else "no column's type fits"
    raise InputError(f"{field} of dataset {name!r}: {count}; name one of {', '.join(found or features)}")


def _check_present(name: str, field: str, wanted: str, features: Iterable[str]) -> None:
    if wanted not in features:
        raise InputError(f"{field}: dataset {name!r} has no column {wanted!r}; it has {', '.join(features)}")


def _number_labels(dataset: Dataset, values: list[str] | list[bool]) -> Dataset:
    """Replaces the label column alone; `class_encode_column` would write every image to the cache again."""
    labels = dataset.select_columns("label").with_format("arrow")[:]["label"]
    numbers = pc.fill_null(pc.index_in(labels, pa.array(values, type=labels.type)), -1)
    feature = ClassLabel(names=[str(value) for value in values])
    return dataset.remove_columns("label").add_column("label", numbers.to_numpy(), feature=feature)
