"""Model cards from `model_cards/template.md`: its metadata, and how names and settings get into its text."""

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..errors import InputError
from ..utils.files import shipped
from ..utils.tables import escape_markdown
from .metadata import LOCAL_FOLDER, TOKEN, is_on_hub, is_repo_id, validate_metadata

CARD_FILE = "README.md"
TASK = "image-classification"
TAGS = ["advbn", "robustness", "adversarial-training", TASK]
ONE_RUN = "All numbers are of one training run; how far another seed would differ was not measured."
NO_BASELINE = "No baseline was measured beside it, so nothing here says what AdvBN gained."
# The folders of an absolute path, up to its last part; URLs and relative paths do not match.
_ABSOLUTE_FOLDERS = re.compile(r"(?:file://|(?<![\w:/.~-]))(?:/|[A-Za-z]:[\\/])(?:[^\\/\"',]+[\\/])*")


def fill_template(
    *,
    model_name: str,
    base_model: str | None,
    datasets: Mapping[str, str | None],
    advbn_config: Mapping[str, Any],
    training: Mapping[str, Any] | None,
    versions: Mapping[str, str],
    limits: Sequence[str],
    results_table: str = "",
    eval_results: Sequence[EvalResult] = (),
    compared: Collection[str] = (),
    command: Sequence[str] = (),
    images: Collection[str] = (),
    license: str | None = None,
    language: Sequence[str] = (),
    tags: Sequence[str] = (),
    dataset_ids: Sequence[str] = (),
    repo_id: str | None = None,
) -> ModelCard:
    """Fills the template. Nothing appears that is not among the arguments.

    Absolute paths are cut to their last part and Hub tokens blotted out; names are escaped.

    Args:
        model_name: title of the card.
        base_model: Hub id or folder of the model that was fine-tuned, or a few words; None if it is not known. It
            becomes metadata where it is a Hub id (`namespace/name`, and no folder here).
        datasets: the same for each dataset that it was trained on, with its configuration or None.
        advbn_config: `AdvBNConfig.to_dict()`.
        training: training arguments to list, without those that are None and tokens; None if it is not known whether
            the model was trained.
        versions: package -> version, see `utils.versions.installed_versions`.
        limits: lines in Markdown.
        results_table: in Markdown.
        eval_results: measurements, for the metadata.
        compared: "base" and "baseline", where the table has them.
        command: the command line that made the model, one argument an entry.
        images: those of "results.png", "samples.png" and "training.png" that lie beside the card.
        license: the Hub's identifier of a licence, for example "apache-2.0".
        language: codes of languages.
        tags: further tags.
        dataset_ids: further ids of datasets for the metadata.
        repo_id: where the model will be on the Hub, for the code that loads it.

    Raises:
        InputError: an argument would make invalid metadata.
    """
    if repo_id is not None and not is_repo_id(repo_id):
        raise InputError(f"repo_id: {repo_id!r} is no Hub id; give one like me/my-model")
    metadata = ModelCardData(
        base_model=base_model if is_on_hub(base_model) else None,
        datasets=list(dict.fromkeys([*dataset_ids, *filter(is_on_hub, datasets)])) or None,
        language=list(language) or None,
        library_name="transformers",
        license=license,
        metrics=list(dict.fromkeys(result.metric_type for result in eval_results)) or None,
        # Without results the client would leave the name behind as a field of its own.
        model_name=public(model_name) if eval_results else None,
        pipeline_tag=TASK,
        tags=list(dict.fromkeys([*TAGS, *tags])),
        eval_results=list(eval_results) or None,
    )
    validate_metadata(metadata.to_dict())
    return ModelCard.from_template(
        metadata,
        template_path=shipped("model_cards/template.md"),
        title=text(model_name),
        base=_reference(base_model, "") if base_model else "An image classifier",
        trained=training is not None,
        data=_joined(_reference(name, "datasets/", config) for name, config in datasets.items()),
        two_branches=advbn_config.get("auxiliary_norms", True),
        location=repo_id or LOCAL_FOLDER,
        results_table=results_table,
        compared=compared,
        limits=limits,
        images=images,
        settings={"AdvBN": _settings(advbn_config), "Training": _settings(training or {})},
        command=shlex.join(map(public, command)),
        versions=", ".join(f"{text(name)} {text(version)}" for name, version in versions.items()),
    )


def eval_result(dataset: str, set_name: str, metric: str, branch: str | None, value: float) -> EvalResult:
    """One measurement for a card's metadata.

    Args:
        dataset: Hub id, folder or name.
        set_name: which of its sets was measured; the Hub groups results by dataset and set.
        metric: its name.
        branch: "clean" or "auxiliary"; None for a model without branches.
        value: a finite number.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", _name(dataset).lower()).strip("-") or "unnamed"
    return EvalResult(
        task_type=TASK,
        task_name="Image Classification",
        dataset_type=dataset if is_on_hub(dataset) else slug,
        dataset_name=f"{_name(dataset)}: {set_name}",
        dataset_config=set_name,
        metric_type=metric,
        metric_name=f"{metric} ({branch} branch)" if branch else metric,
        metric_value=value,
    )


def base_of(base_model: str | None, repo_id: str | None) -> str | None:
    """The model that was fine-tuned, unless it is the repository itself, of which an earlier commit was."""
    is_itself = base_model is not None and repo_id is not None and base_model.lower() == repo_id.lower()
    return None if is_itself else base_model


def text(value: str) -> str:
    """A name as it may stand within a line of Markdown."""
    return escape_markdown(public(value))


def public(value: str) -> str:
    """A name on one line, without folders of this machine and tokens."""
    return TOKEN.sub("***", _ABSOLUTE_FOLDERS.sub("", " ".join(value.split())))


def _joined(names: Any) -> str:
    """Names as in "a, b and c"; empty without any."""
    *first, last = [*names] or [""]
    return f"{', '.join(first)} and {last}" if first else last


def _settings(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    kept = {key: value for key, value in settings.items() if value is not None and "token" not in key}
    return [(text(key), text(_value(value))) for key, value in kept.items()]


def _value(value: Any) -> str:
    """A setting as one writes it on a command line."""
    value = value.value if isinstance(value, Enum) else value
    return str(value).lower() if isinstance(value, bool) else str(value)


def _reference(name: str, kind: str, config: str | None = None) -> str:
    link = f"[{text(name)}](https://huggingface.co/{kind}{name})" if is_on_hub(name) else text(_name(name))
    return f"{link} ({text(config)})" if config else link


def _name(name: str) -> str:
    """A folder by its name alone, anything else as it is."""
    return Path(name).resolve().name if Path(name).is_dir() else public(name)
