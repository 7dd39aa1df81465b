"""What training steps and evaluations add to the log: losses and accuracies of each branch, and of the ascent."""

from collections import defaultdict
from collections.abc import Callable

from accelerate import Accelerator
from torch import Tensor
from transformers import EvalPrediction, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy

from ..backbones.norms import BRANCHES
from ..method.losses import AdvBNOutput

Metrics = Callable[[EvalPrediction], dict[str, float]]

_LOGGED = (
    "clean_loss",
    "adversarial_loss",
    "ascent_gain",
    "loss_before_ascent",
    "loss_after_ascent",
    "mean_distance",
    "std_distance",
)


class StepLog:
    """Sums what training steps return, on the device, until it is logged."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor | float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def note(self, output: AdvBNOutput, labels: Tensor) -> None:
        """Adds one step.

        Args:
            output: of the model in train mode.
            labels: (B,) int64.
        """
        values = {name: getattr(output, name) for name in _LOGGED}
        values["clean_accuracy"] = _accuracy_of(output.logits, labels, output.clean_rows)
        values["auxiliary_accuracy"] = _accuracy_of(output.auxiliary_logits, labels, output.adversarial_rows)
        for name, value in values.items():
            if value is not None:
                self._sums[name] = self._sums[name] + value.detach()
                self._counts[name] += 1

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """The means over steps and processes since the last call."""
        means = {name: accelerator.gather(total / self._counts[name]).mean() for name, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        return {name: round(mean.item(), 6) for name, mean in means.items()}


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Share of samples whose largest logit is the label's; the default `compute_metrics`."""
    return {"accuracy": float((prediction.predictions.argmax(axis=-1) == prediction.label_ids).mean())}


def metrics_of_each_branch(compute_metrics: Metrics) -> Metrics:
    """Metrics of both branches: `clean_accuracy` and `auxiliary_accuracy` for `accuracy`.

    Args:
        compute_metrics: takes the predictions (N, K) of one branch and the labels (N,).

    Returns:
        A function that takes the predictions of both branches, a pair of (N, K).
    """

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        metrics = {}
        for branch, logits in zip(BRANCHES, prediction.predictions, strict=True):
            of_branch = EvalPrediction(
                logits, prediction.label_ids, inputs=prediction.inputs, losses=prediction.losses
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


def ascent_is_logged(args: TrainingArguments, state: TrainerState) -> bool:
    """Whether the current step is one that the Trainer logs, or the first of an epoch where it logs epochs."""
    step = state.global_step + 1
    if args.logging_strategy == IntervalStrategy.EPOCH:
        return (state.epoch or 0) % 1 == 0
    every = args.logging_strategy == IntervalStrategy.STEPS and step % state.logging_steps == 0
    return every or (args.logging_first_step and step == 1)


def _accuracy_of(logits: Tensor | None, labels: Tensor, rows: Tensor | None) -> Tensor | None:
    if logits is None:
        return None
    return (logits.argmax(dim=-1) == (labels if rows is None else labels[rows])).float().mean()
