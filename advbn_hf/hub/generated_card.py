"""Cards that are written where nobody has written one, and replaced only while nobody has edited them.

Such a card ends with a comment that holds the hash of what comes before. A card without it, or with another hash, is
somebody's work: it stays, here and on the Hub.
"""

import dataclasses
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from huggingface_hub import EvalResult

from ..errors import InputError
from ..utils.tables import align_markdown
from ..utils.versions import installed_versions
from .card import NO_BASELINE, ONE_RUN, TASK, base_of, eval_result, fill_template, public
from .metadata import LOCAL_FOLDER, is_on_hub, validate_metadata

_STAMP = "\n<!-- advbn_hf wrote this card and replaces it at the next save unless it is edited. sha256: {} -->\n"
_STAMPED = re.compile("(.*\n)" + re.escape(_STAMP).replace(r"\{\}", "([0-9a-f]{64})"), flags=re.DOTALL)
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]+)*")


class Metric(NamedTuple):
    """One number that a trainer has measured.

    Args:
        set: which set it was measured on, as the log names it, for example "eval".
        name: the metric, for example "accuracy".
        branch: "clean" or "auxiliary".
        value: the number.
    """

    set: str
    name: str
    branch: str
    value: float


@dataclass(frozen=True)
class Evaluation:
    """The last evaluation of a run.

    Args:
        metrics: what was measured.
        step: after how many steps.
        of_these_weights: whether the weights that the card describes were measured.
    """

    metrics: Sequence[Metric]
    step: int
    of_these_weights: bool


@dataclass(frozen=True)
class CardArguments:
    """What only a person knows of a model: the arguments of `Trainer.create_model_card`.

    Args:
        language: code of a language, or several.
        license: the Hub's identifier of a licence, for example "apache-2.0".
        tags: further tags.
        model_name: title of the card.
        finetuned_from: Hub id or folder of the model that was fine-tuned.
        tasks: "image-classification".
        dataset_tags: Hub ids of the datasets.
        dataset: names of the datasets, by default their ids.
        dataset_args: the configuration of each dataset.

    Raises:
        InputError: an argument would make an invalid card.
    """

    language: str | Sequence[str] | None = None
    license: str | None = None
    tags: str | Sequence[str] | None = None
    model_name: str | None = None
    finetuned_from: str | None = None
    tasks: str | Sequence[str] | None = None
    dataset_tags: str | Sequence[str] | None = None
    dataset: str | Sequence[str] | None = None
    dataset_args: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            single = name in ("license", "model_name", "finetuned_from")
            if not isinstance(value, str | None) and (single or not _is_texts(value)):
                raise InputError(f"{name}: must be text{'' if single else ' or a list of texts'}, got {value!r}")
        for task in _listed(self.tasks):
            if task != TASK:
                raise InputError(f"tasks: the model is for {TASK} alone, not {task!r}; leave tasks out")
        for code in _listed(self.language):
            if not _LANGUAGE.fullmatch(code):
                raise InputError(f"language: {code!r} is no language code such as en")
        names, configs = _listed(self.dataset) or _listed(self.dataset_tags), _listed(self.dataset_args)
        if configs and len(configs) != len(names):
            raise InputError(f"dataset_args: there are {len(configs)} for {len(names)} datasets; give one for each")
        given = {"license": self.license, "tags": _listed(self.tags), "datasets": _listed(self.dataset_tags)}
        given |= {"dataset": names, "model_name": self.model_name, "finetuned_from": self.finetuned_from}
        validate_metadata({name: value for name, value in given.items() if value is not None})

    @property
    def datasets(self) -> dict[str, str | None]:
        """The datasets with their configurations."""
        names = _listed(self.dataset) or _listed(self.dataset_tags)
        return dict(zip(names, _listed(self.dataset_args) or [None] * len(names), strict=True))

    def over(self, earlier: Self) -> Self:
        """These arguments, and the earlier ones where these are None."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        return dataclasses.replace(earlier, **given)


def generated_card(
    model_name: str,
    advbn_config: Mapping[str, Any],
    *,
    base_model: str | None = None,
    training: Mapping[str, Any] | None = None,
    evaluation: Evaluation | None = None,
    given: CardArguments | None = None,
    has_processor: bool = True,
    repo_id: str | None = None,
) -> str:
    """Renders the card of a checkpoint from what is known of it.

    Args:
        model_name: title of the card, where none is given.
        advbn_config: `AdvBNConfig.to_dict()`.
        base_model: Hub id of the model that was fine-tuned, where none is given.
        training: training arguments to list; None if the model was not trained here.
        evaluation: what was measured.
        given: what a person says.
        has_processor: whether an image processor is saved beside the model.
        repo_id: where the model will be on the Hub. The card names `path/to/this/folder` until it is uploaded.

    Returns:
        The text of README.md.
    """
    given = given or CardArguments()
    card = fill_template(
        model_name=given.model_name or model_name,
        base_model=base_of(given.finetuned_from or base_model, repo_id),
        datasets=given.datasets,
        advbn_config=advbn_config,
        training=training,
        versions=installed_versions(),
        limits=_limits(training, evaluation, has_processor),
        results_table=_results_table(evaluation) if evaluation else "",
        eval_results=_eval_results(evaluation, given),
        license=given.license,
        language=_listed(given.language),
        tags=_listed(given.tags),
        dataset_ids=_listed(given.dataset_tags),
    )
    return _stamped(str(card))


def is_generated(card: str | bytes) -> bool:
    """Whether the content of a README.md is as `generated_card` or `addressed` returned it."""
    text = card.decode("utf-8", errors="replace") if isinstance(card, bytes) else card
    match = _STAMPED.fullmatch(text.replace("\r\n", "\n"))  # git on Windows changes the ends of lines
    return match is not None and match[2] == _hash(match[1])


def may_replace(path: Path) -> bool:
    """Whether a generated card may be written to a path: there is none, or it is one that nobody has edited."""
    return not path.exists() or (path.is_file() and is_generated(path.read_bytes()))


def addressed(card: str, repo_id: str) -> str:
    """A card with the repository in place of `path/to/this/folder`; a generated one stays one that nobody has edited.

    Args:
        card: content of README.md.
        repo_id: where it is uploaded to.
    """
    card_is_generated = is_generated(card)
    card = card.replace(LOCAL_FOLDER, repo_id)
    return _stamped(_STAMPED.fullmatch(card.replace("\r\n", "\n"))[1]) if card_is_generated else card


def _stamped(card: str) -> str:
    card = card.rstrip("\n") + "\n"
    return card + _STAMP.format(_hash(card))


def _hash(card: str) -> str:
    return hashlib.sha256(card.encode("utf-8")).hexdigest()


def _is_texts(value: object) -> bool:
    return isinstance(value, Sequence) and all(isinstance(entry, str) for entry in value)


def _listed(value: str | Sequence[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _results_table(evaluation: Evaluation) -> str:
    branches = list(dict.fromkeys(metric.branch for metric in evaluation.metrics))
    values = {(public(metric.set), public(metric.name), metric.branch): metric.value for metric in evaluation.metrics}
    rows = dict.fromkeys((set_name, name) for set_name, name, _ in values)
    grid = [["set and metric", *(f"{branch} branch" for branch in branches)]]
    for set_name, name in rows:
        cells = [values.get((set_name, name, branch)) for branch in branches]
        grid.append([f"{set_name}: {name}", *("" if value is None else f"{value:.4g}" for value in cells)])
    return f"{align_markdown(grid)}\n\nThe trainer's evaluation after step {evaluation.step}."


def _eval_results(evaluation: Evaluation | None, given: CardArguments) -> list[EvalResult]:
    """For the metadata: what was measured of these weights, where it is known on which dataset."""
    names = _listed(given.dataset_tags) or list(filter(is_on_hub, given.datasets))
    if evaluation is None or not evaluation.of_these_weights or len(names) != 1:
        return []
    return [
        eval_result(names[0], public(metric.set), public(metric.name), metric.branch, metric.value)
        for metric in evaluation.metrics
        if math.isfinite(metric.value)
    ]


def _limits(training: Mapping[str, Any] | None, evaluation: Evaluation | None, has_processor: bool) -> list[str]:
    """What the card does not say."""
    limits = []
    if training is None:
        limits.append("How it was trained is not recorded here.")
    if evaluation is None:
        limits.append("Its accuracy is not recorded here.")
    else:
        if not evaluation.of_these_weights:
            limits.append("It was trained further after this evaluation: the weights here were not measured.")
        limits += ["Measured on the trainer's evaluation data, and on nothing else.", ONE_RUN, NO_BASELINE]
    if not has_processor:
        limits.append("No image processor was saved with it: the code above needs that of its training.")
    return limits
