"""The model card of a run, from its arguments and its log."""

from pathlib import Path
from typing import Any

from transformers import TrainerState
from transformers.utils import logging

from ..backbones.norms import BRANCHES
from ..errors import InputError
from ..hub.card import CARD_FILE
from ..hub.generated_card import CardArguments, Evaluation, Metric, generated_card, may_replace
from ..utils.files import write_atomically
from .arguments import reported_arguments
from .checkpoints import CheckpointMixin

logger = logging.get_logger(__name__)


class CardMixin(CheckpointMixin):
    """Writes the card of a run; it never replaces one that a person wrote."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Writes README.md from what is known, unless somebody has written or edited the one that is there.

        `save_model` does the same, also with what was given here.

        Args:
            args: as for `Trainer.create_model_card`; see `CardArguments`.
            kwargs: likewise.

        Raises:
            InputError: if an argument would make an invalid card, or the model has none.
        """
        self.card_arguments = CardArguments(*args, **kwargs).over(self.card_arguments)
        if not self.unwrapped.has_card:
            raise InputError(
                f"create_model_card: {type(self.unwrapped).__name__} has no card; leave its arguments out"
            )
        path = Path(self.args.output_dir) / CARD_FILE
        if not self.is_world_process_zero():
            return
        if may_replace(path):
            write_atomically(path, card_of_run(self))
        else:
            logger.warning(f"{path} was written or edited by somebody, and stays")


def card_of_run(run: CheckpointMixin) -> str:
    """Renders the card of the weights that a trainer holds."""
    args, state, model = run.args, run.state, run.unwrapped
    step = state.global_step if run.best_loaded_at is None else state.best_global_step
    return generated_card(
        (args.hub_model_id or Path(args.output_dir).resolve().name).split("/")[-1],
        model.advbn_config.to_dict(),
        base_model=model.finetuned_from,
        training=reported_arguments(args) | {"steps": step} if step else None,
        evaluation=last_evaluation(state, run.best_loaded_at),
        given=run.card_arguments,
        has_processor=run.processing_class is not None,
        repo_id=run.hub_model_id,
    )


def last_evaluation(state: TrainerState, best_loaded_at: int | None = None) -> Evaluation | None:
    """The last evaluation of the weights that a Trainer holds; of earlier ones where these were not evaluated.

    Args:
        state: of the run.
        best_loaded_at: length of the log when the weights of the best step were loaded; None if they were not.

    Returns:
        The metrics of both branches of each set that was evaluated after the same step; None if there are none.
    """
    evaluations = [
        (place, log["step"], metrics) for place, log in enumerate(state.log_history) if (metrics := _metrics_of(log))
    ]
    if best_loaded_at is not None:
        later = [entry for entry in evaluations if entry[0] >= best_loaded_at]
        evaluations = later or [entry for entry in evaluations if entry[1] == state.best_global_step]
        of_these_weights = True
    else:
        of_these_weights = bool(evaluations) and evaluations[-1][1] == state.global_step
    if not evaluations:
        return None
    step = evaluations[-1][1]
    latest = {metric[:3]: metric for _, at, metrics in evaluations if at == step for metric in metrics}
    measured_at = state.best_global_step if best_loaded_at is not None else step
    return Evaluation(list(latest.values()), measured_at, of_these_weights)


def _metrics_of(log: dict[str, float]) -> list[Metric]:
    """What an entry of the log says of both branches; a training's entries and speeds say nothing."""
    metrics = []
    # `evaluate` logs its own duration too, by which its prefix is known whatever a set or metric is called.
    for prefix in [name.removesuffix("_runtime") for name in log if name.endswith("_runtime")]:
        for name, value in log.items():
            rest = name.removeprefix(f"{prefix}_")
            if rest == name or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if rest == "loss" and prefix != "train":
                metrics.append(Metric(prefix, "loss", "clean", value))  # as `AdvBNTrainer` evaluates it
            for branch in BRANCHES:
                if rest.startswith(f"{branch}_"):
                    metrics.append(Metric(prefix, rest.removeprefix(f"{branch}_"), branch, value))
    return metrics
