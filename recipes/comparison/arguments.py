"""What the recipes of the comparison have in common: datasets, seeds, and how everything is trained."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from advbn_hf.errors import InputError, check_at_least, check_choice
from advbn_hf.utils.files import check_writable

from .data.designers import FOLDER
from .datasets import DATASETS
from .fine_tuning import TuningSettings
from .grid import Settings
from .models import BaseSettings

_ABOVE_0 = ("steps", "batch_size", "learning_rate", "base_epochs", "train_images", "eval_images")


@dataclass
class TrialArguments:
    """Which trials are made, how, and where they are stored."""

    datasets: list[str] = field(
        default_factory=lambda: ["digits", "characters", "patterns"],
        metadata={"help": f"Any of {', '.join(DATASETS)}."},
    )
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4], metadata={"help": "Seeds."})
    split: str = field(default="validation", metadata={"help": "validation to choose settings, test to report."})
    steps: int = field(default=400, metadata={"help": "Steps of a fine-tuning."})
    batch_size: int = field(default=64, metadata={"help": "Images of a step."})
    learning_rate: float = field(default=0.03, metadata={"help": "Learning rate of all methods."})
    base_epochs: float = field(default=8.0, metadata={"help": "Epochs of the first training on clean images."})
    train_images: int | None = field(default=None, metadata={"help": "Train on the first so many; all by default."})
    eval_images: int | None = field(default=None, metadata={"help": "Measure on the first so many of each set."})
    timed_steps: int = field(default=20, metadata={"help": "Steps that the cost of a method is measured on."})
    designers: str = field(default=FOLDER, metadata={"help": "What designers.py wrote, for concepts and subgroups."})
    pretrained: str = field(default="models", metadata={"help": "Folder of pretrained models, such as models/lite0."})
    output_dir: str = field(default="outputs/compare", metadata={"help": "Where trials and report are written."})

    def __post_init__(self) -> None:
        check_choices("datasets", self.datasets, DATASETS)
        if not self.seeds:
            raise InputError("seeds: give at least one")
        check_at_least("seeds", min(self.seeds), 0)
        check_choice("split", self.split, ("validation", "test"))
        for name in _ABOVE_0:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"{name} must be above 0, got {value}")
        check_at_least("timed_steps", self.timed_steps, 1)
        check_writable(self.output_dir, "output_dir")

    def settings(self, **others: Any) -> Settings:
        """The settings of the comparison.

        Args:
            others: settings that these arguments do not hold.
        """
        return Settings(
            split=self.split,
            steps=self.steps,
            base=BaseSettings(epochs=self.base_epochs),
            tuning=TuningSettings(learning_rate=self.learning_rate, batch_size=self.batch_size),
            train_images=self.train_images,
            eval_images=self.eval_images,
            timed_steps=self.timed_steps,
            designers=self.designers,
            pretrained=self.pretrained,
            **others,
        )


def check_choices(name: str, values: list[str], choices: Collection[str]) -> None:
    """Checks that values are given, each one of those that there are.

    Args:
        name: of the option.
        values: given for it.
        choices: values to choose from.

    Raises:
        InputError: there is none, or one that is no choice.
    """
    if not values:
        raise InputError(f"{name}: give at least one")
    for value in values:
        check_choice(name, value, choices)
