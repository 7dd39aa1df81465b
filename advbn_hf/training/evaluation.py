"""Evaluation of both branches by the hooks of `Trainer`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch.distributed as dist
from torch import Tensor
from transformers import EvalPrediction, Trainer
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging

from ..backbones.norms import BRANCHES, Branch
from .strength import advice_on_strength

logger = logging.get_logger(__name__)

_LOGITS = dict(zip(BRANCHES, ("logits", "auxiliary_logits"), strict=True))  # their names in a model's output
Metrics = Callable[[EvalPrediction], dict[str, float]]


class EvaluationMixin(Trainer):
    """Has metrics computed for each branch, with the same running statistics on every process."""

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Runs the stem once and both tails, and calls `compute_metrics` for each branch that is not ignored."""
        self._share_statistics()
        compute_metrics = self.compute_metrics
        branches = [branch for branch, key in _LOGITS.items() if key not in (ignore_keys or ())]
        self.compute_metrics = compute_metrics and metrics_of_each_branch(compute_metrics, branches)
        prediction_loss_only = True if not branches else prediction_loss_only
        try:
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
        finally:
            self.compute_metrics = compute_metrics
        self._warn_of_strength(output.metrics, metric_key_prefix)
        return output._replace(predictions=_of_branch(output.predictions, 0))

    def _warn_of_strength(self, metrics: dict[str, float], prefix: str) -> None:
        """Says that the perturbation was too strong, once the model is trained."""
        accuracies = [metrics.get(f"{prefix}_{branch}_accuracy") for branch in BRANCHES]
        training = self.is_in_train and self.state.global_step < self.state.max_steps
        if training or None in accuracies or not self.is_world_process_zero():
            return
        advice = advice_on_strength(*accuracies, self.accelerator.unwrap_model(self.model).advbn_config)
        if advice is not None:
            logger.warning(advice)

    def _share_statistics(self) -> None:
        """Copies the first process's running statistics, which are saved, to all: each has seen its own images."""
        if self.args.world_size > 1:
            for buffer in self.accelerator.unwrap_model(self.model).buffers():
                dist.broadcast(buffer, src=0)


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Share of samples whose largest logit is the label's, or the likeliest one's; the default `compute_metrics`."""
    logits, labels = (
        np.concatenate(array) if isinstance(array, list) else array  # batches, with `eval_do_concat_batches` off
        for array in (prediction.predictions, prediction.label_ids)
    )
    labels = labels if labels.ndim == 1 else labels.argmax(axis=-1)
    return {"accuracy": float((logits.argmax(axis=-1) == labels).mean())}


def _of_branch(predictions: Any, place: int) -> Any:
    """The predictions of the branch at a place, from those of all: a tuple, an array of one, or a list of batches."""
    if isinstance(predictions, list):
        return [_of_branch(batch, place) for batch in predictions]
    return predictions[place] if isinstance(predictions, tuple) else predictions


def metrics_of_each_branch(compute_metrics: Metrics, branches: Sequence[Branch] = BRANCHES) -> Metrics:
    """Metrics of both branches: `clean_accuracy` and `auxiliary_accuracy` for `accuracy`.

    Args:
        compute_metrics: takes the predictions (N, K) of one branch and the labels (N,).
        branches: whose predictions there are.

    Returns:
        A function that takes the predictions of the branches, a tuple of (N, K), or those of the first alone; of each
        batch, in a list, with `eval_do_concat_batches` off.
    """

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        metrics = {}
        predictions = prediction.predictions
        one = predictions[0] if isinstance(predictions, list) else predictions
        there = len(one) if isinstance(one, tuple) else 1
        for place, branch in enumerate(branches[:there]):
            of_branch = EvalPrediction(
                _of_branch(predictions, place),
                prediction.label_ids,
                inputs=prediction.inputs,
                losses=prediction.losses,
            )
            metrics |= {f"{branch}_{name}": value for name, value in compute_metrics(of_branch).items()}
        return metrics

    return compute


def preprocess_each_branch(preprocess: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., tuple[Tensor, ...]]:
    """Applies `preprocess_logits_for_metrics` to the logits of each branch.

    Args:
        preprocess: takes logits (B, K) and labels (B,).

    Returns:
        A function that takes the logits of both branches, or of one where there are no labels.
    """

    def preprocess_all(logits: Tensor | tuple[Tensor, ...], labels: Tensor) -> tuple[Tensor, ...]:
        branches = logits if isinstance(logits, tuple) else (logits,)
        return tuple(preprocess(branch, labels) for branch in branches)

    return preprocess_all
