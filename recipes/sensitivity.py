"""How the gain of a method moves with each of its settings and of its training's, one at a time.

accelerate launch recipes/sensitivity.py                                    all of recipes/configs/sensitivity.yaml
accelerate launch recipes/sensitivity.py recipes/configs/sensitivity.yaml --vary "epsilon=0.5 1.1"

Rows are stored in OUTPUT_DIR/rows as those of recipes/compare.py are: what is there is not made again.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from comparison.arguments import RowArguments, check_among
from comparison.grid import Grid
from comparison.methods import METHODS
from comparison.models import MODELS
from comparison.plots import plot_sensitivity
from comparison.sensitivity import Variation, make_point, to_markdown, trials
from tqdm.auto import tqdm
from transformers.utils import logging

from advbn_hf import InputError
from advbn_hf.utils.cli import parse, run, use_all_cores
from advbn_hf.utils.files import write_atomically

CONFIG = Path(__file__).parent / "configs" / "sensitivity.yaml"


@dataclass
class SensitivityArguments:
    """What to vary, and around what."""

    vary: list[str] = field(
        default_factory=lambda: ["epsilon=1.1 1.5 2.0"],
        metadata={"help": "Settings of the method, learning_rate, batch_size or steps: SETTING=VALUE VALUE ..."},
    )
    method: str = field(default="advbn", metadata={"help": f"Any of {', '.join(METHODS)}."})
    model: str = field(default="resnet", metadata={"help": f"Any of {', '.join(MODELS)}."})

    def __post_init__(self) -> None:
        check_among("method", [self.method], METHODS)
        check_among("model", [self.model], MODELS)
        if not self.vary:
            raise InputError("vary: give at least one")


def main() -> None:
    """Makes the rows that are not there, and reports."""
    args, row_args = parse((SensitivityArguments, RowArguments), default_file=CONFIG)
    use_all_cores()
    logging.disable_progress_bar()  # of every model that is read and written
    settings, folder = row_args.settings(), Path(row_args.output_dir)
    planned = list(trials([Variation.read(text) for text in args.vary], args.method, settings))
    points = []
    with tqdm([(trial, dataset) for trial in planned for dataset in row_args.datasets], unit="point") as bar:
        for trial, dataset in bar:
            bar.set_description(f"{dataset} {trial.setting}={trial.value}")
            points.append(make_point(trial, Grid(folder, trial.settings), dataset, args.model, row_args.seeds))
    table = to_markdown(points)
    content = {"settings": dataclasses.asdict(settings), "points": [dataclasses.asdict(point) for point in points]}
    write_atomically(folder / "sensitivity.json", json.dumps(content, indent=1) + "\n")
    write_atomically(folder / "sensitivity.md", table + "\n")
    plot_sensitivity(points, f"{args.method} over {settings.reference}, {args.model}", folder / "sensitivity.png")
    print(table)
    print(f"written: {folder}/sensitivity.json, sensitivity.md, sensitivity.png")


if __name__ == "__main__":
    run(main)
