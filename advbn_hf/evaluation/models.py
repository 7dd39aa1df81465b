"""Models to evaluate: AdvBN checkpoints with both branches, and any other image classifier."""

from dataclasses import dataclass
from pathlib import Path

from transformers import BaseImageProcessor, PreTrainedModel
from transformers.utils import cached_file

from ..backbones.loading import class_names_of, load_classifier, load_processor
from ..config import CONFIG_FILE, AdvBNConfig
from ..modeling import AdvBNForImageClassification
from ..utils.fingerprint import hash_settings, hash_tensors


@dataclass(frozen=True)
class EvaluatedModel:
    """A model with what its evaluation needs.

    Args:
        name: the records' `model`.
        model: a plain classifier, or one with two branches.
        processor: its image processor.
    """

    name: str
    model: PreTrainedModel | AdvBNForImageClassification
    processor: BaseImageProcessor

    @property
    def class_names(self) -> list[str]:
        """The model's classes in the order of its logits."""
        return class_names_of(self.model)

    def fingerprint(self) -> str:
        """The digest of its class, weights and processor: another one after any training."""
        tensors = hash_tensors(self.model.state_dict())
        return hash_settings([type(self.model).__name__, tensors, self.processor.to_dict()])


def load_evaluated_model(name_or_path: str, name: str | None = None, revision: str | None = None) -> EvaluatedModel:
    """Loads a model for its evaluation.

    Args:
        name_or_path: Hub id or folder.
        name: the records' `model`; by default "advbn" where there are two branches, else the last part of the name.
        revision: branch, tag or commit on the Hub.

    Returns:
        Both branches where the checkpoint has them, else the plain classifier.

    Raises:
        InputError: there is no such model, or it has no image processor.
    """
    hub = {} if revision is None else {"revision": revision}
    branched = _has_branches(name_or_path, hub)
    load = AdvBNForImageClassification.from_pretrained if branched else load_classifier
    plain_name = Path(name_or_path).resolve().name if Path(name_or_path).is_dir() else name_or_path.split("/")[-1]
    return EvaluatedModel(
        name or ("advbn" if branched else plain_name), load(name_or_path, **hub), load_processor(name_or_path, **hub)
    )


def _has_branches(name: str, hub: dict[str, str]) -> bool:
    """A baseline's checkpoint has a config too, but one that says that its branches are the same."""
    try:
        cached_file(name, CONFIG_FILE, **hub)
    except OSError:
        return False
    return AdvBNConfig.from_pretrained(name, **hub).auxiliary_norms
