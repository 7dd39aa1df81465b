"""Draws the same things in several sets, with what a model and its baseline say of each image.

python recipes/predictions.py --model DIR --baseline DIR/baseline --suite FILE.yaml --dataset_name ID --output_file PNG

The images are drawn at random, and the classes so that those shown are right as often as all images of these sets are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from datasets import Image as ImageFeature
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from advbn_hf import InputError
from advbn_hf.data.transforms import to_rgb
from advbn_hf.errors import check_at_least
from advbn_hf.evaluation.fit import check_fit
from advbn_hf.evaluation.models import evaluated_models
from advbn_hf.evaluation.runner import RunSettings, run_suite
from advbn_hf.evaluation.sets import LoadedSet, load_sets, match_classes
from advbn_hf.evaluation.suites import load_suite
from advbn_hf.reporting.plot_style import GREY, INK, SMALL_LETTERS, VERMILLION, write_figure, write_within
from advbn_hf.utils.cli import run, use_all_cores
from advbn_hf.utils.files import check_file
from advbn_hf.utils.options import parse

TITLES = {"advbn": "AdvBN", "baseline": "plain"}
DRAWS = 2000  # choices of classes, of which the one that represents all images best is taken
SIDE, LINE, LEFT = 1.1, 0.16, 1.1  # inches of an image; height of a line and width beside the images, in sides
DPI = 144  # texts are measured as they are drawn


@dataclass
class PredictionsArguments:
    """What to draw."""

    model: str | None = field(default=None, metadata={"help": "Hub id or folder of the model."})
    baseline: str | None = field(default=None, metadata={"help": "Hub id or folder of the model to compare with."})
    suite: str | None = field(default=None, metadata={"help": "Name of a suite, or a YAML file."})
    dataset_name: str | None = field(default=None, metadata={"help": "Dataset of the sets that name none."})
    sets: list[str] | None = field(default=None, metadata={"help": "Names of the suite's sets to draw; all else."})
    num_classes: int = field(default=3, metadata={"help": "How many things to draw."})
    output_file: str | None = field(default=None, metadata={"help": "PNG file to write."})
    batch_size: int = field(default=25, metadata={"help": "Images at a time."})
    seed: int = field(default=0, metadata={"help": "Seed of the choice of images and classes."})


@dataclass(frozen=True)
class Shown:
    """A set as it is drawn: an image of each class, with the predictions of each model.

    Args:
        name: of the set.
        images: one of each class.
        says: model -> the class that it predicts for each of `images`, (K,).
        accuracy: model -> accuracy on the complete set, in 0..1.
    """

    name: str
    images: list[Image.Image]
    says: dict[str, np.ndarray]
    accuracy: dict[str, float]


def main() -> None:
    """Predicts the sets, chooses what to show, and draws it."""
    (args,) = parse((PredictionsArguments,))
    use_all_cores()
    check_arguments(args)
    suite = load_suite(args.suite, {"dataset": args.dataset_name} if args.dataset_name else None)
    loaded = load_sets(suite.only(args.sets) if args.sets else suite)
    names = shared_classes(loaded)
    models = evaluated_models(args.model, args.baseline)
    matches = match_classes(loaded, models)
    for evaluated in models:
        check_fit(evaluated, [part.source(part.shifts[0]) for part in loaded], args.batch_size)
    measured = run_suite(loaded, matches, models, Accelerator(), RunSettings(None, args.batch_size))
    rng = np.random.default_rng(args.seed)
    shown = []
    for part, result in zip(loaded, measured, strict=True):
        shift = part.shifts[0]
        predictions = {name: result.predictions[shift][name] for name in (models[-1].name, models[0].name)}
        labels = next(iter(predictions.values())).labels.numpy()
        places = [rng.choice(np.flatnonzero(labels == label)) for label in range(len(names))]
        columns = {name: next(iter(found.by_column)) for name, found in predictions.items()}
        images = part.rows(shift).cast_column("image", ImageFeature()).select(places)["image"]
        shown.append(
            Shown(
                part.entry.name,
                list(images),
                {n: found.by_column[columns[n]].classes[places, 0].numpy() for n, found in predictions.items()},
                {n: found.correct(columns[n]).double().mean().item() for n, found in predictions.items()},
            )
        )
    classes = representative(shown, min(args.num_classes, len(names)), rng)
    draw(shown, classes, names, Path(args.output_file))
    print(f"written to {args.output_file}: {', '.join(names[label] for label in classes)}")


def check_arguments(args: PredictionsArguments) -> None:
    """Stops where something is missing or out of range."""
    for name, what in (("model", "the model"), ("suite", "the suite"), ("output_file", "the PNG file to write")):
        if getattr(args, name) is None:
            raise InputError(f"{name}: name {what}")
    check_file(args.output_file, "output_file", ".png")
    check_at_least("num_classes", args.num_classes, 1)
    check_at_least("seed", args.seed, 0)


def shared_classes(loaded: Sequence[LoadedSet]) -> list[str]:
    """The classes of all sets.

    Raises:
        InputError: a set has others, no names, or no image of one of them.
    """
    names = loaded[0].names
    for part in loaded:
        if names is None or part.names != names:
            raise InputError(f"sets: {part.entry.name} and {loaded[0].entry.name} have other classes; leave one out")
        missing = set(range(len(names))) - set(part.source(part.shifts[0])["label"])
        if missing:
            raise InputError(f"sets: {part.entry.name} has no image of {names[min(missing)]!r}; leave it out")
    return names


def representative(shown: Sequence[Shown], count: int, rng: np.random.Generator) -> list[int]:
    """Classes whose images are right as often, for each model, as all images are.

    Args:
        shown: the sets.
        count: number of classes.
        rng: draws the choices to compare.
    """
    models = list(shown[0].says)
    right = np.array([[part.says[name] == np.arange(len(part.images)) for name in models] for part in shown])
    overall = np.array([np.mean([part.accuracy[name] for part in shown]) for name in models])
    draws = [rng.choice(right.shape[-1], count, replace=False) for _ in range(DRAWS)]
    missed = [np.abs(right[:, :, drawn].mean(axis=(0, 2)) - overall).sum() for drawn in draws]
    return sorted(draws[int(np.argmin(missed))].tolist())


@rc_context(SMALL_LETTERS)
def draw(shown: Sequence[Shown], classes: Sequence[int], names: Sequence[str], path: Path) -> None:
    """Draws a row for each class and a column for each set.

    Args:
        shown: the sets.
        classes: which to draw.
        names: of all classes.
        path: the PNG file.
    """
    models = list(shown[0].says)
    row, head = 1.06 + LINE * len(models), 0.28 + LINE * len(models)
    width, height = LEFT + len(shown), head + row * len(classes)
    figure = Figure(figsize=(SIDE * width, SIDE * height), dpi=DPI, facecolor="white")
    axes = figure.add_axes(
        (0, 0, 1, 1), xlim=(-LEFT, len(shown)), ylim=(row * len(classes), -head), autoscale_on=False
    )
    axes.axis("off")
    for place, part in enumerate(shown):
        _write(axes, place + 0.48, 0.14 - head, part.name, weight="bold", fontsize=8)
        for line, name in enumerate(models):
            _write(axes, place + 0.48, 0.32 - head + LINE * line, f"{part.accuracy[name]:.1%}", fontsize=8)
    for line, name in enumerate(models):
        label = f"{TITLES.get(name, name)}, all images"
        _write(axes, -0.06, 0.32 - head + LINE * line, label, ha="right", color=GREY, fontsize=7)
    for index, label in enumerate(classes):
        top = row * index
        _write(axes, -0.06, top + 0.48, names[label], ha="right", weight="bold", fontsize=8)
        for line, name in enumerate(models):
            y = top + 1.0 + LINE * (line + 0.5)
            _write(axes, -0.06, y, TITLES.get(name, name), ha="right", color=GREY, fontsize=7.5)
            for place, part in enumerate(shown):
                says = int(part.says[name][label])
                style = {"color": INK} if says == label else {"color": VERMILLION, "weight": "bold"}
                _write(axes, place + 0.48, y, f"{'' if says == label else '✗ '}{names[says]}", fontsize=7, **style)
        for place, part in enumerate(shown):
            image = ImageOps.pad(to_rgb(part.images[label]), (144, 144), Image.Resampling.BICUBIC, color="white")
            extent = (place + 0.02, place + 0.94, top + 0.96, top + 0.04)
            axes.imshow(np.asarray(image), extent=extent, aspect="auto")
    write_figure(figure, path, dpi=DPI, colours=None)


def _write(axes: Axes, x: float, y: float, text: str, ha: str = "center", color: str = INK, **style: object) -> None:
    """Text at a place, shortened and in letters that fit below an image, or beside all of them."""
    short = text if len(text) <= 24 else f"{text[:23]}…"
    width = 0.94 if ha == "center" else LEFT - 0.1
    write_within(axes, x, y, short, width, ha=ha, va="center", color=color, **style)


if __name__ == "__main__":
    run(main)
