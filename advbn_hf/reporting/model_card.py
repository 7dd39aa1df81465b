"""The full model card: a comparison of what was measured, what it does not show, and how the model was made."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from ..evaluation.records import P_VALUE, Record
from ..hub.card import CARD_FILE, NO_BASELINE, ONE_RUN, base_of, eval_result, fill_template, public, text
from ..utils.files import write_atomically
from .accuracy_table import Table, TableCell, TableColumn, TableRow, comparison_table, renamed, set_label, to_markdown


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

    Args:
        records: what was measured; "advbn" is this model.
        model_name: title of the card.
        base_model: Hub id or folder of the model that was fine-tuned, or a few words; None if it is not known.
            It becomes metadata where it is a Hub id (`namespace/name`, and no folder here).
        dataset: the same for the dataset.
        advbn_config: `AdvBNConfig.to_dict()`.
        training: training arguments to list; None values and tokens are excluded.
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
    records = [replace(record, model=public(record.model), set=public(record.set)) for record in records]
    table = renamed(table, public) if table else comparison_table(records)
    return fill_template(
        model_name=model_name,
        base_model=base_of(base_model, repo_id),
        datasets={dataset: None},
        advbn_config=advbn_config,
        training=training,
        versions=versions,
        limits=_limits(table),
        results_table=to_markdown(table) if table.rows else "",
        eval_results=[
            eval_result(dataset, set_label(record), record.metric, record.branch, record.value)
            for record in records
            if record.model == "advbn" and record.metric != P_VALUE
        ],
        compared={column.model for column in table.columns},
        command=command,
        images=images,
        license=license,
        repo_id=repo_id,
    )


def save_card(card: ModelCard, folder: str | Path) -> None:
    """Writes a card as README.md, atomically.

    Args:
        card: from `render_card`.
        folder: the folder of the checkpoint; it must exist.
    """
    write_atomically(Path(folder) / CARD_FILE, str(card))


def _limits(table: Table) -> list[str]:
    """Weaknesses that the measurements show, and what they do not show."""
    rows = [row for row in table.rows if not row.mean_over and any(c.model == "advbn" for c in row.cells)]
    if not rows:
        return ["Its accuracy was not measured."]
    limits = [
        f"Measured on {', '.join(text(row.name) for row in rows)}, and on nothing else.",
        ONE_RUN,
        _lowest(rows),
    ]
    if not any(row.baseline for row in rows):
        limits.append(NO_BASELINE)
    gains = [(row, column, cell) for row in rows for column, cell in _ours(row) if cell.gain is not None]
    lost = [_gain(row, column, cell) for row, column, cell in gains if cell.gain <= 0]
    if lost:
        limits.append(f"No gain over the baseline on {', '.join(lost)} (points).")
    close = [_gain(row, column, cell) for row, column, cell in gains if cell.gain > 0 and _may_be_chance(row, cell)]
    if close:
        tests = "paired tests" if any(cell.p_value is not None for _, _, cell in gains) else "95 % intervals"
        limits.append(f"A gain that the {tests} cannot tell from none on {', '.join(close)} (points).")
    return limits + _branches_apart(rows)


def _lowest(rows: list[TableRow]) -> str:
    accuracies = [(cell.value, row, column) for row in rows for column, cell in _ours(row)]
    value, row, column = min(accuracies, key=lambda accuracy: accuracy[0])
    return f"Its lowest accuracy is {100 * value:.1f} %, on {text(row.name)} ({column.label})."


def _gain(row: TableRow, column: TableColumn, cell: TableCell) -> str:
    return f"{text(row.name)} ({column.label} {cell.gain:+.1f})"


def _may_be_chance(row: TableRow, cell: TableCell) -> bool:
    """Whether the paired test's p-value is 0.05 or more; without a test, whether the 95 % intervals overlap."""
    if cell.p_value is not None:
        return cell.p_value >= 0.05
    return bool(cell.interval and row.baseline.interval) and cell.interval[0] <= row.baseline.interval[1]


def _branches_apart(rows: list[TableRow]) -> list[str]:
    pairs = [(row, first, second) for row in rows for first, second in pairwise(_ours(row))]
    if not pairs:
        return []
    row, *branches = max(pairs, key=lambda pair: abs(pair[1][1].value - pair[2][1].value))
    accuracies = " and ".join(f"{100 * cell.value:.1f} % ({column.label})" for column, cell in branches)
    return [f"The branches differ, most on {text(row.name)}: {accuracies}. Choose the branch on data like yours."]


def _ours(row: TableRow) -> list[tuple[TableColumn, TableCell]]:
    return [(column, cell) for column, cell in row.cells.items() if column.model == "advbn"]
