"""The rows of a comparison: which there are, what each depends on, and making those that are not stored yet."""

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from advbn_hf.data.embedded.rendering import STYLES
from advbn_hf.utils.versions import installed_versions

from .costs import Cost, time_steps
from .datasets import ImageSplits, load_splits
from .fine_tuning import TuningSettings, fine_tune, measure
from .methods import METHODS, Method, method_called
from .models import MODELS, BaseSettings, base_model
from .store import Store, key_of

_DRAWN_WITH = ("numpy", "scipy", "pillow", "matplotlib")  # other releases may draw images a little differently


@dataclass(frozen=True)
class Row:
    """One fine-tuning and what came of it.

    Args:
        method: as `method_called` reads it.
        dataset: one of `DATASETS`.
        model: one of `MODELS`.
        seed: of the base model and of the fine-tuning.
        budget: "steps" or "time"; see `Settings`.
        result: "steps", "seconds" (of the fine-tuning), "step_ms", "cost" (of a step, in steps of the reference),
            "accuracy" (branch -> set -> 0..1) and "n" (set -> number of images); empty where it is not made yet.
    """

    method: str
    dataset: str
    model: str
    seed: int
    budget: str
    result: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Settings:
    """What all rows of a comparison have in common.

    Args:
        split: "validation" to choose settings, "test" to report them.
        steps: of the budget "steps"; with "time", a method has as many as `time_reference` does in the time that
            these take it.
        reference: the method that costs and gains are measured against.
        time_reference: see `steps`.
        base: how the models are trained first.
        tuning: how all methods fine-tune.
        train_images, eval_images: images of a set; None for all.
        timed_steps: steps that a cost is measured on.
    """

    split: str = "validation"
    steps: int = 400
    reference: str = "plain"
    time_reference: str = "advbn"
    base: BaseSettings = field(default_factory=BaseSettings)
    tuning: TuningSettings = field(default_factory=TuningSettings)
    train_images: int | None = None
    eval_images: int | None = None
    timed_steps: int = 20


class Grid:
    """Makes rows and keeps them in a folder: `rows/`, `bases/` (the models before fine-tuning) and `costs/`.

    Args:
        folder: created if missing.
        settings: what the rows have in common.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.rows, self.costs = Store(folder / "rows"), Store(folder / "costs")
        self.versions = installed_versions(*_DRAWN_WITH)
        self._costs: dict[tuple[str, str], Cost] = {}

    def make(self, row: Row, anew: bool = False) -> Row:
        """A row with its result, which is stored; or which was, unless it is to be made anew."""
        method, steps = method_called(row.method), self.steps(row)
        depends_on = self._depends_on(row, steps)
        result = None if anew else self.rows.get(depends_on)
        if result is None:
            base, train = self._base(row.model, row.dataset, row.seed), self._images(row.dataset)
            with tempfile.TemporaryDirectory() as scratch:
                model, seconds = fine_tune(method, base, train, self.settings.tuning, steps, row.seed, scratch)
            sets = {style: self._images(row.dataset, style) for style in STYLES}
            result = {"seconds": seconds, "accuracy": measure(model, sets, train)}
            result["n"] = {style: len(images) for style, images in sets.items()}
            self.rows.put(depends_on, result)
        cost = self.cost(row)
        return dataclasses.replace(row, result={**result, "steps": steps, "step_ms": cost.step_ms, "cost": cost.ratio})

    def stored(self, budgets: list[str]) -> list[Row]:
        """All rows of the folder that were made with these settings, in the order of `METHODS`, then by name."""
        found = []
        for depends_on, _ in self.rows.all():
            names = {name: depends_on[name] for name in ("method", "dataset", "model", "seed")}
            if names["method"].split(":")[0] not in METHODS or names["model"] not in MODELS:
                continue  # of another version
            for row in (Row(**names, budget=budget) for budget in budgets):
                if depends_on == self._depends_on(row, depends_on["steps"]) and depends_on["steps"] == self.steps(row):
                    found.append(self.make(row))
        order = list(METHODS)
        return sorted(
            found,
            key=lambda row: (order.index(row.method.split(":")[0]), row.method, row.dataset, row.model, row.seed),
        )

    def steps(self, row: Row) -> int:
        """Steps of a row's fine-tuning."""
        if row.budget == "steps":
            return self.settings.steps
        allowed = self.settings.steps * self.cost(dataclasses.replace(row, method=self.settings.time_reference)).ratio
        return max(round(allowed / self.cost(row).ratio), 1)

    def cost(self, row: Row) -> Cost:
        """What a step of the row's method costs on its model."""
        if (row.model, row.method) not in self._costs:
            self.measure_costs([row.method], row)
        return self._costs[row.model, row.method]

    def measure_costs(self, methods: list[str], row: Row) -> None:
        """Looks up what steps of methods cost on a row's model, and times together those that are not stored yet."""
        about = {
            name: {
                "method": name,
                "model": row.model,
                **self._about(name, row.model),
                "tuning": asdict(self.settings.tuning),
                "timed_steps": self.settings.timed_steps,
                "reference": self._about(self.settings.reference, row.model),
            }
            for name in methods
        }
        missing = [name for name in about if self.costs.get(about[name]) is None]
        if missing:
            reference = self.settings.reference
            timed = {name: method_called(name) for name in dict.fromkeys([reference, *missing])}
            base, train = self._base(row.model, row.dataset, row.seed), self._images(row.dataset)
            measured = time_steps(timed, reference, base, train, self.settings.tuning, self.settings.timed_steps)
            for name in missing:
                self.costs.put(about[name], asdict(measured[name]))
        for name in about:
            self._costs[row.model, name] = Cost(**self.costs.get(about[name]))

    def _depends_on(self, row: Row, steps: int) -> dict[str, Any]:
        """Everything that a row's result depends on."""
        return {
            **{name: getattr(row, name) for name in ("method", "dataset", "model", "seed")},
            "steps": steps,
            **self._about(row.method, row.model),
            "base": asdict(self.settings.base),
            "tuning": asdict(self.settings.tuning),
            "split": self.settings.split,
            "images": [self.settings.train_images, self.settings.eval_images],
        }

    def _about(self, method: str, model: str) -> dict[str, Any]:
        """What method and model are, beside their names."""
        return {"settings": _described(method_called(method)), "config": MODELS[model], "versions": self.versions}

    def _base(self, model: str, dataset: str, seed: int) -> PreTrainedModel:
        depends_on = {
            "model": model,
            "dataset": dataset,
            "seed": seed,
            "config": MODELS[model],
            "base": asdict(self.settings.base),
            "images": [self.settings.train_images],
            "versions": self.versions,
        }
        folder = self.folder / "bases" / key_of(depends_on)
        return base_model(model, self._images(dataset), self.settings.base, seed, folder)

    def _images(self, dataset: str, style: str | None = None) -> ImageSplits:
        """Images of one of the sets to measure on; without a style, those to train on."""
        if style is None:
            return load_splits(dataset, "clean", "train", self.settings.train_images)
        return load_splits(dataset, style, self.settings.split, self.settings.eval_images)


def rows_of(
    methods: list[str], datasets: list[str], models: list[str], seeds: list[int], budgets: list[str]
) -> list[Row]:
    """All combinations, those of one base model together."""
    combinations = product(datasets, models, seeds, methods, budgets)
    return [Row(method, dataset, model, seed, budget) for dataset, model, seed, method, budget in combinations]


def _described(method: Method) -> Mapping[str, Any]:
    return {
        "class": method.model_class.__name__,
        **method.config.to_dict(),
        "views": method.views,
        "averaging": method.averaging,
    }
