"""The features of a frozen stem for every image of a dataset, computed once and kept in memory-mapped files.

Only what the tail reads is stored. The other tensors of a recording are replayed as zeros, which take no memory.
"""

import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm.auto import tqdm

from ..backbones.model_outputs import logits_of
from ..backbones.split import Recording, Split
from ..backbones.tracing import evaluating
from ..errors import InputError
from ..modeling import AdvBNForImageClassification

_UNREADABLE = -1  # the label of an image that cannot be decoded


@dataclass(frozen=True)
class _Entry:
    """One tensor of a recording.

    Args:
        example: the tensor for two images.
        per_sample: whether its first axis is the batch; if not, it is the same for all batches.
        read: whether the tail's output depends on it.
    """

    example: Tensor
    per_sample: bool
    read: bool

    @property
    def stored(self) -> bool:
        return self.per_sample and self.read

    @property
    def bytes_per_sample(self) -> int:
        return self.example[0].nbytes if self.stored else 0

    def batch(self, size: int, rows: Tensor | None) -> Tensor:
        """The tensor for a batch of `size` images, of which `rows` (size, ...) is what was stored.

        In the memory layout of the stem's own output, since kernels may round differently by layout.
        """
        if rows is not None:
            order = sorted(range(rows.ndim), key=self.example.stride, reverse=True)
            return torch.empty_permuted(rows.shape, order, dtype=rows.dtype).copy_(rows)
        if not self.per_sample:
            return self.example
        return self.example.new_zeros(()).expand(size, *self.example.shape[1:])


class StemFeatures(Dataset):
    """A map-style dataset of recordings; a row is its own number, and `collate` makes a batch of rows.

    Pickled, for data workers that are spawned, it is all but the files' content: each process maps the files itself.

    Args:
        recording: of two images, as an example.
        entries: one for each tensor of the recording, in the order of `Recording.mapped`.
        length: N, the number of images.
        folder: where the files are; created if missing.
    """

    def __init__(self, recording: Recording, entries: list[_Entry], length: int, folder: Path) -> None:
        self.recording = recording
        self.entries = entries
        self.length = length
        self.folder = folder.absolute()
        self._map_files()

    def _map_files(self) -> None:
        # None for what is not stored, else (N, ...).
        self.columns = [
            _mapped(self.folder / f"{place}.bin", (self.length, *entry.example.shape[1:]), entry.example.dtype)
            if entry.stored
            else None
            for place, entry in enumerate(self.entries)
        ]
        self.labels = _mapped(self.folder / "labels.bin", (self.length,), torch.int64)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("columns", "labels")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._map_files()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        return index

    def collate(self, rows: list[int]) -> dict[str, Any]:
        """A batch for `AdvBNForImageClassification.forward`, without images that could not be decoded.

        Args:
            rows: numbers of images.

        Returns:
            "recording", a `Recording` on the CPU, and "labels", int64 (B,).

        Raises:
            InputError: if no image is left.
        """
        index = torch.tensor(rows)
        index = index[self.labels[index] != _UNREADABLE]
        if not len(index):
            raise InputError("none of the images of a batch can be decoded; fix or remove those that the log names")
        tensors = iter(
            [
                entry.batch(len(index), None if column is None else column[index])
                for entry, column in zip(self.entries, self.columns, strict=True)
            ]
        )
        return {"recording": self.recording.mapped(lambda _: next(tensors)), "labels": self.labels[index]}

    def fill(self, start: int, recording: Recording | None, labels: Tensor) -> None:
        """Stores consecutive images.

        Args:
            start: the number of the first.
            recording: of those that could be decoded; None where there is none.
            labels: (B,) int64, -1 for those that could not.

        Raises:
            InputError: if the recording does not match that of the first image.
        """
        stop = start + len(labels)
        self.labels[start:stop] = labels
        if recording is None:
            return
        readable = start + torch.nonzero(labels != _UNREADABLE).flatten()
        for entry, column, tensor in zip(self.entries, self.columns, tensors_of(recording), strict=True):
            if column is not None and tensor.shape[1:] == column.shape[1:]:
                column[readable] = tensor.cpu()
            elif entry.read and not (column is None and torch.equal(tensor.cpu(), entry.example)):
                raise InputError(
                    f"cache_stem_features: images {start} to {stop - 1} have features {tuple(tensor.shape[1:])}, "
                    f"the first image {tuple(entry.example.shape[1:])}; features that change cannot be stored"
                )


@contextmanager
def cached_stem_features(
    model: AdvBNForImageClassification,
    dataset: Dataset,
    folder: str | Path,
    *,
    batch_size: int,
    num_workers: int = 0,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
) -> Iterator[StemFeatures]:
    """Computes the stem's features of a dataset once, for training on them within the block.

    Training on them equals training on the images bit for bit, as long as an image's features are the same in batches
    of any size: some kernels are chosen by the size of the batch.
    Each process computes its share into the one folder, which several machines must share.

    Args:
        model: whose stem it is; on the device to compute on.
        dataset: rows `{"pixel_values": (C, H, W), "labels": int}`, the same at each reading, as `ImageDataset` without
            augmentation; `pixel_values` is None where the image cannot be decoded.
        folder: where to keep the files; rebuilt, and removed at the end of the block.
        batch_size: images at a time; use that of the training.
        num_workers: processes that read images.
        autocast: makes the context to compute in, the same as in training.

    Raises:
        InputError: if the stem is trained, the dataset streams, an image has another size than the first, or the
            disk has no room.
    """
    if not model.advbn_config.freeze_stem:
        raise InputError("cache_stem_features: the stem learns (freeze_stem is false), so its features change")
    if not hasattr(dataset, "__len__"):
        raise InputError("cache_stem_features: a stream has no length; load the dataset without streaming")
    folder, state = Path(folder), PartialState()
    with evaluating(model), torch.no_grad(), autocast():
        recording, entries = _examine(model.split, _first_image(dataset).to(model.device))
    if state.is_main_process:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    state.wait_for_everyone()
    try:
        _check_room(len(dataset) * sum(entry.bytes_per_sample for entry in entries), folder)
        features = StemFeatures(recording, entries, len(dataset), folder)
        start, end = (
            len(dataset) * rank // state.num_processes for rank in (state.process_index, state.process_index + 1)
        )
        loader = DataLoader(
            Subset(dataset, range(start, end)),
            batch_size=batch_size,
            num_workers=num_workers,
            collate_fn=_readable,
            generator=torch.Generator(),  # so that the global one stays as it is
        )
        for images, labels in tqdm(loader, desc="stem features", disable=not state.is_main_process):
            with evaluating(model), torch.no_grad(), autocast():
                seen = None if images is None else model.split.stem(pixel_values=images.to(model.device))
            features.fill(start, seen, labels)
            start += len(labels)
        state.wait_for_everyone()
        yield features
    finally:
        if state.is_main_process:
            shutil.rmtree(folder, ignore_errors=True)


def tensors_of(recording: Recording) -> list[Tensor]:
    """Its tensors, in the order of `Recording.mapped`."""
    tensors: list[Tensor] = []
    recording.mapped(lambda tensor: tensors.append(tensor) or tensor)
    return tensors


def _examine(split: Split, image: Tensor) -> tuple[Recording, list[_Entry]]:
    """Finds which tensors of a recording have an entry for each image, and which of them the tail reads.

    Args:
        split: the model, cut.
        image: (1, C, H, W).

    Returns:
        The recording of two copies of the image, and an entry for each of its tensors, all on the CPU.
    """
    recording, longer = (split.stem(pixel_values=image.repeat(copies, 1, 1, 1)) for copies in (2, 3))
    entries = []
    for place, (tensor, other) in enumerate(zip(tensors_of(recording), tensors_of(longer), strict=True)):
        per_sample = tensor.shape != other.shape
        read = not tensor.is_floating_point() or _reads(split, recording, place)
        if read and per_sample and (len(tensor), len(other), tensor.shape[1:]) != (2, 3, other.shape[1:]):
            raise InputError(
                f"cache_stem_features: the tail reads {tuple(tensor.shape)}, which has no entry for each image"
            )
        entries.append(_Entry(tensor.cpu(), per_sample, read))
    return recording.to("cpu"), entries


def _reads(split: Split, recording: Recording, place: int) -> bool:
    """Whether the logits depend on one tensor of a recording: they are NaN where it is."""
    places = iter(range(len(tensors_of(recording))))
    spoilt = recording.mapped(lambda tensor: torch.full_like(tensor, torch.nan) if next(places) == place else tensor)
    return bool(logits_of(split.tail(spoilt)).isnan().any())


def _first_image(dataset: Dataset) -> Tensor:
    """(1, C, H, W), of the first image that can be decoded."""
    for row in range(len(dataset)):
        image = dataset[row]["pixel_values"]
        if image is not None:
            return image[None]
    raise InputError("cache_stem_features: none of the images can be decoded")


def _readable(rows: list[dict[str, Any]]) -> tuple[Tensor | None, Tensor]:
    """The images of a batch that could be decoded, (K, C, H, W) or None, and the labels (B,), -1 for the others."""
    images = [row["pixel_values"] for row in rows if row["pixel_values"] is not None]
    labels = [_UNREADABLE if row["pixel_values"] is None else row["labels"] for row in rows]
    if len({image.shape for image in images}) > 1:
        raise InputError(
            "cache_stem_features: images have different sizes; set a fixed size in preprocessor_config.json"
        )
    return torch.stack(images) if images else None, torch.tensor(labels)


def _mapped(path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor in a file, created with zeros if missing."""
    if hasattr(os, "posix_fallocate"):  # allocates now: a write to a mapped file on a full disk is a crash
        with path.open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, math.prod(shape) * dtype.itemsize)
    return torch.from_file(str(path), shared=True, size=math.prod(shape), dtype=dtype).view(shape)


def _check_room(needed: int, folder: Path) -> None:
    """Reports how much disk will be used, and stops where there is less."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"cache_stem_features: needs {needed / 1e9:.1f} GB in {folder}, which has {free / 1e9:.1f} GB"
        )
    if PartialState().is_main_process:
        print(f"stem features take {needed / 1e9:.2f} GB in {folder} until training ends", flush=True)
