"""The rows of a fine-tuning: images, or stored features of a frozen stem."""

import copy
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import torch
from datasets import Dataset, IterableDataset
from transformers import BaseImageProcessor, PreTrainedModel

from ..config import AdvBNConfig
from ..data.images import BadImages, ImageDataset
from ..data.streaming import StreamedImageDataset
from ..modeling import AdvBNForImageClassification
from ..training_args import AdvBNTrainingArguments
from .arguments import DataArguments
from .augmentation import AugmentationArguments
from .stem_cache import StemFeatures, cached_stem_features


def training_images(
    rows: Dataset | IterableDataset,
    processor: BaseImageProcessor,
    bad_images: BadImages | None,
    num_labels: int,
    streaming: bool,
    args: AdvBNTrainingArguments,
    augmentation_args: AugmentationArguments,
) -> ImageDataset | StreamedImageDataset:
    """The training split as a model's inputs.

    Args:
        rows: from `load_images`.
        processor: the model's image processor.
        bad_images: where to log images that cannot be decoded and leave them out; None: they raise.
        num_labels: number of the model's classes.
        streaming: whether the rows are a stream.
        args: seed and processes.
        augmentation_args: how images are augmented, and for which branch.
    """
    transform = augmentation_args.transform(processor)
    if not streaming:
        return ImageDataset(rows, transform, bad_images, args.seed)
    shares = {"rank": args.process_index, "world_size": args.world_size, "num_labels": num_labels}
    return StreamedImageDataset(rows.shuffle(seed=args.seed), transform, bad_images, args.seed, **shares)


def training_rows(
    images: ImageDataset | StreamedImageDataset,
    base: PreTrainedModel,
    data_args: DataArguments,
    config: AdvBNConfig,
    args: AdvBNTrainingArguments,
) -> AbstractContextManager[ImageDataset | StreamedImageDataset | StemFeatures]:
    """The rows to train on: images, or the stem's features of them, computed once and removed after the block.

    Args:
        images: from `training_images`.
        base: the model to fine-tune.
        data_args: whether features are cached.
        config: where the model is cut.
        args: output folder, batch size, precision and device.
    """
    if not data_args.cache_stem_features:
        return nullcontext(images)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}
    dtype = next((dtype for name, dtype in half.items() if getattr(args, name)), None)
    return cached_stem_features(
        AdvBNForImageClassification.from_backbone(copy.deepcopy(base), config).to(args.device),
        images,
        Path(args.output_dir) / "stem_features",
        batch_size=args.train_batch_size,
        num_workers=args.dataloader_num_workers,
        autocast=partial(torch.autocast, args.device.type, dtype) if dtype else nullcontext,
    )
