"""Models to evaluate: AdvBN checkpoints with both branches, and any other image classifier."""

from dataclasses import dataclass, replace
from pathlib import Path

from transformers import BaseImageProcessor, PreTrainedModel
from transformers.utils import cached_file

from ..backbones.checks import check_single_label
from ..backbones.loading import class_names_of, load_classifier, load_processor
from ..config import CONFIG_FILE, AdvBNConfig
from ..errors import InputError
from ..modeling import AdvBNForImageClassification
from ..utils.fingerprint import hash_settings, hash_tensors

Model = str | Path | PreTrainedModel | AdvBNForImageClassification  # a Hub id, a folder, or an instance


@dataclass(frozen=True)
class EvaluatedModel:
    """A model with all that its evaluation needs.

    Args:
        name: the records' `model`.
        model: a plain classifier, or one with two branches.
        processor: its image processor.

    Raises:
        InputError: it is a multi-label or a regression model.
    """

    name: str
    model: PreTrainedModel | AdvBNForImageClassification
    processor: BaseImageProcessor

    def __post_init__(self) -> None:
        check_single_label(self.model.config)

    @property
    def class_names(self) -> list[str]:
        """The model's classes in the order of its logits."""
        return class_names_of(self.model)

    def fingerprint(self) -> str:
        """The digest of its class, weights and processor: another one after any training."""
        tensors = hash_tensors(self.model.state_dict())
        return hash_settings([type(self.model).__name__, tensors, self.processor.to_dict()])


def evaluated_models(
    model: Model,
    baseline: Model | None = None,
    *,
    processor: BaseImageProcessor | None = None,
    revision: str | None = None,
    name: str | None = None,
    baseline_processor: BaseImageProcessor | None = None,
    baseline_revision: str | None = None,
) -> list[EvaluatedModel]:
    """A model and the one to compare it with, loaded if need be; the arguments are those of `evaluate_suite`.

    Raises:
        InputError: there is no such model, or no image processor.
    """
    evaluated = [_evaluated(model, processor, name, revision, "processor")]
    if baseline is None:
        return evaluated
    if evaluated[0].name == "baseline":  # a folder of that name
        evaluated[0] = replace(evaluated[0], name="model")
    if not isinstance(baseline, str | Path):
        baseline_processor = baseline_processor or processor
    return [*evaluated, _evaluated(baseline, baseline_processor, "baseline", baseline_revision, "baseline_processor")]


def _evaluated(
    model: Model, processor: BaseImageProcessor | None, name: str | None, revision: str | None, field: str
) -> EvaluatedModel:
    if isinstance(model, str | Path):
        return load_evaluated_model(str(model), name, revision, processor)
    if processor is None:
        raise InputError(f"{field}: give the image processor of the model, which is an instance")
    branched = isinstance(model, AdvBNForImageClassification) and model.advbn_config.auxiliary_norms
    return EvaluatedModel(name or ("advbn" if branched else "model"), model, processor)


def load_evaluated_model(
    name_or_path: str,
    name: str | None = None,
    revision: str | None = None,
    processor: BaseImageProcessor | None = None,
) -> EvaluatedModel:
    """Loads a model for its evaluation.

    Args:
        name_or_path: Hub id or folder.
        name: the records' `model`; by default "advbn" with two branches, else the last part of the id or folder.
        revision: branch, tag or commit on the Hub.
        processor: its image processor; by default the checkpoint's own.

    Returns:
        Both branches where the checkpoint has them, else the plain classifier.

    Raises:
        InputError: there is no such model, or it has no image processor.
    """
    hub = {} if revision is None else {"revision": revision}
    branched = _has_branches(name_or_path, hub)
    load = AdvBNForImageClassification.from_pretrained if branched else load_classifier
    plain_name = Path(name_or_path).resolve().name if Path(name_or_path).is_dir() else name_or_path.split("/")[-1]
    model = load(name_or_path, **hub)
    return EvaluatedModel(
        name or ("advbn" if branched else plain_name), model, processor or load_processor(name_or_path, **hub)
    )


def _has_branches(name: str, hub: dict[str, str]) -> bool:
    """Whether a checkpoint has two; that of a baseline has a config too, but one without auxiliary norms."""
    try:
        cached_file(name, CONFIG_FILE, **hub)
    except OSError:
        return False
    return AdvBNConfig.from_pretrained(name, **hub).auxiliary_norms
