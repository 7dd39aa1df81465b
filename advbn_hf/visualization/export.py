"""Adversarially restyled images as a dataset: parquet files and a card, for any loader and for the Hub."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import torch
import yaml
from datasets import Dataset, Features
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm

from ..data.images import ImageDataset, collate
from ..modeling import AdvBNForImageClassification
from ..utils.files import check_empty, filling
from ..utils.tables import escape_markdown
from .decoder import Decoder, Quality
from .pixels import to_images
from .restyle import restyle

ROWS_PER_FILE = 5000  # 224 x 224 pixels each, they take half a gigabyte


def export_restyled(
    model: AdvBNForImageClassification,
    decoder: Decoder,
    images: ImageDataset,
    folder: str | Path,
    *,
    split: str,
    class_of: Tensor,
    epsilon: float,
    batch_size: int,
    seed: int = 0,
    about: str = "",
) -> int:
    """Writes a split in the worst style that the ascent finds, with labels.

    Args:
        model: the one that is attacked.
        decoder: for its stem.
        images: the split; its labels are kept.
        folder: an empty folder, created if missing.
        split: name of the split, letters and underscores.
        class_of: (K,) int64, the model's class for each of the split's K classes.
        epsilon: the multipliers stay in [1 - epsilon, 1 + epsilon].
        batch_size: images at a time.
        seed: of random starts.
        about: Markdown for the dataset's card.

    Returns:
        How many images were written; `images` decides whether those that cannot be decoded are left out.

    Raises:
        InputError: the folder is not empty, or an image cannot be decoded.
    """
    check_empty(folder, "export_dataset")
    features = Features({"image": datasets.Image(), "label": images.dataset.features["label"]})
    starts, written = range(0, len(images), ROWS_PER_FILE), 0
    with filling(folder) as temporary, tqdm(total=len(images), desc="restyling", unit="image") as bar:
        (temporary / "data").mkdir()
        for number, start in enumerate(starts):
            part = Subset(images, range(start, min(start + ROWS_PER_FILE, len(images))))
            rows: dict[str, list[Any]] = {"image": [], "label": []}
            for drawn, labels in _restyled(model, decoder, part, class_of, epsilon, batch_size, seed + start):
                rows["image"] += [{"bytes": _png(image), "path": None} for image in to_images(drawn)]
                rows["label"] += labels.tolist()
                bar.update(len(labels))
            written += len(rows["label"])
            name = f"{split}-{number:05d}-of-{len(starts):05d}.parquet"
            Dataset.from_dict(rows, features=features).to_parquet(temporary / "data" / name)
        (temporary / "README.md").write_text(_card(split, about), encoding="utf-8")
    return written


def describe(model: str, dataset: str, split: str, epsilon: float, quality: Quality) -> str:
    """The text of an exported dataset's card, in Markdown.

    Args:
        model: id or folder of the model.
        dataset: id or folder of the images' dataset.
        split: which of its splits.
        epsilon: the multipliers stayed in [1 - epsilon, 1 + epsilon].
        quality: of the decoder.
    """
    names = (Path(name).resolve().name if Path(name).exists() else name for name in (model, dataset))
    model, dataset, split = map(escape_markdown, (*names, split))
    return (
        f"Images of {dataset} ({split}) in the style that hurts {model} most: mean and standard deviation of each "
        "channel of its early features are multiplied by the numbers that raise its loss most "
        "([Adversarial Batch Normalization](https://arxiv.org/abs/2009.08965)), and a small decoder turns the "
        f"features back into images. The multipliers stay within {epsilon:g} of 1.\n\n"
        f"The decoder loses detail too: {quality}. Labels are those of the original images."
    )


@torch.no_grad()
def _restyled(
    model: AdvBNForImageClassification,
    decoder: Decoder,
    images: Subset,
    class_of: Tensor,
    epsilon: float,
    batch_size: int,
    seed: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Colours (B, 3, H, W) and the split's labels (B,), batch by batch."""
    model.eval()
    for index, batch in enumerate(DataLoader(images, batch_size=batch_size, collate_fn=collate)):
        recording = model.split.stem(pixel_values=batch["pixel_values"].to(model.device))
        labels = class_of[batch["labels"]].to(model.device)
        features = restyle(model, recording, labels, epsilon, ascend=True, seed=seed + index * batch_size)
        yield decoder(features), batch["labels"]


def _png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _card(split: str, about: str) -> str:
    metadata = {
        "task_categories": ["image-classification"],
        "tags": ["advbn", "robustness"],
        "configs": [{"config_name": "default", "data_files": [{"split": split, "path": f"data/{split}-*.parquet"}]}],
    }
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---\n\n# Adversarially restyled images\n\n{about}\n"
