"""The model card: measured results, and how the model was made, from `model_cards/template.md`."""

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..errors import InputError
from ..evaluation.records import P_VALUE, Record
from ..hub.metadata import LOCAL_FOLDER, TOKEN, is_on_hub, is_repo_id, validate_metadata
from ..utils.files import shipped, write_atomically
from ..utils.tables import escape_markdown
from .accuracy_table import Row, Table, comparison_table, renamed, set_label, to_markdown

TASK = "image-classification"
TAGS = ["advbn", "robustness", "adversarial-training", TASK]
# The folders of an absolute path, up to its last part; URLs and relative paths do not match.
ABSOLUTE_FOLDERS = re.compile(r"(?:file://|(?<![\w:/.~-]))(?:/|[A-Za-z]:[\\/])(?:[^\\/\"',]+[\\/])*")


def render_card(
    records: Iterable[Record],
    *,
    model_name: str,
    base_model: str | None,
    dataset: str,
    advbn_config: Mapping[str, Any],
    training: Mapping[str, Any],
    command: Sequence[str],
    versions: Mapping[str, str],
    table: Table | None = None,
    images: Collection[str] = (),
    license: str | None = None,
    repo_id: str | None = None,
) -> ModelCard:
    """Renders the card of a fine-tuned checkpoint. Nothing appears that is not among the arguments.

    Absolute paths are cut to their last part and Hub tokens blotted out; names are escaped.

    Args:
        records: what was measured; "advbn" is this model.
        model_name: title of the card.
        base_model: Hub id or folder of the model that was fine-tuned, or a few words; None if there is nothing to say.
            It becomes metadata where it is a Hub id (`namespace/name`, and no folder here).
        dataset: the same for the dataset.
        advbn_config: `AdvBNConfig.to_dict()`.
        training: training arguments worth telling; None values and tokens are left out.
        command: the command line that made the model, one argument an entry.
        versions: package -> version, see `utils.versions.installed_versions`.
        table: the comparison of the same records; by default one without a mean over sets.
        images: those of "results.png", "samples.png" and "training.png" that lie beside the card.
        license: the Hub's identifier of a licence, for example "apache-2.0".
        repo_id: where the model will be on the Hub, for the code that loads it.

    Returns:
        The card; `save_card` writes it.

    Raises:
        InputError: an argument would make invalid metadata, or the records contradict each other.
    """
    records = [replace(record, model=_public(record.model), set=_public(record.set)) for record in records]
    table = renamed(table, _public) if table else comparison_table(records)
    metadata = _metadata(records, _public(model_name), base_model, dataset, license)
    validate_metadata(metadata.to_dict())
    if repo_id is not None and not is_repo_id(repo_id):
        raise InputError(f"repo_id: {repo_id!r} is no Hub id; give one like me/my-model")
    return ModelCard.from_template(
        metadata,
        template_path=shipped("model_cards/template.md"),
        title=_text(model_name),
        base=_reference(base_model, "") if base_model else "An image classifier",
        data=_reference(dataset, "datasets/"),
        location=repo_id or LOCAL_FOLDER,
        results_table=to_markdown(table) if table.rows else "",
        compared={column.model for column in table.columns},
        limits=_limits(table),
        images=images,
        settings={"AdvBN": _settings(advbn_config), "Training": _settings(training)},
        command=shlex.join(map(_public, command)),
        versions=", ".join(f"{_text(name)} {_text(version)}" for name, version in versions.items()),
    )


def save_card(card: ModelCard, folder: str | Path) -> None:
    """Writes a card as README.md, whole.

    Args:
        card: from `render_card`.
        folder: the folder of the checkpoint; it must exist.
    """
    write_atomically(Path(folder) / "README.md", str(card))


def _metadata(
    records: list[Record], model_name: str, base_model: str | None, dataset: str, license: str | None
) -> ModelCardData:
    measured = [record for record in records if record.model == "advbn" and record.metric != P_VALUE]
    return ModelCardData(
        base_model=base_model if is_on_hub(base_model) else None,
        datasets=[dataset] if is_on_hub(dataset) else None,
        library_name="transformers",
        license=license,
        metrics=list(dict.fromkeys(record.metric for record in measured)) or None,
        # Without results the client would leave the name behind as a field of its own.
        model_name=model_name if measured else None,
        pipeline_tag=TASK,
        tags=TAGS,
        eval_results=[_eval_result(record, dataset) for record in measured] or None,
    )


def _eval_result(record: Record, dataset: str) -> EvalResult:
    branch = f" ({record.branch} branch)" if record.branch else ""
    slug = re.sub(r"[^a-z0-9]+", "-", _name(dataset).lower()).strip("-") or "unnamed"
    return EvalResult(
        task_type=TASK,
        task_name="Image Classification",
        dataset_type=dataset if is_on_hub(dataset) else slug,
        dataset_name=f"{_name(dataset)}: {set_label(record)}",
        dataset_config=set_label(record),  # the Hub groups by type and config: one entry a set
        metric_type=record.metric,
        metric_name=f"{record.metric}{branch}",
        metric_value=record.value,
    )


def _limits(table: Table) -> list[str]:
    """What the measurements say against the model, and what they cannot say."""
    rows = [row for row in table.rows if not row.mean_over and any(c.model == "advbn" for c in row.cells)]
    if not rows:
        return ["Its accuracy was not measured."]
    limits = [
        f"Measured on {', '.join(_text(row.name) for row in rows)}, and on nothing else.",
        "All numbers are of one training run; how far another seed would differ was not measured.",
        _lowest(rows),
    ]
    if not any(row.baseline for row in rows):
        limits.append("No baseline was measured beside it, so nothing here says what AdvBN gained.")
    lost, close = _without_gain(rows)
    if lost:
        limits.append(f"No gain over the baseline on {', '.join(lost)} (points).")
    if close:
        limits.append(f"A gain that the 95 % intervals cannot tell from none on {', '.join(close)} (points).")
    return limits + _branches_apart(rows)


def _lowest(rows: list[Row]) -> str:
    accuracies = [(cell.value, row, column) for row in rows for column, cell in _ours(row)]
    value, row, column = min(accuracies, key=lambda accuracy: accuracy[0])
    return f"Its lowest accuracy is {100 * value:.1f} %, on {_text(row.name)} ({column.label})."


def _without_gain(rows: list[Row]) -> tuple[list[str], list[str]]:
    """Sets and branches that lost or stood still, and those whose interval overlaps the baseline's."""
    lost, close = [], []
    for row in rows:
        for column, cell in _ours(row):
            if cell.gain is None:
                continue
            told = f"{_text(row.name)} ({column.label} {cell.gain:+.1f})"
            if cell.gain <= 0:
                lost.append(told)
            elif cell.interval and row.baseline.interval and cell.interval[0] <= row.baseline.interval[1]:
                close.append(told)
    return lost, close


def _branches_apart(rows: list[Row]) -> list[str]:
    pairs = [(row, first, second) for row in rows for first, second in pairwise(_ours(row))]
    if not pairs:
        return []
    row, *branches = max(pairs, key=lambda pair: abs(pair[1][1].value - pair[2][1].value))
    told = " and ".join(f"{100 * cell.value:.1f} % ({column.label})" for column, cell in branches)
    return [f"The branches differ, most on {_text(row.name)}: {told}. Choose the branch on data like yours."]


def _ours(row: Row) -> list:
    return [(column, cell) for column, cell in row.cells.items() if column.model == "advbn"]


def _settings(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    kept = {key: value for key, value in settings.items() if value is not None and "token" not in key}
    return [(_text(key), _text(_value(value))) for key, value in kept.items()]


def _value(value: Any) -> str:
    """A setting as one writes it on a command line."""
    value = value.value if isinstance(value, Enum) else value
    return str(value).lower() if isinstance(value, bool) else str(value)


def _reference(name: str, kind: str) -> str:
    return f"[{_text(name)}](https://huggingface.co/{kind}{name})" if is_on_hub(name) else _text(_name(name))


def _name(name: str) -> str:
    """A folder by its name alone, anything else as it is."""
    return Path(name).resolve().name if Path(name).is_dir() else _public(name)


def _text(text: str) -> str:
    return escape_markdown(_public(text))


def _public(text: str) -> str:
    """One line, without what belongs to the machine or its user alone."""
    return TOKEN.sub("***", ABSOLUTE_FOLDERS.sub("", " ".join(text.split())))
