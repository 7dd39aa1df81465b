"""What the recipes that make rows of a comparison have in common: datasets, seeds, and how everything is trained."""

from dataclasses import dataclass, field
from typing import Any

from advbn_hf.errors import InputError, check_choice

from .datasets import DATASETS
from .fine_tuning import TuningSettings
from .grid import Settings
from .models import BaseSettings

_ABOVE_0 = ("steps", "batch_size", "learning_rate", "base_epochs", "train_images", "eval_images")


@dataclass
class RowArguments:
    """How rows are made and where they are stored."""

    datasets: list[str] = field(
        default_factory=lambda: list(DATASETS), metadata={"help": f"Any of {', '.join(DATASETS)}."}
    )
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4], metadata={"help": "Seeds."})
    split: str = field(default="validation", metadata={"help": "validation to choose settings, test to report."})
    steps: int = field(default=400, metadata={"help": "Steps of a fine-tuning."})
    batch_size: int = field(default=64, metadata={"help": "Images of a step."})
    learning_rate: float = field(default=0.03, metadata={"help": "Learning rate of all methods."})
    base_epochs: float = field(default=8.0, metadata={"help": "Epochs of the first training on clean images."})
    train_images: int | None = field(default=None, metadata={"help": "Train on the first so many; all else."})
    eval_images: int | None = field(default=None, metadata={"help": "Measure on the first so many of each set."})
    timed_steps: int = field(default=20, metadata={"help": "Steps that the cost of a method is measured on."})
    output_dir: str = field(default="outputs/compare", metadata={"help": "Where rows and report are written."})

    def __post_init__(self) -> None:
        check_among("datasets", self.datasets, DATASETS)
        if not self.seeds:
            raise InputError("seeds: give at least one")
        if min(self.seeds) < 0:
            raise InputError(f"seeds must be 0 or more, got {min(self.seeds)}")
        if self.split not in ("validation", "test"):
            raise InputError(f"split must be validation or test, got {self.split}")
        for name in _ABOVE_0:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"{name} must be above 0, got {value}")
        if self.timed_steps < 1:
            raise InputError(f"timed_steps must be 1 or more, got {self.timed_steps}")

    def settings(self, **others: Any) -> Settings:
        """The settings of the comparison; `others` are those that these arguments do not hold."""
        return Settings(
            split=self.split,
            steps=self.steps,
            base=BaseSettings(epochs=self.base_epochs),
            tuning=TuningSettings(learning_rate=self.learning_rate, batch_size=self.batch_size),
            train_images=self.train_images,
            eval_images=self.eval_images,
            timed_steps=self.timed_steps,
            **others,
        )


def check_among(name: str, values: list[str], known: Any) -> None:
    """Stops at values that are not known, or if there are none.

    Args:
        name: of the option.
        values: given for it.
        known: names to choose from.
    """
    if not values:
        raise InputError(f"{name}: give at least one")
    for value in values:
        check_choice(name, value, known)
