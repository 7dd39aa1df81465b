"""What a step of each method costs; all are timed in turn."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from accelerate import PartialState
from benchmarking.timing import ratios, time_in_turn
from transformers import PreTrainedModel

from advbn_hf.training.averaging import WeightAverage

from .datasets import DecodedImages
from .fine_tuning import TuningSettings
from .methods import Method
from .views import Collator


@dataclass(frozen=True)
class Cost:
    """The cost of a step: views, forward, backward, SGD and averaging.

    Args:
        step_ms: median, in milliseconds.
        ratio: median of the ratios to the reference's step of the same turn.
        ratio_without_views: the same where the views are ready, as a loader's other processes make them for a GPU.
    """

    step_ms: float
    ratio: float
    ratio_without_views: float


def time_steps(
    methods: Mapping[str, Method],
    reference: str,
    base: PreTrainedModel,
    images: DecodedImages,
    settings: TuningSettings,
    turns: int,
) -> dict[str, Cost]:
    """Times a step of every method.

    Args:
        methods: by name.
        reference: the one of them whose step is the unit of cost.
        base: the classifier to fine-tune.
        images: to train on.
        settings: of the optimiser.
        turns: steps of each that count; two more come first.
    """
    steps = {name: _Step(method, base, images, settings) for name, method in methods.items()}
    timed = {(name, True): step.make_views_and_train for name, step in steps.items()}
    timed |= {(name, False): step.train for name, step in steps.items()}
    seconds = time_in_turn(timed, turns, warmup=2, description="timing the steps")

    def ratio(name: str, with_views: bool) -> float:
        return statistics.median(ratios(seconds[name, with_views], seconds[reference, with_views]))

    return {
        name: Cost(1000 * statistics.median(seconds[name, True]), ratio(name, True), ratio(name, False))
        for name in methods
    }


class _Step:
    """One training step of a method, on the same images each time."""

    def __init__(self, method: Method, base: PreTrainedModel, images: DecodedImages, settings: TuningSettings) -> None:
        self.device = PartialState().device
        self.model = method.wrap(base).to(self.device).train()
        self.collate = Collator(method.views, seed=0)
        self.images = [images[index] for index in range(min(settings.batch_size, len(images)))]
        self.ready = self.collate(self.images)
        trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        # A learning rate of 0, so that repeating a few images leaves the weights as they are.
        self.optimizer = torch.optim.SGD(trained, lr=0.0, momentum=0.9)
        self.average = WeightAverage(method.averaging) if method.averaging else None
        if self.average is not None:
            self.average.start(self.model)

    def make_views_and_train(self) -> None:
        self.ready = self.collate(self.images)
        self.train()

    def train(self) -> None:
        batch = {name: tensor.to(self.device) for name, tensor in self.ready.items()}
        self.model(**batch).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.model)
