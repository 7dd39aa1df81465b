"""What a step of each method costs: all are timed in turn, so that what else the machine does meets all of them."""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import PartialState
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from .datasets import Collator, ImageSplits
from .fine_tuning import TuningSettings, moving_average
from .methods import Method


@dataclass(frozen=True)
class Cost:
    """The cost of a step: augmentation, forward, backward, SGD and averaging.

    Args:
        step_ms: median, in milliseconds.
        ratio: median of the ratios to the reference's step of the same turn.
    """

    step_ms: float
    ratio: float


def time_steps(
    methods: Mapping[str, Method],
    reference: str,
    base: PreTrainedModel,
    images: ImageSplits,
    settings: TuningSettings,
    turns: int,
) -> dict[str, Cost]:
    """Times a step of every method.

    Args:
        methods: by name.
        reference: the one of them that the others are set in proportion to.
        base: the classifier to fine-tune.
        images: to train on.
        settings: of the optimiser.
        turns: steps of each that count; two more come first.
    """
    steps = {name: _Step(method, base, images, settings) for name, method in methods.items()}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for turn in tqdm(range(-2, turns), desc="timing the steps", leave=False):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return {
        name: Cost(
            step_ms=1000 * statistics.median(taken),
            ratio=statistics.median(np.divide(taken, seconds[reference]).tolist()),
        )
        for name, taken in seconds.items()
    }


class _Step:
    """One training step of a method, on the same rows each time."""

    def __init__(self, method: Method, base: PreTrainedModel, images: ImageSplits, settings: TuningSettings) -> None:
        self.device = PartialState().device
        self.model = method.wrap(base).to(self.device).train()
        self.collate = Collator(method.views, seed=0)
        self.rows = [images[row] for row in range(min(settings.batch_size, len(images)))]
        trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        # A rate of 0, so that repeating a few images takes the weights nowhere.
        self.optimizer = torch.optim.SGD(trained, lr=0.0, momentum=0.9)
        self.average = moving_average(self.model, method.averaging) if method.averaging else None

    def __call__(self) -> None:
        batch = {name: tensor.to(self.device) for name, tensor in self.collate(self.rows).items()}
        self.model(**batch).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.model.backbone)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
