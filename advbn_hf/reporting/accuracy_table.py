"""The comparison of models, set by set: built once, then shown as text or Markdown."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import NamedTuple

from ..errors import InputError
from ..evaluation.records import P_VALUE, Record
from ..evaluation.statistics import wilson_interval
from ..utils.tables import align_markdown, align_text, escape_markdown

# Columns come in this order; other models follow in the order of the records.
KNOWN_MODELS = {
    "base": "base",
    "baseline": "baseline",
    "advbn": "AdvBN",
    "advbn (mean of branches)": "AdvBN mean",
}


class TableColumn(NamedTuple):
    """A model, or one branch of it.

    Args:
        model: as in the records.
        branch: "clean", "auxiliary" or None.
        label: the heading that people read, for example "AdvBN auxiliary".
    """

    model: str
    branch: str | None
    label: str

    @property
    def is_reference(self) -> bool:
        """Whether this is one of the two models that others are compared with."""
        return self.model in ("base", "baseline")


@dataclass(frozen=True)
class TableCell:
    """An accuracy.

    Args:
        value: a fraction in [0, 1].
        n: number of images, if known.
        interval: lower and upper end of the 95 % interval, if n is known.
        gain: points (hundredths) above the baseline on the same set; None without a baseline.
        p_value: of the paired test of that gain; None if there was none.
        is_first: whether this is the branch to report first on this set.
    """

    value: float
    n: int | None
    interval: tuple[float, float] | None
    gain: float | None = None
    p_value: float | None = None
    is_first: bool = False


@dataclass(frozen=True)
class TableRow:
    """The accuracies on one set, or their mean over several.

    Args:
        name: the set's name, with shift and severity where the records have them.
        cells: what was measured; a column without a measurement is absent.
        mean_over: names of the rows that were averaged; empty for a set.
    """

    name: str
    cells: dict[TableColumn, TableCell]
    mean_over: tuple[str, ...] = ()

    @property
    def baseline(self) -> TableCell | None:
        """The baseline's accuracy, if it was measured."""
        return _baseline(self.cells)

    @property
    def images(self) -> str:
        """Number of images, "2,000"; a range where the models saw different numbers; empty if unknown."""
        counts = sorted({cell.n for cell in self.cells.values() if cell.n is not None})
        return " to ".join(f"{count:,}" for count in dict.fromkeys(counts[:1] + counts[-1:]))


@dataclass(frozen=True)
class Table:
    """The comparison.

    Args:
        columns: base, baseline, AdvBN clean, AdvBN auxiliary, other models: those that were measured.
        rows: the sets in the order of the records, then the mean if one was asked for.
    """

    columns: tuple[TableColumn, ...]
    rows: tuple[TableRow, ...]


def comparison_table(
    records: Iterable[Record], mean_over: Sequence[str] = (), first: Mapping[str, str] | None = None
) -> Table:
    """Arranges the accuracies of all models on all sets.

    Args:
        records: measurements; of other metrics than accuracy, only the paired tests' are used.
        mean_over: names of the rows (sets) for a last row with their mean. The mean of a column that lacks one of them
            is absent. Its interval averages the ends of theirs, which is wide enough however the sets depend on each
            other (the standard deviation of a mean is at most the mean of the standard deviations).
        first: name of a row -> the branch that is to be marked there.

    Returns:
        The table.

    Raises:
        InputError: there are two accuracies for one cell, or `mean_over` names a set without a record.
    """
    records = list(records)
    accuracies = [record for record in records if record.metric == "accuracy"]
    p_values = {
        (set_label(record), record.model, record.branch): record.value
        for record in records
        if record.metric == P_VALUE
    }
    columns = {(column.model, column.branch): column for column in columns_of(accuracies)}
    rows: dict[str, dict[TableColumn, TableCell]] = {}
    for record in accuracies:
        column = columns[record.model, record.branch]
        cells = rows.setdefault(set_label(record), {})
        if column in cells:
            raise InputError(f"results: {set_label(record)!r} has two accuracies for {column.label!r}; keep one")
        interval = wilson_interval(record.value, record.n) if record.n else None
        p_value = p_values.get((set_label(record), record.model, record.branch))
        is_first = record.branch is not None and (first or {}).get(set_label(record)) == record.branch
        cells[column] = TableCell(record.value, record.n, interval, None, p_value, is_first)
    table_rows = [TableRow(name, _with_gains(cells)) for name, cells in rows.items()]
    if mean_over:
        table_rows.append(_mean_row(rows, tuple(mean_over)))
    return Table(tuple(columns.values()), tuple(row for row in table_rows if row.cells))


def renamed(table: Table, rename: Callable[[str], str]) -> Table:
    """The same table with other names of models and sets.

    Args:
        table: from `comparison_table`.
        rename: maps each name.
    """
    columns = {
        column: column._replace(model=rename(column.model), label=rename(column.label)) for column in table.columns
    }
    rows = [
        replace(
            row,
            name=rename(row.name),
            cells={columns[column]: cell for column, cell in row.cells.items()},
            mean_over=tuple(map(rename, row.mean_over)),
        )
        for row in table.rows
    ]
    return Table(tuple(columns.values()), tuple(rows))


def to_text(table: Table) -> str:
    """Shows a table in a terminal.

    Args:
        table: from `comparison_table`.

    Returns:
        Aligned lines: accuracy in per cent, half of its 95 % interval, and the gain in points; then what they mean.
    """
    grid = _grid(table, lambda cell: f"{'*' * cell.is_first}{100 * cell.value:.1f}{_half_width(cell)}")
    return "\n".join([align_text(grid), _notes(table, "+- half of the 95 % interval (Wilson)")])


def to_markdown(table: Table) -> str:
    """Shows a table in Markdown.

    Args:
        table: from `comparison_table`.

    Returns:
        A pipe table: accuracy in per cent with its 95 % interval, and the gain in points; then what they mean.
        Names are escaped.
    """
    grid = _grid(table, lambda cell: f"{_bold(f'{100 * cell.value:.1f}', cell.is_first)}{_ends(cell)}")
    notes = _notes(table, "in brackets the 95 % interval (Wilson)", first="bold")
    return "\n".join([align_markdown(grid), "", escape_markdown(notes)])


def set_label(record: Record) -> str:
    """Names what a record was measured on.

    Args:
        record: any record.

    Returns:
        The set's name, then shift and severity where the record has them, for example "corruptions fog 3".
    """
    return " ".join(str(part) for part in (record.set, record.shift, record.severity) if part is not None)


def columns_of(records: Sequence[Record]) -> tuple[TableColumn, ...]:
    """The models and branches that records are about, in the order in which tables show them.

    Args:
        records: measurements.
    """
    keys = list(dict.fromkeys((record.model, record.branch) for record in records))
    order = [*KNOWN_MODELS, *(model for model, _ in keys)]
    keys.sort(key=lambda key: (order.index(key[0]), key[1] == "auxiliary"))
    models = [model for model, _ in keys]
    return tuple(TableColumn(model, branch, _label(model, branch, models)) for model, branch in keys)


def _label(model: str, branch: str | None, models: list[str]) -> str:
    name = KNOWN_MODELS.get(model, model)
    # A plain model has nothing but a clean branch: naming it would only puzzle.
    return f"{name} {branch}" if branch == "auxiliary" or (branch and models.count(model) > 1) else name


def _baseline(cells: dict[TableColumn, TableCell]) -> TableCell | None:
    return next((cell for column, cell in cells.items() if column.model == "baseline"), None)


def _with_gains(cells: dict[TableColumn, TableCell]) -> dict[TableColumn, TableCell]:
    baseline = _baseline(cells)
    if baseline is None:
        return cells
    gains = {column: None if column.is_reference else 100 * (c.value - baseline.value) for column, c in cells.items()}
    return {column: replace(cell, gain=gains[column]) for column, cell in cells.items()}


def _mean_row(rows: dict[str, dict[TableColumn, TableCell]], names: tuple[str, ...]) -> TableRow:
    missing = [name for name in names if name not in rows]
    if missing:
        raise InputError(f"mean_over: no accuracy on {', '.join(missing)}; there are {', '.join(rows) or 'none'}")
    shared = [column for column in rows[names[0]] if all(column in rows[name] for name in names)]
    cells = {column: _mean_cell([rows[name][column] for name in names]) for column in shared}
    return TableRow(f"mean of {len(names)} sets", _with_gains(cells), names)


def _mean_cell(cells: list[TableCell]) -> TableCell:
    value = fmean(cell.value for cell in cells)
    counts, intervals = ([cell.n for cell in cells if cell.n], [cell.interval for cell in cells if cell.interval])
    if len(counts) < len(cells):
        return TableCell(value, None, None)
    low, high = (fmean(ends) for ends in zip(*intervals, strict=True))
    return TableCell(value, sum(counts), (low, high))


def _grid(table: Table, show: Callable[[TableCell], str]) -> list[list[str]]:
    """Header and body as text; a gain has its own column, right of its accuracy, where there is any."""
    gaining = {column for row in table.rows for column, cell in row.cells.items() if cell.gain is not None}
    header = ["set", "images"]
    for column in table.columns:
        header += [column.label, "gain"] if column in gaining else [column.label]
    body = []
    for row in table.rows:
        line = [row.name, row.images]
        for column in table.columns:
            cell = row.cells.get(column)
            line.append(show(cell) if cell else "")
            if column in gaining:
                line.append(_gain(cell) if cell else "")
        body.append(line)
    return [header, *body]


def _gain(cell: TableCell) -> str:
    if cell.gain is None:
        return ""
    if cell.p_value is None:
        return f"{cell.gain:+.1f}"
    return f"{cell.gain:+.1f} (p {f'{cell.p_value:.3f}' if cell.p_value >= 0.001 else '< 0.001'})"


def _bold(text: str, is_bold: bool) -> str:
    return f"**{text}**" if is_bold else text


def _half_width(cell: TableCell) -> str:
    return f" +-{50 * (cell.interval[1] - cell.interval[0]):3.1f}" if cell.interval else ""


def _ends(cell: TableCell) -> str:
    return f" [{100 * cell.interval[0]:.1f}, {100 * cell.interval[1]:.1f}]" if cell.interval else ""


def _notes(table: Table, interval: str, first: str = "*") -> str:
    cells = [cell for row in table.rows for cell in row.cells.values()]
    parts = ["Accuracy in %"]
    parts += [interval] if any(cell.interval for cell in cells) else []
    parts += ["gain: points over the baseline"] if any(cell.gain is not None for cell in cells) else []
    parts += ["p: of a paired test on the same images"] if any(cell.p_value is not None for cell in cells) else []
    parts += [f"{first}: the branch to report first"] if any(cell.is_first for cell in cells) else []
    means = [f"{row.name.capitalize()}: {', '.join(row.mean_over)}." for row in table.rows if row.mean_over]
    return " ".join(["; ".join(parts) + ".", *means])
