"""A streaming split as the model's inputs, shared among processes and data workers, from any batch on."""

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader, get_worker_info
from transformers import TrainingArguments

from ..errors import InputError
from .images import BadImages, Transform, random_numbers_of, reader


class StreamedImageDataset(torch.utils.data.IterableDataset):
    """A streaming split as the model's inputs, pass after pass without end, in rows as `ImageDataset` gives them.

    Processes and data workers share the rows among them. Neither a batch nor a process runs short at the end of a
    pass.

    Args:
        dataset: a streaming split from `load_images`, shuffled or not; each pass is shuffled differently.
        transform: as in `ImageDataset`.
        bad_images: as in `ImageDataset`; rows are numbered as each data worker reads them.
        seed: of what is random in the transform.
        rank: which process this is.
        world_size: number of processes.
        num_labels: of the model; a label beyond raises `InputError`, since a stream cannot be checked beforehand.
    """

    def __init__(
        self,
        dataset: IterableDataset,
        transform: Transform,
        bad_images: BadImages | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_labels: int | None = None,
    ):
        self.dataset = split_dataset_by_node(dataset, rank=rank, world_size=world_size)
        self.read = reader(dataset, transform, bad_images, num_labels)
        self.seed = (seed, rank)
        self.passed_batches, self.batch_size = 0, 1

    def pass_over(self, batches: int, batch_size: int) -> None:
        """Starts after some batches, whose images are neither decoded nor transformed.

        Data workers take turns: this skips complete rounds of theirs, and `load_stream` the rest of the batches.
        """
        self.passed_batches, self.batch_size = batches, batch_size

    def takers(self, num_workers: int) -> int:
        """The number of data workers that take turns: those that have rows."""
        return max(min(num_workers, self.dataset.num_shards), 1)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 0)
        to_pass = self.passed_batches // self.takers(workers) * self.batch_size
        # A copy, since data workers share the epoch of the original, and none may change another's.
        dataset = copy.deepcopy(self.dataset)
        for epoch in itertools.count():
            dataset.set_epoch(epoch)
            row = None
            for row, value in _numbered(dataset):
                if to_pass > 0:
                    to_pass -= 1
                    continue
                with random_numbers_of(*self.seed, epoch, number, row):
                    image = self.read(value, row)
                yield image
            if row is None:
                return


def _numbered(dataset: IterableDataset) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows with their numbers; a row that does not fit the dataset's features is named."""
    row = -1
    try:
        for row, value in enumerate(dataset):
            yield row, value
    except ValueError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InputError(f"row {row + 1}: {reason}; fix it, or the features that the dataset declares") from error


def load_stream(
    stream: StreamedImageDataset,
    args: TrainingArguments,
    collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]],
) -> DataLoader:
    """Makes batches of a stream that is shared among processes already: Accelerate would share it once more.

    Args:
        stream: the images.
        args: the size of batches and the number of data workers.
        collate: makes a batch of rows.

    Returns:
        A loader as `Trainer` takes it, that puts batches on the device.
    """
    loader = DataLoader(
        stream,
        args.train_batch_size,
        collate_fn=collate,
        num_workers=args.dataloader_num_workers,
        pin_memory=args.dataloader_pin_memory,
        prefetch_factor=args.dataloader_prefetch_factor,
        generator=torch.Generator(),  # the global one would draw once more in a resumed run
    )
    alone = {"num_processes": 1, "process_index": 0, "dispatch_batches": False}
    loader = prepare_data_loader(loader, args.device, put_on_device=True, **alone)
    return skip_first_batches(loader, stream.passed_batches % stream.takers(args.dataloader_num_workers))
