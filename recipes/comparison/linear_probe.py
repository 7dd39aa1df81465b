"""A classifier whose last layer alone is trained: where WiSE-FT and LP-FT start from."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from advbn_hf.backbones.tracing import evaluating

from .datasets import DecodedImages
from .views import to_input

_BATCH = 32


def train_linear_probe(
    model: PreTrainedModel, images: DecodedImages, decay: float = 1e-4, iterations: int = 100
) -> None:
    """Fits a classifier's last linear layer by logistic regression (L-BFGS); all else stays as it is.

    Kumar et al. (ICLR 2022, LP-FT) fine-tune from there, and Wortsman et al. (CVPR 2022, WiSE-FT) average both ends.

    Args:
        model: to change in place; its features are those of eval mode.
        images: to train on.
        decay: of the squared weights, as `weight_decay` counts it.
        iterations: at most so many.
    """
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    features, labels = _inputs_of(head, model, images), images.labels.to(model.device)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=iterations, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = cross_entropy(head(features), labels) + decay / 2 * head.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    model.zero_grad()


def _inputs_of(head: nn.Linear, model: PreTrainedModel, images: DecodedImages) -> Tensor:
    """What the head sees of all images, (N, C)."""
    features: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    with hook, evaluating(model), torch.no_grad():
        for start in range(0, len(images), _BATCH):
            model(to_input(images.pixels[start : start + _BATCH]).to(model.device))
    return torch.cat(features)
