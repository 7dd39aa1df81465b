"""A plot of accuracy against severity: small multiples, one for each corruption; bands are 95 % intervals."""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ..errors import InputError
from ..evaluation.records import Record
from ..evaluation.statistics import wilson_interval
from .accuracy_table import TableColumn, columns_of
from .plot_style import GREY, INK, new_figure, plain_axes, plain_text, series_style, write_figure

ACROSS = 5  # panels in a row


def plot_severities(records: Iterable[Record], path: str | os.PathLike) -> None:
    """Draws the accuracy of every model on every shift with severities, over them.

    Args:
        records: measurements; accuracies with a shift and a severity are drawn.
        path: the PNG file to write.

    Raises:
        InputError: there is none.
    """
    drawn = [record for record in records if record.metric == "accuracy" and record.shift and record.severity]
    if not drawn:
        raise InputError("results: no accuracy at a severity to draw")
    columns = columns_of(drawn)
    sets: dict[str, dict[str, list[Record]]] = {}
    for record in drawn:
        sets.setdefault(record.set, {}).setdefault(str(record.shift), []).append(record)
    rows = [-(-len(panels) // ACROSS) for panels in sets.values()]
    figure = new_figure(0.7 + sum(0.45 + 1.35 * count for count in rows))
    # The legend has a strip of its own: one outside of subfigures would lie on them.
    strip, *parts = figure.subfigures(1 + len(sets), height_ratios=[0.35, *(0.45 + 1.35 * count for count in rows)])
    for part, count, (set_name, panels) in zip(parts, rows, sets.items(), strict=True):
        part.suptitle(plain_text(set_name), x=0.01, ha="left", fontsize=11, weight="bold", color=INK)
        _draw_set(part.subplots(count, ACROSS, sharex=True, sharey=True, squeeze=False), panels, columns)
    handles, labels = parts[0].axes[0].get_legend_handles_labels()
    strip.legend(handles, labels, loc="center left", ncols=len(handles), frameon=False, fontsize=10, borderaxespad=0)
    strip.text(0.99, 0.5, "bands: 95 % intervals", ha="right", va="center", fontsize=8, color=GREY)
    write_figure(figure, path)


def _draw_set(grid: np.ndarray, panels: dict[str, list[Record]], columns: tuple[TableColumn, ...]) -> None:
    for axes, (shift, points) in zip(grid.flat, panels.items(), strict=False):
        _draw_panel(axes, sorted(points, key=_severity), columns)
        axes.set_title(plain_text(shift.replace("_", " ")), loc="left", fontsize=9, color=INK, pad=3)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy, %", color=GREY, fontsize=8)
    # The last row may be short: then the panels above its gap have the lowest axis of their column.
    for index, axes in enumerate(grid.flat[: len(panels)]):
        if index + ACROSS >= len(panels):
            axes.set_xlabel("severity", color=GREY, fontsize=8)
            axes.tick_params(labelbottom=True)


def _severity(record: Record) -> int:
    return record.severity or 0


def _draw_panel(axes: Axes, points: list[Record], columns: tuple[TableColumn, ...]) -> None:
    places = [column for column in columns if not column.is_reference]
    for column in columns:
        own = [point for point in points if (point.model, point.branch) == (column.model, column.branch)]
        severities, values = [_severity(point) for point in own], [100 * point.value for point in own]
        if column.is_reference:
            style: dict[str, Any] = {
                "color": INK if column.model == "baseline" else GREY,
                "linestyle": (0, (3, 1.5)),
                "marker": ".",
            }
        else:
            place = places.index(column)
            style = series_style(place)
        axes.plot(severities, values, label=plain_text(column.label), linewidth=1.4, markersize=3.5, zorder=3, **style)
        if all(point.n for point in own):
            ends = [wilson_interval(point.value, point.n) for point in own if point.n]
            low, high = ([100 * end[side] for end in ends] for side in (0, 1))
            axes.fill_between(severities, low, high, color=style["color"], alpha=0.15, linewidth=0, zorder=1)
    axes.set(ylim=(0, 100), yticks=(0, 25, 50, 75, 100), xticks=sorted({_severity(point) for point in points}))
    plain_axes(axes)
    axes.tick_params(labelsize=8)
