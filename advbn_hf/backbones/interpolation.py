"""Classifiers between two classifiers of one architecture, and running statistics that fit them."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import InputError
from .loading import class_names_of
from .tracing import evaluating


def interpolated(first: PreTrainedModel, second: PreTrainedModel, share: float) -> PreTrainedModel:
    """(1 - share) first + share second, of all weights and running statistics.

    Of a base model and its fine-tuned one, this is WiSE-FT (Wortsman et al., CVPR 2022).

    Args:
        first: a plain classifier, which is left as it is.
        second: one of the same architecture and classes, likewise.
        share: of the second, in 0..1.

    Returns:
        A new model of the first's class, in eval mode.

    Raises:
        InputError: if the share is out of its range, or the models differ in architecture or classes.

    Example:
        >>> from transformers import ResNetConfig, ResNetForImageClassification
        >>> tiny = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3)
        >>> first, second = ResNetForImageClassification(tiny), ResNetForImageClassification(tiny)
        >>> between = interpolated(first, second, 0.25)
        >>> weights = [model.classifier[1].weight for model in (first, second, between)]
        >>> torch.allclose(weights[2], 0.75 * weights[0] + 0.25 * weights[1])
        True
    """
    if not 0 <= share <= 1:
        raise InputError(f"the share of the second model must be in 0..1, got {share}")
    model = copy.deepcopy(first)
    values, others = model.state_dict(), second.state_dict()
    for name in sorted(values.keys() | others.keys()):
        shapes = [tuple(state[name].shape) if name in state else None for state in (values, others)]
        if shapes[0] != shapes[1]:
            raise InputError(f"the models differ in {name} ({shapes[0]} and {shapes[1]}); they need one architecture")
    if class_names_of(first) != class_names_of(second):
        raise InputError("the models have other classes, or in another order; fine-tune from the base's own head")
    with torch.no_grad():
        for name, value in values.items():
            if value.is_floating_point():
                value.lerp_(others[name].to(value), share)
    return model.eval()


def re_estimate_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Sets the running statistics of batch norms to the means over batches; all else stays in eval mode.

    Statistics of interpolated weights are not the interpolated statistics. A model without batch norm stays as it is.

    Args:
        model: to change.
        batches: images (B, C, H, W) as the model takes them, of one size B, since each batch counts the same.

    Raises:
        InputError: if there is no batch, or one of a single image.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    if not norms:
        return
    before = [(norm, norm.momentum, norm.training) for norm in norms]
    example, count = next(model.parameters()), 0
    with evaluating(model), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # which makes it a mean
            norm.train()
        try:
            for images in batches:
                if len(images) < 2:
                    raise InputError("a batch of one image is too few for a batch norm; give more images")
                model(pixel_values=images.to(example.device, example.dtype))
                count += 1
        finally:
            for norm, norm.momentum, training in before:
                norm.train(training)
    if not count:
        raise InputError("there is no image to estimate running statistics on")
