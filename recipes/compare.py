"""Compares AdvBN with its peers: methods x data sets x models x seeds, at equal steps and at equal time.

accelerate launch recipes/compare.py                                    all of recipes/configs/compare.yaml
accelerate launch recipes/compare.py recipes/configs/compare.yaml --methods advbn:epsilon=0.5 --seeds 0

Each combination is a row, stored in a file of its own in OUTPUT_DIR/rows: a run that is started again makes only those
that are missing (`--anew true` makes those that are asked for again), and several runs with other `--seeds` may share
the folder. The report is about all rows there that were made with the same settings.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from tqdm.auto import tqdm
from transformers.utils import logging

from advbn_hf import InputError
from advbn_hf.cli import parse, run, use_all_cores
from advbn_hf.comparison.datasets import DATASETS
from advbn_hf.comparison.fine_tuning import TuningSettings
from advbn_hf.comparison.grid import Grid, Settings, rows_of
from advbn_hf.comparison.methods import METHODS, method_called
from advbn_hf.comparison.models import MODELS, BaseSettings
from advbn_hf.comparison.report import BUDGETS, write_report

CONFIG = Path(__file__).parent / "configs" / "compare.yaml"


@dataclass
class CompareArguments:
    """What to compare."""

    methods: list[str] = field(
        default_factory=lambda: list(METHODS),
        metadata={"help": f'Any of {", ".join(METHODS)}; "NAME:setting=value,..." changes settings of its config.'},
    )
    datasets: list[str] = field(
        default_factory=lambda: list(DATASETS), metadata={"help": f"Any of {', '.join(DATASETS)}."}
    )
    models: list[str] = field(default_factory=lambda: list(MODELS), metadata={"help": f"Any of {', '.join(MODELS)}."})
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4], metadata={"help": "Seeds."})
    budgets: list[str] = field(
        default_factory=lambda: ["steps"],
        metadata={"help": "steps: the same number for all; time: what time_reference takes for these; or both."},
    )
    reference: str = field(default="plain", metadata={"help": "Method that gains and costs are measured against."})
    time_reference: str = field(default="advbn", metadata={"help": "Method whose time others have (budget time)."})
    split: str = field(default="validation", metadata={"help": "validation to choose settings, test to report."})
    steps: int = field(default=400, metadata={"help": "Steps of a fine-tuning."})
    batch_size: int = field(default=64, metadata={"help": "Pictures of a step."})
    learning_rate: float = field(default=0.03, metadata={"help": "Learning rate of all methods."})
    base_epochs: float = field(default=8, metadata={"help": "Epochs of the first training on clean pictures."})
    train_images: int | None = field(default=None, metadata={"help": "Train on the first so many; all else."})
    eval_images: int | None = field(default=None, metadata={"help": "Measure on the first so many of each set."})
    timed_steps: int = field(default=20, metadata={"help": "Steps that the cost of a method is measured on."})
    anew: bool = field(default=False, metadata={"help": "Make rows again that are stored."})
    output_dir: str = field(default="outputs/compare", metadata={"help": "Where rows and report are written."})

    def __post_init__(self) -> None:
        known = {"datasets": DATASETS, "models": MODELS, "budgets": BUDGETS}
        for name, values in known.items():
            for value in getattr(self, name):
                if value not in values:
                    raise InputError(f"{name}: there is no {value!r}; choose from {', '.join(values)}")
        for name in ("methods", "seeds", *known):
            if not getattr(self, name):
                raise InputError(f"{name}: give at least one")
        for method in (*self.methods, self.reference, self.time_reference):
            method_called(method)
        if self.split not in ("validation", "test"):
            raise InputError(f"split must be validation or test, got {self.split}")
        for name in ("steps", "batch_size", "learning_rate", "base_epochs", "train_images", "eval_images"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"{name} must be above 0, got {value}")
        if self.timed_steps < 1:
            raise InputError(f"timed_steps must be 1 or more, got {self.timed_steps}")
        if min(self.seeds) < 0:
            raise InputError(f"seeds must be 0 or more, got {min(self.seeds)}")


def main() -> None:
    """Measures costs, makes the rows that are not there, and reports."""
    (args,) = parse((CompareArguments,), default_file=CONFIG)
    use_all_cores()
    logging.disable_progress_bar()  # of every model that is read and written
    settings = Settings(
        split=args.split,
        steps=args.steps,
        reference=args.reference,
        time_reference=args.time_reference,
        base=BaseSettings(epochs=args.base_epochs),
        tuning=TuningSettings(learning_rate=args.learning_rate, batch_size=args.batch_size),
        train_images=args.train_images,
        eval_images=args.eval_images,
        timed_steps=args.timed_steps,
    )
    folder = Path(args.output_dir)
    grid = Grid(folder, settings)
    rows = rows_of(args.methods, args.datasets, args.models, args.seeds, args.budgets)
    for model in args.models:
        first = next(row for row in rows if row.model == model)
        grid.measure_costs([*args.methods, args.time_reference], first)
    with tqdm(rows, unit="row") as bar:
        for row in bar:
            bar.set_description(f"{row.dataset} {row.model} {row.method} {row.budget} seed {row.seed}")
            grid.make(row, anew=args.anew)
    files = write_report(grid.stored(args.budgets), dataclasses.asdict(settings), args.reference, folder)
    print(files[1].read_text(encoding="utf-8"))
    print("written: " + ", ".join(str(file) for file in files))


if __name__ == "__main__":
    run(main)
