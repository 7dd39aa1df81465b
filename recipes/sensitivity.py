"""How the gain of a method moves with each of its settings and of its training's, one at a time.

accelerate launch recipes/sensitivity.py                                    all of recipes/configs/sensitivity.yaml
accelerate launch recipes/sensitivity.py recipes/configs/sensitivity.yaml --vary "epsilon=0.5 1.1"

Rows are stored in OUTPUT_DIR/rows as those of recipes/compare.py are: what is there is not made again.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from tqdm.auto import tqdm
from transformers.utils import logging

from advbn_hf import InputError
from advbn_hf.cli import parse, run, use_all_cores
from advbn_hf.comparison.datasets import DATASETS
from advbn_hf.comparison.fine_tuning import TuningSettings
from advbn_hf.comparison.grid import Grid, Settings
from advbn_hf.comparison.methods import METHODS
from advbn_hf.comparison.models import MODELS, BaseSettings
from advbn_hf.comparison.plots import plot_sensitivity
from advbn_hf.comparison.sensitivity import Variation, make_point, to_markdown, trials
from advbn_hf.files import write_whole

CONFIG = Path(__file__).parent / "configs" / "sensitivity.yaml"


@dataclass
class SensitivityArguments:
    """What to vary, and around what."""

    vary: list[str] = field(
        default_factory=lambda: ["epsilon=1.1 1.5 2.0"],
        metadata={"help": "Settings of the method, learning_rate, batch_size or steps: SETTING=VALUE VALUE ..."},
    )
    method: str = field(default="advbn", metadata={"help": f"Any of {', '.join(METHODS)}."})
    datasets: list[str] = field(
        default_factory=lambda: ["digits"], metadata={"help": f"Any of {', '.join(DATASETS)}."}
    )
    model: str = field(default="resnet", metadata={"help": f"Any of {', '.join(MODELS)}."})
    seeds: list[int] = field(default_factory=lambda: [0, 1], metadata={"help": "Seeds."})
    split: str = field(default="validation", metadata={"help": "validation or test."})
    steps: int = field(default=400, metadata={"help": "Steps of a fine-tuning, where they are not varied."})
    batch_size: int = field(default=64, metadata={"help": "Pictures of a step, where it is not varied."})
    learning_rate: float = field(default=0.03, metadata={"help": "Learning rate, where it is not varied."})
    base_epochs: float = field(default=8, metadata={"help": "Epochs of the first training on clean pictures."})
    train_images: int | None = field(default=None, metadata={"help": "Train on the first so many; all else."})
    eval_images: int | None = field(default=None, metadata={"help": "Measure on the first so many of each set."})
    timed_steps: int = field(default=20, metadata={"help": "Steps that the cost of a method is measured on."})
    output_dir: str = field(default="outputs/compare", metadata={"help": "Where rows and report are written."})

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"method: there is no {self.method!r}; choose from {', '.join(METHODS)}")
        for name, values, known in (("datasets", self.datasets, DATASETS), ("model", [self.model], MODELS)):
            for value in values:
                if value not in known:
                    raise InputError(f"{name}: there is no {value!r}; choose from {', '.join(known)}")
        for name in ("vary", "datasets", "seeds"):
            if not getattr(self, name):
                raise InputError(f"{name}: give at least one")
        if self.split not in ("validation", "test"):
            raise InputError(f"split must be validation or test, got {self.split}")
        for name in (
            "steps",
            "batch_size",
            "learning_rate",
            "base_epochs",
            "train_images",
            "eval_images",
            "timed_steps",
        ):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"{name} must be above 0, got {value}")


def main() -> None:
    """Makes the rows that are not there, and reports."""
    (args,) = parse((SensitivityArguments,), default_file=CONFIG)
    use_all_cores()
    logging.disable_progress_bar()  # of every model that is read and written
    settings = Settings(
        split=args.split,
        steps=args.steps,
        base=BaseSettings(epochs=args.base_epochs),
        tuning=TuningSettings(learning_rate=args.learning_rate, batch_size=args.batch_size),
        train_images=args.train_images,
        eval_images=args.eval_images,
        timed_steps=args.timed_steps,
    )
    folder = Path(args.output_dir)
    planned = list(trials([Variation.read(text) for text in args.vary], args.method, settings))
    points = []
    with tqdm([(trial, dataset) for trial in planned for dataset in args.datasets], unit="point") as bar:
        for trial, dataset in bar:
            bar.set_description(f"{dataset} {trial.setting}={trial.value}")
            points.append(make_point(trial, Grid(folder, trial.settings), dataset, args.model, args.seeds))
    table = to_markdown(points)
    content = {"settings": dataclasses.asdict(settings), "points": [dataclasses.asdict(point) for point in points]}
    write_whole(folder / "sensitivity.json", json.dumps(content, indent=1) + "\n")
    write_whole(folder / "sensitivity.md", table + "\n")
    plot_sensitivity(points, f"{args.method} over {settings.reference}, {args.model}", folder / "sensitivity.png")
    print(table)
    print(f"written: {folder}/sensitivity.json, sensitivity.md, sensitivity.png")


if __name__ == "__main__":
    run(main)
