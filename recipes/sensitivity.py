"""How the gain of a method depends on each setting of it and of its training, one at a time.

accelerate launch recipes/sensitivity.py                                    all of recipes/configs/sensitivity.yaml
accelerate launch recipes/sensitivity.py recipes/configs/sensitivity.yaml --vary "epsilon=0.5 1.1"

Trials are stored in OUTPUT_DIR/trials as those of recipes/compare.py are: what is there is not made again.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from comparison.arguments import TrialArguments
from comparison.grid import Grid
from comparison.methods import METHODS
from comparison.models import CHOICES
from comparison.plots import plot_sensitivity
from comparison.sensitivity import Variation, changes, make_point, to_markdown
from comparison.views import Collator
from tqdm.auto import tqdm
from transformers.utils import logging

from advbn_hf.errors import InputError, check_choice
from advbn_hf.utils.cli import run, use_all_cores
from advbn_hf.utils.files import write_atomically
from advbn_hf.utils.options import parse

CONFIG = Path(__file__).parent / "configs" / "sensitivity.yaml"


@dataclass
class SensitivityArguments:
    """What to vary, and around what."""

    vary: list[str] = field(
        default_factory=lambda: ["epsilon=1.1 1.5 2.0"],
        metadata={"help": "Settings of the method, learning_rate, batch_size or steps: SETTING=VALUE VALUE ..."},
    )
    method: str = field(default="advbn", metadata={"help": f"Any of {', '.join(METHODS)}."})
    model: str = field(default="resnet", metadata={"help": f"Any of {', '.join(CHOICES)}."})

    def __post_init__(self) -> None:
        check_choice("method", self.method, METHODS)
        check_choice("model", self.model, CHOICES)
        if not self.vary:
            raise InputError("vary: give at least one")


def main() -> None:
    """Makes the trials that are missing, and reports."""
    args, trial_args = parse((SensitivityArguments, TrialArguments), default_file=CONFIG)
    Collator(METHODS[args.method].views, seed=0)  # refused now if its library is missing
    use_all_cores()
    logging.disable_progress_bar()  # of every model that is read and written
    settings, folder = trial_args.settings(), Path(trial_args.output_dir)
    planned = list(changes([Variation.read(text) for text in args.vary], args.method, settings))
    points = []
    with tqdm([(change, dataset) for change in planned for dataset in trial_args.datasets], unit="point") as bar:
        for change, dataset in bar:
            bar.set_description(f"{dataset} {change.setting}={change.value}")
            points.append(make_point(change, Grid(folder, change.settings), dataset, args.model, trial_args.seeds))
    table = to_markdown(points)
    content = {"settings": dataclasses.asdict(settings), "points": [dataclasses.asdict(point) for point in points]}
    write_atomically(folder / "sensitivity.json", json.dumps(content, indent=1) + "\n")
    write_atomically(folder / "sensitivity.md", table + "\n")
    plot_sensitivity(points, f"{args.method} over {settings.reference}, {args.model}", folder / "sensitivity.png")
    print(table)
    print(f"written: {folder}/sensitivity.json, sensitivity.md, sensitivity.png")


if __name__ == "__main__":
    run(main)
