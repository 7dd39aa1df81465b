"""Draws a model's features as images: as they are, in the style that hurts the model most, and in random styles.

accelerate launch recipes/visualize.py --model CHECKPOINT --dataset_name ID [--option value ...]
accelerate launch recipes/visualize.py recipes/configs/visualize.yaml       the quickstart's model

It trains a small decoder from the stem's features back to images, keeps it beside the checkpoint, and writes a
contact sheet. --export_dataset DIR writes a split in the worst style, for recipes/evaluate.py and for the Hub.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset

from advbn_hf import AdvBNForImageClassification, InputError
from advbn_hf.backbones.loading import class_names_of, load_processor
from advbn_hf.data.images import BadImages, ImageDataset, collate
from advbn_hf.data.loading import check_labels, class_names, load_images
from advbn_hf.data.transforms import EvaluationTransform
from advbn_hf.errors import check_at_least
from advbn_hf.evaluation.fit import check_fit
from advbn_hf.evaluation.labels import match_labels
from advbn_hf.evaluation.models import EvaluatedModel
from advbn_hf.utils.cli import run, use_all_cores
from advbn_hf.utils.files import check_empty, check_writable
from advbn_hf.utils.options import parse
from advbn_hf.visualization.decoder import Decoder, Quality, measure_quality, train_decoder
from advbn_hf.visualization.decoder_cache import decoder_file, kept_decoder
from advbn_hf.visualization.export import describe, export_restyled
from advbn_hf.visualization.layout import MapLayout
from advbn_hf.visualization.pixels import PixelRange
from advbn_hf.visualization.sheet import contact_sheet
from advbn_hf.visualization.sheet_plot import plot_sheet

MEASURED = 500  # held-out images that the decoder is measured on


@dataclass
class VisualizationArguments:
    """What to draw."""

    model: str | None = field(default=None, metadata={"help": "Hub id or folder of an AdvBN checkpoint."})
    model_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the model."})
    dataset_name: str | None = field(
        default=None, metadata={"help": 'Hub id or folder of the dataset, or "embedded" for the embedded benchmark.'}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of the dataset."})
    dataset_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the dataset."})
    train_split: str = field(default="train", metadata={"help": "Split to train the decoder on."})
    split: str = field(default="validation", metadata={"help": "Split to draw, which the decoder is measured on."})
    image_column: str | None = field(default=None, metadata={"help": "Column of the images; found by its type."})
    label_column: str | None = field(default=None, metadata={"help": "Column of the labels; found by its type."})
    output_dir: str = field(default="outputs/visualization", metadata={"help": "Folder of the contact sheet."})
    num_images: int = field(default=6, metadata={"help": "Rows of the contact sheet."})
    epsilons: list[float] = field(
        default_factory=lambda: [0.5, 1.0, 1.5, 2.0],
        metadata={"help": "Multipliers stay in [1 - epsilon, 1 + epsilon]."},
    )
    export_dataset: str | None = field(
        default=None, metadata={"help": "Empty or new folder for the split in the worst style, as a dataset."}
    )
    export_epsilon: float | None = field(
        default=None, metadata={"help": "Epsilon of that dataset; the model's own by default."}
    )
    max_samples: int | None = field(default=None, metadata={"help": "Take the first so many images of the split."})
    decoder_steps: int = field(default=600, metadata={"help": "Steps to train the decoder for."})
    batch_size: int = field(default=64, metadata={"help": "Images at a time."})
    num_workers: int = field(default=0, metadata={"help": "Processes that read images."})
    seed: int = field(default=0, metadata={"help": "Seed of the decoder, the choice of images and random styles."})
    skip_bad_images: bool = field(default=False, metadata={"help": "Leave out images that cannot be decoded."})


ARGUMENTS = (VisualizationArguments,)


def main() -> None:
    """Checks everything that can be checked, then gets a decoder, measures it, and draws."""
    (args,) = parse(ARGUMENTS)
    use_all_cores()
    check_arguments(args)
    hub = {} if args.model_revision is None else {"revision": args.model_revision}
    model = AdvBNForImageClassification.from_pretrained(args.model, **hub).to(PartialState().device).eval()
    processor = load_processor(args.model, **hub)
    MapLayout(model)  # checks that the features lie on a grid
    train_set, rows = load_split(args, args.train_split), load_split(args, args.split)
    check_fit(EvaluatedModel("advbn", model, processor), [train_set, rows], args.batch_size)
    pixels = PixelRange(processor)
    names = class_names_of(model)
    class_of = model_classes(rows, names)
    if args.max_samples is not None:
        rows = rows.select(range(min(args.max_samples, len(rows))))

    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    bad_images = BadImages(folder / "bad_images.jsonl") if args.skip_bad_images else None
    as_inputs = partial(ImageDataset, transform=EvaluationTransform(processor), bad_images=bad_images)
    steps = {"steps": args.decoder_steps, "batch_size": args.batch_size, "seed": args.seed}
    train = partial(train_decoder, model, pixels, as_inputs(train_set), num_workers=args.num_workers, **steps)
    source = [args.dataset_name, args.dataset_config_name, args.dataset_revision, args.train_split, len(train_set)]
    beside = Path(args.model) if Path(args.model).is_dir() else folder
    path = decoder_file(beside / "visualization", model, processor, [*source, *steps.values()])
    print(f"decoder: {path}{'' if path.exists() else ', to be trained'}", flush=True)
    decoder = kept_decoder(path, model, pixels, train)
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(args.seed)).tolist()
    quality = measure_quality(model, decoder, pixels, as_inputs(rows.select(chosen[:MEASURED])), args.batch_size)
    print(quality, flush=True)
    quality.check()

    draw_sheet(args, model, decoder, pixels, as_inputs(rows.select(chosen[: args.num_images])), class_of, quality)
    if args.export_dataset is not None:
        export(args, model, decoder, as_inputs(rows), class_of, quality)
    for place in bad_images.summary() if bad_images else []:
        print(f"left out, since it cannot be decoded: {place}")


def check_arguments(args: VisualizationArguments) -> None:
    """Stops on options that are missing or out of range."""
    if PartialState().num_processes > 1:
        raise InputError("num_processes: this recipe runs in one process; start it with --num_processes 1")
    if args.model is None:
        raise InputError("model: give the Hub id or folder of an AdvBN checkpoint")
    if args.dataset_name is None:
        raise InputError('dataset_name: give a Hub id or folder, or "embedded"')
    at_least = {"num_images": 1, "max_samples": 1, "decoder_steps": 1, "batch_size": 1, "num_workers": 0, "seed": 0}
    for name, least in at_least.items():
        check_at_least(name, getattr(args, name), least)
    for name, values in (("epsilons", args.epsilons), ("export_epsilon", [args.export_epsilon])):
        for value in values:
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{name} must be above 0, got {value:g}")
    check_writable(args.output_dir, "output_dir")
    if args.export_dataset is not None:
        check_empty(args.export_dataset, "export_dataset")


def load_split(args: VisualizationArguments, split: str) -> Dataset:
    """One split of the dataset, with the columns "image" and "label"."""
    return load_images(
        args.dataset_name,
        split,
        config=args.dataset_config_name,
        revision=args.dataset_revision,
        image_column=args.image_column,
        label_column=args.label_column,
    )


def model_classes(rows: Dataset, names: list[str]) -> torch.Tensor:
    """(K,) int64, the model's class for each of the dataset's K classes."""
    own = class_names(rows)
    check_labels(rows, len(names if own is None else own))
    return torch.arange(len(names)) if own is None else torch.tensor(match_labels(names, own).indices)


def draw_sheet(
    args: VisualizationArguments,
    model: AdvBNForImageClassification,
    decoder: Decoder,
    pixels: PixelRange,
    images: ImageDataset,
    class_of: torch.Tensor,
    quality: Quality,
) -> None:
    """Writes the contact sheet."""
    batch = collate([images[index] for index in range(len(images))])
    labels = class_of[batch["labels"]]
    columns = contact_sheet(
        model,
        decoder,
        pixels,
        batch["pixel_values"].to(model.device),
        labels.to(model.device),
        args.epsilons,
        args.seed,
    )
    names = class_names_of(model)
    note = (
        f"{quality}.\nBelow each image: class and confidence; for the reconstruction as an input, "
        "else for the features that the image shows. ✗: not the class of the row."
    )
    path = Path(args.output_dir) / "contact_sheet.png"
    plot_sheet(columns, labels.tolist(), names, path, note)
    print(f"written to {path}")


def export(
    args: VisualizationArguments,
    model: AdvBNForImageClassification,
    decoder: Decoder,
    images: ImageDataset,
    class_of: torch.Tensor,
    quality: Quality,
) -> None:
    """Writes the split in the worst style as a dataset."""
    epsilon, split = args.export_epsilon or model.advbn_config.epsilon, args.split.partition("[")[0]
    count = export_restyled(
        model,
        decoder,
        images,
        args.export_dataset,
        split=split,
        class_of=class_of,
        epsilon=epsilon,
        batch_size=args.batch_size,
        seed=args.seed,
        about=describe(args.model, args.dataset_name, args.split, epsilon, quality),
    )
    print(
        f"{count:,} restyled images written to {args.export_dataset}; to measure on them: accelerate launch "
        f"recipes/evaluate.py --model {args.model} --dataset_name {args.export_dataset} --split {split} "
        "--sets clean"
    )


if __name__ == "__main__":
    run(main)
