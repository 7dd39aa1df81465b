"""The loading part of `benchmark.py`: how long a training step waits for its images."""

import itertools
import statistics
import time
from collections.abc import Iterator
from io import BytesIO
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Features, Image, Value
from PIL import Image as PILImage
from scipy import ndimage
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import ConvNextImageProcessorPil

from advbn_hf import AdvBNTrainer, AdvBNTrainingArguments
from advbn_hf.data.imagenet import side_before_crop
from advbn_hf.data.images import ImageDataset, collate
from advbn_hf.data.streaming import StreamedImageDataset
from advbn_hf.data.transforms import TrainingTransform

from .timing import median_and_range
from .training import Step

SIZE = 224
PHOTOGRAPH = (500, 375)  # about what an image of ImageNet has
WORKERS = (0, 2)


def measure_loading(batch_size: int, repeats: int, device: torch.device) -> tuple[str, dict[str, Any]]:
    """Times the Trainer's own loaders beside steps of a ResNet-50 at 224 with all images in both branches.

    Args:
        batch_size: images of a step.
        repeats: steps that count, for each loader; one more comes first.
        device: where to train.

    Returns:
        A line for each loader, and the seconds of waiting and of the step, by loader.
    """
    step = Step("resnet50", "all_images", "none", batch_size, device)
    lines, numbers = [], {}
    for kind, workers in itertools.product(("map-style", "streaming"), WORKERS):
        waiting, working = [], []
        # Two batches more than are used, since loaders are ahead of what they are asked for.
        with TemporaryDirectory() as folder:
            batches = load(step, kind, workers, (repeats + 3) * batch_size, folder)
            for _ in tqdm(range(repeats + 1), desc=f"{kind}, {workers} workers", leave=False):
                start = time.perf_counter()
                step.images = next(batches)["pixel_values"]
                waiting.append(time.perf_counter() - start)
                start = time.perf_counter()
                step("fp32")
                working.append(time.perf_counter() - start)
        numbers[f"{kind}, {workers} workers"] = {"waiting": waiting[1:], "step": working[1:]}
        shares = [100 * wait / (wait + work) for wait, work in zip(waiting[1:], working[1:], strict=True)]
        middle, low, high = median_and_range(shares)
        milliseconds = 1000 * statistics.median(waiting[1:])
        lines.append(
            f"{kind}, {workers} workers: {middle:.1f} % of a step waits for its images "
            f"(median of {repeats}, {low:.1f} to {high:.1f}), {milliseconds:.0f} ms"
        )
    return "\n".join(lines), numbers


def load(step: Step, kind: str, workers: int, count: int, folder: str) -> Iterator[dict[str, torch.Tensor]]:
    """Batches as `AdvBNTrainer` loads them, of crops of photographs.

    Args:
        step: what is trained.
        kind: "map-style" or "streaming".
        workers: number of data workers.
        count: how many photographs there are.
        folder: the trainer's, which writes nothing there.
    """
    rows = photographs(count, PHOTOGRAPH)
    transform = TrainingTransform(central_crop())
    images = ImageDataset(rows, transform)
    if kind == "streaming":
        images = StreamedImageDataset(rows.to_iterable_dataset(num_shards=4).shuffle(seed=0), transform)
    args = AdvBNTrainingArguments(
        folder,
        max_steps=count,
        per_device_train_batch_size=len(step.images),
        dataloader_num_workers=workers,
        dataloader_pin_memory=step.images.device.type == "cuda",
        report_to="none",
    )
    loader: DataLoader = AdvBNTrainer(
        step.model, args, train_dataset=images, data_collator=collate
    ).get_train_dataloader()
    return iter(loader)


def central_crop() -> ConvNextImageProcessorPil:
    """The usual preprocessing on ImageNet: the central square of a somewhat larger image."""
    return ConvNextImageProcessorPil(size={"shortest_edge": SIZE}, crop_pct=SIZE / side_before_crop(SIZE))


def photographs(count: int, size: tuple[int, int] = (320, 256)) -> Dataset:
    """Smooth noise as JPEG files, whose decoding costs about what a photograph's does.

    Args:
        count: how many rows.
        size: width and height in pixels.
    """
    random = np.random.default_rng(0)
    images = []
    for _ in range(count):
        noise = ndimage.gaussian_filter(random.normal(size=(*size[::-1], 3)), (3, 3, 0))
        pixels = np.clip(128 + 60 * noise / noise.std(), 0, 255).astype(np.uint8)
        buffer = BytesIO()
        PILImage.fromarray(pixels).save(buffer, "JPEG", quality=90)
        images.append({"bytes": buffer.getvalue(), "path": None})
    features = Features({"image": Image(decode=False), "label": Value("int64")})
    return Dataset.from_dict({"image": images, "label": [0] * count}, features=features)
