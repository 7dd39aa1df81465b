"""Plots of a comparison: what each method gains on each shift, what that costs, and how it depends on settings."""

import itertools
import math
import os
from collections.abc import Sequence

import yaml
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from advbn_hf.reporting.plot_style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    SERIES_COLOURS,
    SERIES_MARKERS,
    VERMILLION,
    new_figure,
    plain_axes,
    plain_text,
    write_figure,
)

from .methods import method_called
from .sensitivity import Point
from .summary import MEAN, Entry

# Family of methods -> colour, marker and name, told apart without colour too.
FAMILIES = {
    "control": (GREY, "s", "controls"),
    "peer": (ORANGE, "^", "peers"),
    "advbn": (VERMILLION, "D", "AdvBN"),
    "beyond": (BLUE, "o", "beyond the paper"),
}


def plot_gains(entries: Sequence[Entry], title: str, reference: str, path: str | os.PathLike) -> None:
    """Draws the gain of every method on every set, with its 95 % interval: clean branch filled, auxiliary hollow.

    Args:
        entries: of one dataset, model and budget.
        title: above the plot.
        reference: the method that gains are over; it is left out.
        path: the PNG file to write.
    """
    methods = [name for name in dict.fromkeys(entry.method for entry in entries) if name != reference]
    figure = new_figure(1.5 + 0.3 * max(len(methods), 1))
    sets = dict.fromkeys(entry.set for entry in entries)
    panels = (MEAN, *(name for name in sets if name not in (MEAN, "clean")), "clean")
    grid = figure.subplots(1, len(panels), sharey=True)
    for axes, name in zip(grid, panels, strict=True):
        axes.axvline(0, color=INK, linewidth=1.2)
        for place, branch in enumerate(("clean", "auxiliary")):
            for entry in entries:
                if (entry.set, entry.branch) == (name, branch) and entry.method in methods and entry.gain is not None:
                    _draw_gain(axes, entry, y=methods.index(entry.method) + 0.3 * place - 0.15, filled=place == 0)
        axes.set_title(name, fontsize=9.5, color=INK, weight="bold" if name == MEAN else "normal")
        axes.set(ylim=(len(methods) - 0.4, -0.6), yticks=range(len(methods)))
        axes.margins(x=0.12)
        plain_axes(axes, grid="x")
        axes.tick_params(axis="x", labelsize=7.5)
        axes.set_yticklabels([method_label(method) for method in methods], fontsize=9, color=INK)
    figure.suptitle(f"{title}: gain over {reference}", x=0.01, ha="left", fontsize=12, weight="bold", color=INK)
    figure.supxlabel(
        "points of accuracy; filled: clean branch, hollow: auxiliary; lines: 95 % intervals, from three seeds on",
        fontsize=9,
        color=GREY,
    )
    write_figure(figure, path)


def plot_cost(entries: Sequence[Entry], title: str, reference: str, path: str | os.PathLike) -> None:
    """Draws accuracy under shift against the cost of a step, and the frontier: what nothing cheaper reaches.

    Args:
        entries: of one dataset and model, at equal steps.
        title: above the plot.
        reference: the method whose step is the unit of cost.
        path: the PNG file to write.
    """
    shown = [entry for entry in entries if (entry.branch, entry.set) == ("clean", MEAN)]
    costs, means = [entry.cost for entry in shown], [entry.mean for entry in shown]
    figure = new_figure(6.4)
    axes = figure.add_subplot()
    on_frontier = frontier(costs, means)
    axes.step(
        [costs[place] for place in on_frontier] + [1.7 * max(costs)],
        [means[place] for place in on_frontier] + [means[on_frontier[-1]]],
        where="post",
        color=INK,
        linewidth=1.2,
        zorder=2,
        label="frontier",
    )
    for entry, cost in zip(shown, costs, strict=True):
        colour, marker, _ = FAMILIES[method_called(entry.method).family]
        axes.errorbar(cost, entry.mean, entry.std or 0, color=colour, marker=marker, markersize=6, linewidth=1,
                      markeredgecolor="white", zorder=3)  # fmt: skip
    names = [method_label(entry.method) for entry in shown]
    # A name begins to the right of the points close by; on the axis of costs, a letter is 2.6 % wide.
    starts = [1.06 * max(other for other in costs if cost <= other < 1.1 * cost) for cost in costs]
    spans = [(start, start * 1.026 ** len(name)) for start, name in zip(starts, names, strict=True)]
    lowest, highest = axes.get_ylim()
    heights = apart(costs, means, spans, gap=0.028 * (highest - lowest))  # a line of text in this height of figure
    for place, name in enumerate(names):
        axes.annotate(
            name,
            (costs[place], means[place]),
            xytext=(starts[place], heights[place]),
            fontsize=8,
            va="center",
            color=INK,
            weight="bold" if place in on_frontier else "normal",
            path_effects=[withStroke(linewidth=3.5, foreground="white")],
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3},
            zorder=4,
        )
    for colour, marker, label in FAMILIES.values():
        axes.plot([], [], marker, color=colour, label=label)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=5, frameon=False, fontsize=9, handletextpad=0.3)
    axes.set_title(plain_text(title), loc="left", fontsize=12, weight="bold", color=INK, pad=26)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(min(costs) / 1.1, 1.7 * max(costs))  # room for the names
    axes.set_xlabel(f"cost of a step, in steps of {reference}", color=GREY)
    axes.set_ylabel("accuracy in %, mean of shifts; lines: standard deviation over seeds", color=GREY)
    plain_axes(axes)
    write_figure(figure, path)


def plot_sensitivity(points: Sequence[Point], title: str, path: str | os.PathLike) -> None:
    """Draws, in a panel for each setting, what a method gains with each value; the value in force is in bold.

    Args:
        points: of one or several datasets, which have a line each: filled under shifts, hollow on clean images.
        title: above the plot.
        path: the PNG file to write.
    """
    settings = list(dict.fromkeys(point.setting for point in points))
    datasets = list(dict.fromkeys(point.shifts.dataset for point in points))
    columns = min(len(settings), 4)
    rows = -(-len(settings) // columns)
    figure = new_figure(1.1 + 2.6 * rows)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flat
    for axes in panels[len(settings) :]:
        axes.set_visible(False)
    for axes, setting in zip(panels, settings, strict=False):
        here = [point for point in points if point.setting == setting]
        in_force = {point.value: point.in_force for point in here}
        axes.axhline(0, color=INK, linewidth=1)
        for dataset, colour, marker in zip(datasets, SERIES_COLOURS, SERIES_MARKERS, strict=False):
            of_dataset = [point for point in here if point.shifts.dataset == dataset]
            places = [list(in_force).index(point.value) for point in of_dataset]
            for name, face, style in (("shifts", colour, "-"), ("clean", "white", ":")):
                entries = [getattr(point, name) for point in of_dataset]
                axes.errorbar(places, [entry.gain for entry in entries], [entry.std or 0 for entry in entries],
                              color=colour, marker=marker, markerfacecolor=face, linestyle=style, markersize=5,
                              linewidth=1.2, elinewidth=0.8, label=f"{dataset}, {name}")  # fmt: skip
        axes.set_title(setting, fontsize=10, color=INK)
        axes.set_xticks(range(len(in_force)), [_short(value).replace(" ", "\n") for value in in_force])
        for label, bold in zip(axes.get_xticklabels(), in_force.values(), strict=True):
            label.set_fontweight("bold" if bold else "normal")
        plain_axes(axes)
        axes.tick_params(axis="x", labelsize=8)
        for label in axes.get_xticklabels():
            if max(map(len, label.get_text().split("\n"))) > 8:  # it would run into the next one
                label.set_fontsize(6.5)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    figure.suptitle(plain_text(title), x=0.01, ha="left", fontsize=12, weight="bold", color=INK)
    figure.supylabel("gain in points; bars: standard deviation over seeds", fontsize=9, color=GREY)
    write_figure(figure, path)


def apart(
    costs: Sequence[float], values: Sequence[float], spans: Sequence[tuple[float, float]], gap: float
) -> list[float]:
    """Heights at which the names of points overlap neither each other nor another's point.

    Args:
        costs: where the points are.
        values: their heights, those of the names to begin with.
        spans: from where to where each name goes, in costs.
        gap: height of a line: names that share some width keep it from each other, and most of it from points.
    """
    heights, order = list(values), sorted(range(len(values)), key=lambda place: values[place])
    for _ in range(300):  # names leave the points of others, then push each other away by half of what is missing
        for place, other in itertools.product(order, order):
            away = heights[place] - values[other]
            if spans[place][0] / 1.02 < costs[other] < spans[place][1] and abs(away) < 0.8 * gap:
                heights[place] += math.copysign(0.2 * gap, away)
        for low, high in itertools.combinations(order, 2):
            missing = gap - heights[high] + heights[low]
            if missing > 0 and spans[low][0] < spans[high][1] and spans[high][0] < spans[low][1]:
                heights[low] -= missing / 2
                heights[high] += missing / 2
    return heights


def frontier(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """Places of the points that no other beats at the same cost or less, by ascending cost."""
    places: list[int] = []
    for place in sorted(range(len(costs)), key=lambda place: (costs[place], -values[place])):
        if not places or values[place] > values[places[-1]]:
            places.append(place)
    return places


def _draw_gain(axes: Axes, entry: Entry, y: float, filled: bool) -> None:
    colour, marker, _ = FAMILIES[method_called(entry.method).family]
    if entry.interval and entry.seeds > 2:  # that of two seeds is wider than everything else
        axes.plot(entry.interval, [y, y], color=colour, linewidth=1.2, zorder=3)
    axes.plot(
        entry.gain, y, marker, color=colour, markersize=5, markerfacecolor=colour if filled else "white", zorder=4
    )


def method_label(method: str) -> str:
    """A method's name, with the values of the settings that are its own: "advbn (embedder, 16)"."""
    name, _, settings = method.partition(":")
    values = [_short(yaml.safe_load(part.partition("=")[2])) for part in settings.split(",") if part]
    return plain_text(f"{name} ({', '.join(values)})" if values else name)


def _short(value: str | float) -> str:
    """A setting's value where there is little room: "resnet.encoder.stages.1" is "stages 1"."""
    if not isinstance(value, str):
        return f"{value:g}"
    *path, last = value.split(".")
    return (f"{path[-1]} {last}" if path and last.isdigit() else last).replace("_", " ")
