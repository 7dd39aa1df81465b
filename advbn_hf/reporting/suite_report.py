"""The report of an evaluation: tables of sets and of metrics, for the terminal and as Markdown."""

import os
from collections.abc import Iterable
from functools import cached_property

from ..evaluation.records import Record
from ..evaluation.suites import Suite
from ..utils.files import write_atomically
from ..utils.tables import align_markdown, align_text, escape_markdown
from .accuracy_table import Table, columns_of, comparison_table, to_markdown, to_text

# Metric -> its heading, and what its value is multiplied by to be shown.
METRICS = {
    "top5_accuracy": ("top-5 accuracy, %", 100),
    "ece": ("calibration error (ECE), %", 100),
    "mce": ("mCE, %", 1),
    "relative_mce": ("relative mCE, %", 1),
}


class SuiteReport:
    """The records of an evaluation, arranged.

    Args:
        records: from `score`.
        suite: the sets, in their order.
    """

    def __init__(self, records: Iterable[Record], suite: Suite) -> None:
        self.records = list(records)
        self.suite = suite

    @cached_property
    def by_set(self) -> list[Record]:
        """The records of complete sets."""
        return [record for record in self.records if record.shift is None]

    @cached_property
    def table(self) -> Table:
        """The comparison of the sets, with the row of means that the suite asks for."""
        mean_over = [entry.title for entry in self.suite.sets if entry.name in self.suite.mean_over]
        return comparison_table(self.by_set, mean_over, {entry.title: entry.branch for entry in self.suite.sets})

    def to_text(self) -> str:
        """Tables for a terminal: accuracy of each set, then the other metrics."""
        grid = self._metrics()
        return "\n\n".join([to_text(self.table), *([align_text(grid)] if len(grid) > 1 else [])])

    def write_markdown(self, path: str | os.PathLike) -> None:
        """Writes the same tables as Markdown, and one of all shifts.

        Args:
            path: the file.
        """
        grid = self._metrics()
        parts = ["# Robustness", "## Accuracy", to_markdown(self.table)]
        if len(grid) > 1:
            parts += ["## Other metrics", align_markdown(grid), _explain(grid)]
        shifts = [record for record in self.records if record.shift is not None]
        if shifts:
            parts += ["## Every shift", to_markdown(comparison_table(shifts))]
        write_atomically(path, "\n\n".join(parts) + "\n")

    def _metrics(self) -> list[list[str]]:
        """Header, then a row for each metric of each set."""
        shown = [record for record in self.by_set if record.metric in METRICS]
        columns = columns_of(shown)
        lines: dict[tuple[str, str], dict[tuple[str, str | None], str]] = {}
        for record in shown:
            heading, factor = METRICS[record.metric]
            line = lines.setdefault((record.set, heading), {})
            line[record.model, record.branch] = f"{factor * record.value:.1f}"
        header = ["set", "metric", *(column.label for column in columns)]
        sets = list(dict.fromkeys(record.set for record in self.by_set))
        body = [
            [name, heading, *(line.get((column.model, column.branch), "") for column in columns)]
            for (name, heading), line in sorted(lines.items(), key=lambda item: sets.index(item[0][0]))
        ]
        return [header, *body]


def _explain(grid: list[list[str]]) -> str:
    notes = "Errors (ECE, mCE) are better when lower."
    if any(line[1] == METRICS["mce"][0] for line in grid[1:]):
        notes += " mCE is in per cent of AlexNet's errors, or of the baseline's where the suite says so."
    return escape_markdown(notes)
