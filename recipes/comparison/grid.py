"""The trials of a comparison: which there are, what each depends on, and making those that are not stored yet."""

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from advbn_hf.utils.fingerprint import hash_file, hash_settings
from advbn_hf.utils.versions import installed_versions

from .costs import Cost, time_steps
from .data import designers
from .data.unseen import UNSEEN
from .datasets import DATASETS, DecodedImages, load_decoded
from .fine_tuning import TuningSettings, fine_tune, measure
from .methods import METHODS, Method, method_called
from .models import CHOICES, MODELS, PRETRAINED, PROBED, BaseSettings, base_model, weights_of
from .store import Store, key_of

_COSTS = {field.name for field in dataclasses.fields(Cost)}
_DRAWN_WITH = ("numpy", "scipy", "pillow", "matplotlib")  # other releases may draw images a little differently


@dataclass(frozen=True)
class Trial:
    """One fine-tuning and its result.

    Args:
        method: as `method_called` reads it.
        dataset: one of `DATASETS`.
        model: one of `CHOICES`.
        seed: of the base model and of the fine-tuning.
        budget: "steps" or "time"; see `Settings`.
        result: "steps", "seconds" (of the fine-tuning), "step_ms", "cost" (of a step, in steps of the reference),
            "cost_without_views" (the same where views are ready), "accuracy" (branch -> set -> 0..1) and "n" (set ->
            number of images); empty until it is made.
    """

    method: str
    dataset: str
    model: str
    seed: int
    budget: str
    result: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Settings:
    """What all trials of a comparison have in common.

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
        designers: what `recipes/designers.py` wrote, for datasets that lie there.
        pretrained: folder that has a folder for each pretrained model.
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
    designers: str = designers.FOLDER
    pretrained: str = "models"


class Grid:
    """Makes trials and keeps them in a folder: `trials/`, `bases/` (the models before fine-tuning) and `costs/`.

    Args:
        folder: created if missing.
        settings: what the trials have in common.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.trials, self.costs = Store(folder / "trials"), Store(folder / "costs")
        self.versions = installed_versions(*_DRAWN_WITH)
        self._costs: dict[tuple[str, str], Cost] = {}
        self._weights: dict[str, str] = {}

    def make(self, trial: Trial, again: bool = False) -> Trial:
        """A trial with its result, which is stored; the stored one where there is one.

        Args:
            trial: without result.
            again: whether it is made even where it is stored.
        """
        method, steps = method_called(trial.method), self.steps(trial)
        depends_on = self._depends_on(trial, steps)
        result = None if again else self.trials.get(depends_on)
        if result is None:
            base, train = self._base(trial.model, trial.dataset, trial.seed), self._images(trial.dataset)
            with tempfile.TemporaryDirectory() as scratch:
                model, seconds = fine_tune(method, base, train, self.settings.tuning, steps, trial.seed, scratch)
            measured = (*DATASETS[trial.dataset].measured[self.settings.split], UNSEEN)
            sets = {name: self._images(trial.dataset, name) for name in measured}
            trained = None if trial.model in PRETRAINED else base  # a pretrained one has a new head
            result = {"seconds": seconds, "accuracy": measure(model, sets, train, trained)}
            result["n"] = {name: len(images) for name, images in sets.items()}
            self.trials.put(depends_on, result)
        cost = self.cost(trial)
        costs = {"step_ms": cost.step_ms, "cost": cost.ratio, "cost_without_views": cost.ratio_without_views}
        result = {**result, "steps": steps, **costs}
        return dataclasses.replace(trial, result=result)

    def stored(self, budgets: list[str]) -> list[Trial]:
        """All trials of the folder that were made with these settings, in the order of `METHODS`, then by name.

        Args:
            budgets: some of "steps" and "time".
        """
        found = []
        for depends_on, _ in self.trials.all():
            names = {name: depends_on[name] for name in ("method", "dataset", "model", "seed")}
            if names["method"].split(":")[0] not in METHODS or names["model"] not in CHOICES:
                continue  # of another version
            for trial in (Trial(**names, budget=budget) for budget in budgets):
                steps = depends_on["steps"]
                if depends_on == self._depends_on(trial, steps) and steps == self.steps(trial):
                    found.append(self.make(trial))
        order = list(METHODS)
        return sorted(
            found,
            key=lambda trial: (
                order.index(trial.method.split(":")[0]),
                trial.method,
                trial.dataset,
                trial.model,
                trial.seed,
            ),
        )

    def steps(self, trial: Trial) -> int:
        """Steps of a trial's fine-tuning."""
        if trial.budget == "steps":
            return self.settings.steps
        time_reference = dataclasses.replace(trial, method=self.settings.time_reference)
        allowed = self.settings.steps * self.cost(time_reference).ratio
        return max(round(allowed / self.cost(trial).ratio), 1)

    def cost(self, trial: Trial) -> Cost:
        """What a step of the trial's method costs on its model."""
        if (trial.model, trial.method) not in self._costs:
            self.measure_costs([trial.method], trial)
        return self._costs[trial.model, trial.method]

    def measure_costs(self, methods: list[str], trial: Trial) -> None:
        """Looks up what steps of methods cost on a trial's model, and times together those that are not stored yet."""
        about = {
            name: {
                "method": name,
                "model": trial.model,
                **self._about(name, trial.model),
                "tuning": asdict(self.settings.tuning),
                "timed_steps": self.settings.timed_steps,
                "reference": self._about(self.settings.reference, trial.model),
            }
            for name in methods
        }
        stored = {name: self.costs.get(about[name]) or {} for name in about}
        missing = [name for name in about if stored[name].keys() != _COSTS]
        if missing:
            reference = self.settings.reference
            timed = {name: method_called(name) for name in dict.fromkeys([reference, *missing])}
            base, train = self._base(trial.model, trial.dataset, trial.seed), self._images(trial.dataset)
            measured = time_steps(timed, reference, base, train, self.settings.tuning, self.settings.timed_steps)
            for name in missing:
                # What is stored stays, since trials at equal time depend on it.
                stored[name] = {**asdict(measured[name]), **stored[name]}
                self.costs.put(about[name], stored[name])
        for name in about:
            self._costs[trial.model, name] = Cost(**stored[name])

    def _depends_on(self, trial: Trial, steps: int) -> dict[str, Any]:
        """Everything that a trial's result depends on."""
        return {
            **{name: getattr(trial, name) for name in ("method", "dataset", "model", "seed")},
            "steps": steps,
            **self._about(trial.method, trial.model),
            "base": asdict(self.settings.base),
            "tuning": asdict(self.settings.tuning),
            "split": self.settings.split,
            "images": [self.settings.train_images, self.settings.eval_images],
            **self._contents(trial.dataset),
        }

    def _about(self, method: str, model: str) -> dict[str, Any]:
        """What method and model are, beside their names."""
        return {
            "settings": _described(method_called(method)),
            "config": self._config(model),
            "versions": self.versions,
        }

    def _config(self, model: str) -> dict[str, Any]:
        """What a model is: its config, or its pretrained weights."""
        if model in MODELS:
            return MODELS[model]
        if model not in self._weights:
            weights = weights_of(PROBED.get(model, model), self.settings.pretrained)
            self._weights[model] = hash_file(weights)
        return {"weights": self._weights[model]}

    def _contents(self, dataset: str) -> dict[str, str]:
        """What a dataset in a folder is; those that are drawn are known by the versions that draw them."""
        if not DATASETS[dataset].from_folder:
            return {}
        return {"contents": hash_settings(designers.folder_contents(Path(self.settings.designers) / dataset))}

    def _base(self, model: str, dataset: str, seed: int) -> PreTrainedModel:
        depends_on = {
            "model": model,
            "dataset": dataset,
            "seed": seed,
            "config": self._config(model),
            "base": asdict(self.settings.base),
            "images": [self.settings.train_images],
            "versions": self.versions,
            **self._contents(dataset),
        }
        folder = self.folder / "bases" / key_of(depends_on)
        images = self._images(dataset)
        return base_model(model, images, self.settings.base, seed, folder, self.settings.pretrained)

    def _images(self, dataset: str, name: str | None = None) -> DecodedImages:
        """Images of one of the sets to measure on; without a name, those to train on."""
        split, count = self.settings.split, self.settings.eval_images
        if name is None:
            name, split, count = "clean", "train", self.settings.train_images
        return load_decoded(dataset, name, split, count, self.settings.designers)


def all_trials(
    methods: list[str], datasets: list[str], models: list[str], seeds: list[int], budgets: list[str]
) -> list[Trial]:
    """All combinations, those of one base model together."""
    combinations = product(datasets, models, seeds, methods, budgets)
    return [Trial(method, dataset, model, seed, budget) for dataset, model, seed, method, budget in combinations]


def _described(method: Method) -> Mapping[str, Any]:
    return {
        "class": method.model_class.__name__,
        **method.config.to_dict(),
        "views": asdict(method.views),
        "averaging": method.averaging,
    }
