"""A picture of accuracy against severity: small multiples, one for each corruption."""

import os
from collections.abc import Iterable
from itertools import groupby

from matplotlib.axes import Axes

from ..errors import InputError
from .plots import GREY, INK, LANE_COLOURS, LANE_MARKERS, PALE, new_figure, plain_text, write_figure
from .report import Column, columns_of
from .results import Record, wilson_interval

ACROSS = 5  # panels in a row


def plot_severities(records: Iterable[Record], path: str | os.PathLike) -> None:
    """Draws the accuracy of every model on every shift with severities, over them.

    Args:
        records: measurements; accuracies with a shift and a severity are drawn.
        path: the PNG file to write.

    Raises:
        InputError: there is none.
    """
    drawn = [record for record in records if record.metric == "accuracy" and record.severity is not None]
    if not drawn:
        raise InputError("results: no accuracy at a severity to draw")
    columns = columns_of(drawn)
    panels = [
        (set_name, shift, list(points))
        for (set_name, shift), points in groupby(sorted(drawn, key=_panel_key(drawn)), key=lambda r: (r.set, r.shift))
    ]
    several_sets = len({set_name for set_name, _, _ in panels}) > 1
    down = -(-len(panels) // ACROSS)
    figure = new_figure(1.1 + 1.5 * down)
    grid = figure.subplots(down, min(ACROSS, len(panels)), sharex=True, sharey=True, squeeze=False)
    for axes, (set_name, shift, points) in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, points, columns)
        axes.set_title(plain_text(shift.replace("_", " ")), loc="left", fontsize=9.5, weight="bold", color=INK, pad=3)
        if several_sets:
            axes.text(0.97, 0.95, plain_text(set_name.split(":")[0]), transform=axes.transAxes, ha="right", va="top",
                      fontsize=7, color=GREY)  # fmt: skip
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy in %", color=GREY, fontsize=8.5)
    # The last row may be short: the panels above its gap have the lowest axis of their column.
    for index, axes in enumerate(grid.flat[: len(panels)]):
        if index + ACROSS >= len(panels):
            axes.set_xlabel("severity", color=GREY, fontsize=8.5)
            axes.tick_params(labelbottom=True)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=10)
    titles = ", ".join(dict.fromkeys(set_name for set_name, _, _ in panels))
    figure.supxlabel(plain_text(f"{titles}. Bands: 95 % intervals."), color=GREY, fontsize=8.5, x=0.01, ha="left")
    write_figure(figure, path)


def _panel_key(records: list[Record]):
    """Panels in the order of the records, and severities in their own."""
    order = list(dict.fromkeys((record.set, record.shift) for record in records))
    return lambda record: (order.index((record.set, record.shift)), record.severity)


def _draw_panel(axes: Axes, points: list[Record], columns: tuple[Column, ...]) -> None:
    places = [column for column in columns if not column.is_reference]
    for column in columns:
        own = [point for point in points if (point.model, point.branch) == (column.model, column.branch)]
        severities, values = [point.severity for point in own], [100 * point.value for point in own]
        if column.is_reference:
            style = {"color": INK if column.model == "baseline" else GREY, "linestyle": (0, (3, 1.5)), "marker": "."}
        else:
            place = places.index(column)
            style = {"color": LANE_COLOURS[place % len(LANE_COLOURS)]}
            style["marker"] = LANE_MARKERS[place % len(LANE_MARKERS)]
        axes.plot(severities, values, label=plain_text(column.label), linewidth=1.4, markersize=4, zorder=3, **style)
        if all(point.n for point in own):
            ends = [wilson_interval(point.value, point.n) for point in own]
            low, high = ([100 * end[side] for end in ends] for side in (0, 1))
            axes.fill_between(severities, low, high, color=style["color"], alpha=0.15, linewidth=0, zorder=1)
    axes.set(ylim=(0, 100), yticks=(0, 25, 50, 75, 100), xticks=sorted({point.severity for point in points}))
    axes.tick_params(colors=GREY, length=0, labelsize=8)
    axes.grid(True, color=PALE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
