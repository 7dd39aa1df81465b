"""Images' features in another style: the worst that the ascent finds within epsilon, or a random one."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..backbones.split import Recording
from ..method.losses import Objective
from ..modeling import AdvBNForImageClassification


@torch.no_grad()
def restyle(
    model: AdvBNForImageClassification,
    recording: Recording,
    labels: Tensor,
    epsilon: float,
    *,
    ascend: bool,
    seed: int,
) -> Tensor:
    """Perturbs the features of each image independently, with the model's settings but for epsilon.

    A random style has multipliers drawn uniformly from [1 - epsilon, 1 + epsilon]. With one seed, draws at different
    epsilons differ in scale alone, so that a row of rising epsilons shows one style getting stronger.

    Args:
        model: in eval mode.
        recording: the stem's outputs.
        labels: (B,) int64, whose loss the ascent maximises.
        epsilon: the multipliers stay in [1 - epsilon, 1 + epsilon]; above 0.
        ascend: whether to search for the worst style; a random one otherwise.
        seed: of random multipliers.

    Returns:
        Features, like those of the recording.

    Raises:
        InputError: if epsilon is not above 0.
    """
    changes = {} if ascend else {"num_steps": 0, "random_start": True}
    with _settings(model, epsilon=epsilon, num_perturbations="per_sample", attack_fraction=1.0, **changes):
        model.generator.manual_seed(seed)
        return model.perturb(recording, Objective(labels))[0]


@contextmanager
def _settings(model: AdvBNForImageClassification, **changes: float | str | bool) -> Iterator[None]:
    """Other settings within the block; afterwards settings and the generator's state are as before."""
    config, state = model.advbn_config, model.generator.get_state()
    model.advbn_config = dataclasses.replace(config, **changes)
    try:
        yield
    finally:
        model.advbn_config = config
        model.generator.set_state(state)
