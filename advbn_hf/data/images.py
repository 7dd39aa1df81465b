"""Rows of a split as the model's inputs, decoded and transformed; damaged images are logged or raise."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Image, IterableDataset
from PIL import Image as PILImage
from PIL import UnidentifiedImageError
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..errors import InputError
from ..utils.advice import either
from .transforms import to_rgb

Transform = Callable[[PILImage.Image], torch.Tensor | dict[str, torch.Tensor]]
_DECODER = Image()
_LONGEST = 1000  # times the shorter side, which processors bring to some hundred pixels


class BadImages:
    """A log of the images that could not be decoded, one JSON line each, shared by data workers and processes.

    Args:
        path: the file to append to; a resumed run appends to the one it has.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def add(self, split: str | None, row: int, file: str | None, error: str) -> None:
        """Logs one image, in a single O_APPEND write, so that lines of several writers do not mix."""
        line = json.dumps({"split": split, "row": row, "file": file, "error": error}) + "\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)

    def summary(self) -> list[str]:
        """Names each image once, however often it was met: "train row 17 (cat/x.jpg)", in the order of the rows."""
        if not self.path.exists():
            return []
        notes = [json.loads(line) for line in self.path.read_text().splitlines()]
        places = sorted({(note["split"] or "", note["row"], note["file"]) for note in notes}, key=lambda p: p[:2])
        return [f"{split} {_place(row, file)}".strip() for split, row, file in places]


class ImageDataset(torch.utils.data.Dataset):
    """A map-style split as the model's inputs: `{"pixel_values": float32 (C, H, W), "labels": int}`.

    Where the branches see different images, also "auxiliary_pixel_values", like "pixel_values".

    What is random in an image depends on seed, epoch and row alone: neither on how many processes and data workers
    there are, nor on what was read before it.

    Args:
        dataset: a split from `load_images`.
        transform: `TrainingTransform` or `EvaluationTransform`.
        bad_images: where to log images that cannot be decoded; their `pixel_values` are None, and `collate` drops
            them. None: they raise `InputError` with the row's index and file.
        seed: of what is random in the transform.
    """

    def __init__(self, dataset: Dataset, transform: Transform, bad_images: BadImages | None = None, seed: int = 0):
        self.dataset = dataset
        self.read = reader(dataset, transform, bad_images)
        self.seed = seed
        self.epoch = torch.tensor(0).share_memory_()  # data workers that outlive an epoch see the next one

    def set_epoch(self, epoch: int) -> None:
        """Changes the random part of each transform; `SetEpochCallback` has a Trainer call it."""
        self.epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        with random_numbers_of(self.seed, int(self.epoch), index):
            return self.read(self.dataset[index], index)


class SetEpochCallback(TrainerCallback):
    """Calls `set_epoch` of the training set, if it has one, at the start of each epoch.

    Accelerate's data loaders do so in some cases only: not on several processes, nor in the first epoch of a resumed
    run.
    """

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Before the first image of the epoch is read."""
        dataset = getattr(kwargs["train_dataloader"], "dataset", None)  # loaders need not have one
        if hasattr(dataset, "set_epoch"):
            dataset.set_epoch(int(state.epoch or 0))


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Makes a batch of rows, without those that could not be decoded.

    Args:
        rows: rows of `ImageDataset` or `StreamedImageDataset`.

    Returns:
        "pixel_values", float32 (B, C, H, W), "labels", int64 (B,), and, where the rows have them,
        "auxiliary_pixel_values", like "pixel_values".

    Raises:
        InputError: no row is left, or the transform gave the images different sizes.
    """
    rows = [row for row in rows if row["pixel_values"] is not None]
    if not rows:
        raise InputError("no image of a batch can be decoded; fix or remove those that the log names")
    shapes = sorted({tuple(row["pixel_values"].shape) for row in rows})
    if len(shapes) > 1:
        raise InputError(
            f"images of one batch have different sizes, such as {shapes[0]} and {shapes[-1]}; "
            "set a fixed size or do_center_crop in preprocessor_config.json"
        )
    names = [name for name in ("pixel_values", "auxiliary_pixel_values") if name in rows[0]]
    images = {name: torch.stack([row[name] for row in rows]) for name in names}
    return {**images, "labels": torch.tensor([row["labels"] for row in rows], dtype=torch.int64)}


@contextmanager
def random_numbers_of(*key: int) -> Iterator[None]:
    """Seeds torch's global generator with a key within the block; after it, the generator has its state from before.

    Args:
        key: numbers of 0 or more.
    """
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]))
    try:
        yield
    finally:
        torch.default_generator.set_state(before)


def reader(
    dataset: Dataset | IterableDataset,
    transform: Transform,
    bad_images: BadImages | None,
    num_labels: int | None = None,
) -> Callable[[dict[str, Any], int], dict[str, Any]]:
    """The function that turns a row and its number into the model's input.

    Args:
        dataset: the split, for its name.
        transform: as in `ImageDataset`.
        bad_images: as in `ImageDataset`.
        num_labels: as in `StreamedImageDataset`.
    """
    split = None if dataset.split is None else str(dataset.split)
    return partial(_read, transform=transform, split=split, bad_images=bad_images, num_labels=num_labels)


def _read(
    row: dict[str, Any],
    index: int,
    transform: Transform,
    split: str | None,
    bad_images: BadImages | None,
    num_labels: int | None,
) -> dict[str, Any]:
    file = (row["image"] or {}).get("path")
    if row["label"] is None or row["label"] < 0:
        raise InputError(f"{_place(index, file)}: has no label ({row['label']}); give it one or remove it")
    label = int(row["label"])
    if num_labels is not None and label >= num_labels:
        raise InputError(
            f"{_place(index, file)}: has the label {label}, but the model has 0..{num_labels - 1}; fix it, or "
            "choose another label_column"
        )
    try:
        image = _decode(row["image"])
    except (ConnectionError, TimeoutError, MemoryError):
        raise  # the image may well be fine
    except Exception as error:  # damaged files raise more than a dozen types in PIL
        reason = _reason(error)
        if bad_images is None:
            in_python = "give skip_bad_images=True (to an ImageDataset, bad_images=BadImages())"
            fix = f"fix or remove it, or {either('pass --skip_bad_images true', in_python)}"
            raise InputError(f"{_place(index, file)}: cannot be decoded: {reason}; {fix}") from error
        bad_images.add(split, index, file, reason)
        return {"pixel_values": None, "labels": label}
    inputs = transform(image)
    return {**(inputs if isinstance(inputs, dict) else {"pixel_values": inputs}), "labels": label}


def _decode(value: dict[str, Any] | None) -> PILImage.Image:
    if value is None:
        raise ValueError("there is no image")
    image = _DECODER.decode_example(value)
    if max(image.size) > _LONGEST * min(image.size):
        raise ValueError(f"{image.width} x {image.height} pixels would fill the memory when resized")
    return to_rgb(image)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its own text is only the file's name or a memory address
        return "not an image file"
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _place(row: int, file: str | None) -> str:
    return f"row {row} ({file})" if file else f"row {row}"
