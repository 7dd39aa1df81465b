"""Compares AdvBN with its peers: methods x datasets x models x seeds, at equal steps and at equal time.

accelerate launch recipes/compare.py                                    all of recipes/configs/compare.yaml
accelerate launch recipes/compare.py recipes/configs/compare.yaml --methods advbn:epsilon=0.5 --seeds 0

Each combination is a trial, stored in a file of its own in OUTPUT_DIR/trials: a run that is started again makes only
those that are missing (`--again true` makes all of them once more), and several runs with other `--seeds` may share
the folder. The report is about all trials there that were made with the same settings.
"""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from comparison.arguments import TrialArguments, check_choices
from comparison.grid import Grid, all_trials
from comparison.methods import METHODS, method_called
from comparison.models import CHOICES
from comparison.report import BUDGETS, write_report
from comparison.views import Collator
from tqdm.auto import tqdm
from transformers.utils import logging

from advbn_hf import InputError
from advbn_hf.utils.cli import run, use_all_cores
from advbn_hf.utils.options import parse

CONFIG = Path(__file__).parent / "configs" / "compare.yaml"


@dataclass
class CompareArguments:
    """What to compare."""

    methods: list[str] = field(
        default_factory=lambda: list(METHODS),
        metadata={"help": f'Any of {", ".join(METHODS)}; "NAME:setting=value,..." changes settings of its config.'},
    )
    models: list[str] = field(
        default_factory=lambda: ["resnet", "convnext"], metadata={"help": f"Any of {', '.join(CHOICES)}."}
    )
    budgets: list[str] = field(
        default_factory=lambda: ["steps"],
        metadata={"help": "steps: the same number for all; time: what time_reference takes for these; or both."},
    )
    reference: str = field(default="plain", metadata={"help": "Method that gains and costs are measured against."})
    time_reference: str = field(default="advbn", metadata={"help": "Method whose time all have (budget time)."})
    again: bool = field(default=False, metadata={"help": "Make trials again that are stored."})

    def __post_init__(self) -> None:
        check_choices("models", self.models, CHOICES)
        check_choices("budgets", self.budgets, BUDGETS)
        if not self.methods:
            raise InputError("methods: give at least one")
        for method in (*self.methods, self.reference, self.time_reference):
            method_called(method)


def main() -> None:
    """Measures costs, makes the trials that are missing, and reports."""
    args, trial_args = parse((CompareArguments, TrialArguments), default_file=CONFIG)
    for method in (*args.methods, args.reference, args.time_reference):
        Collator(method_called(method).views, seed=0)  # refused now if its library is missing
    use_all_cores()
    logging.disable_progress_bar()  # of every model that is read and written
    settings = trial_args.settings(reference=args.reference, time_reference=args.time_reference)
    folder = Path(trial_args.output_dir)
    grid = Grid(folder, settings)
    trials = all_trials(args.methods, trial_args.datasets, args.models, trial_args.seeds, args.budgets)
    for model in args.models:
        first = next(trial for trial in trials if trial.model == model)
        grid.measure_costs([*args.methods, args.time_reference], first)
    with tqdm(trials, unit="trial") as bar:
        for trial in bar:
            bar.set_description(f"{trial.dataset} {trial.model} {trial.method} {trial.budget} seed {trial.seed}")
            grid.make(trial, again=args.again)
    files = write_report(grid.stored(args.budgets), dataclasses.asdict(settings), args.reference, folder)
    print(files[1].read_text(encoding="utf-8"))
    print("written: " + ", ".join(str(file) for file in files))


if __name__ == "__main__":
    run(main)
