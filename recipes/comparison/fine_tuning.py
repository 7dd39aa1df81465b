"""One trial of the comparison: a model fine-tuned by a method, and its accuracy on every set in every branch."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PrinterCallback, set_seed

from advbn_hf.backbones.interpolation import interpolated, re_estimate_statistics
from advbn_hf.evaluation.inference import branch_logits
from advbn_hf.modeling import AdvBNForImageClassification
from advbn_hf.trainer import AdvBNTrainer
from advbn_hf.training_args import AdvBNTrainingArguments

from .datasets import DecodedImages
from .methods import Method
from .models import QUIET, SGD
from .views import Collator, to_input

_BATCH = 25  # images of an evaluation step: larger ones fall out of a processor's cache, and take four times as long
_STATISTICS_BATCH = 500  # images that running statistics are re-estimated on together: all classes


@dataclass(frozen=True)
class TuningSettings:
    """How every method fine-tunes; SGD with momentum 0.9 and a cosine, as in the quickstart.

    Args:
        learning_rate: at the start.
        batch_size: images of a step.
        weight_decay: on all but norms and biases.
    """

    learning_rate: float = 0.03
    batch_size: int = 64
    weight_decay: float = 1e-4


def fine_tune(
    method: Method,
    base: PreTrainedModel,
    images: DecodedImages,
    settings: TuningSettings,
    steps: int,
    seed: int,
    folder: str,
) -> tuple[AdvBNForImageClassification, float]:
    """Fine-tunes a copy of a classifier.

    Args:
        method: how.
        base: the classifier.
        images: to train on.
        settings: of the optimiser.
        steps: number of optimiser steps.
        seed: of order, augmentation and random styles.
        folder: where Trainer may write; nothing is left there.

    Returns:
        The model and the seconds that its training took.
    """
    set_seed(seed)
    model = method.wrap(base)
    arguments = AdvBNTrainingArguments(
        output_dir=folder,
        max_steps=steps,
        **{**SGD, "learning_rate": settings.learning_rate, "weight_decay": settings.weight_decay},
        per_device_train_batch_size=settings.batch_size,
        seed=seed,
        ema_decay=method.averaging,
        **QUIET,
    )
    collator = Collator(method.views, seed)
    trainer = AdvBNTrainer(model, arguments, train_dataset=images, data_collator=collator)
    trainer.remove_callback(PrinterCallback)
    start = time.perf_counter()
    trainer.train()
    return model.eval(), time.perf_counter() - start


def measure(
    model: AdvBNForImageClassification,
    sets: Mapping[str, DecodedImages],
    train: DecodedImages,
    base: PreTrainedModel | None,
) -> dict[str, dict[str, float]]:
    """Accuracy, in 0..1, of each branch on each set.

    Args:
        model: fine-tuned, in eval mode.
        sets: what to measure on.
        train: clean images, to re-estimate running statistics on.
        base: the classifier that was fine-tuned; None where its head was untrained.

    Returns:
        Branch -> set -> accuracy. Branches are "clean" and, where there are auxiliary norms, "auxiliary" and "average"
        (of both branches' probabilities), and those of `derived_models`. Where there are batch norms, "adapted" is the
        clean branch with running statistics of the images of the set, as of Schneider et al. (NeurIPS 2020): without
        labels, but not without the images that are measured on.
    """
    accuracy: dict[str, dict[str, float]] = {"clean": {}}
    derived = derived_models(model, train, base)
    adapted = model.export("clean").to(model.device)
    for name, images in sets.items():
        if _has_batch_norms(adapted):
            _re_estimate(adapted, images)
            derived["adapted"] = adapted
        predicted: dict[str, list[Tensor]] = {}
        for start in range(0, len(images), _BATCH):
            pixel_values = to_input(images.pixels[start : start + _BATCH]).to(model.device)
            for branch, classes in _predictions(model, derived, pixel_values).items():
                predicted.setdefault(branch, []).append(classes.cpu())
        for branch, parts in predicted.items():
            correct = torch.cat(parts) == images.labels
            accuracy.setdefault(branch, {})[name] = correct.double().mean().item()
    return accuracy


def derived_models(
    model: AdvBNForImageClassification, train: DecodedImages, base: PreTrainedModel | None
) -> dict[str, PreTrainedModel]:
    """Plain models that a fine-tuned one gives without training.

    Args:
        model: fine-tuned.
        train: as for `measure`.
        base: likewise.

    Returns:
        "interpolated": half the base, half the clean branch, with running statistics of clean images. Where there are
        auxiliary norms, "soup", whose norms lie between both branches', and, for batch norms, "re-estimated" and "soup
        re-estimated": the auxiliary branch and the soup with running statistics of clean images.
    """
    derived, re_estimated = {}, {}
    if base is not None:
        re_estimated["interpolated"] = interpolated(base, model.export("clean").to(base.device), 0.5)
    if model.advbn_config.auxiliary_norms:
        derived["soup"] = model.export("soup")
        if _has_batch_norms(derived["soup"]):
            re_estimated |= {"re-estimated": model.export("auxiliary"), "soup re-estimated": model.export("soup")}
    for other in re_estimated.values():
        _re_estimate(other.to(model.device), train)
    return derived | re_estimated


def _has_batch_norms(model: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def _re_estimate(model: nn.Module, images: DecodedImages) -> None:
    """Running statistics of all images, in an order in which each batch has all classes."""
    order = np.random.default_rng(0).permutation(len(images))
    batches = np.array_split(order, max(len(images) // _STATISTICS_BATCH, 1))
    re_estimate_statistics(model, (to_input(images.pixels[rows]) for rows in batches))


@torch.no_grad()
def _predictions(
    model: AdvBNForImageClassification, derived: Mapping[str, PreTrainedModel], pixel_values: Tensor
) -> dict[str, Tensor]:
    """The class that each branch predicts, (B,)."""
    logits = branch_logits(model, pixel_values)
    if model.advbn_config.auxiliary_norms:
        logits["average"] = sum(values.softmax(-1) for values in logits.values())
    else:
        logits = {"clean": logits["plain"]}
    logits |= {name: other(pixel_values).logits for name, other in derived.items()}
    return {branch: values.argmax(-1) for branch, values in logits.items()}
