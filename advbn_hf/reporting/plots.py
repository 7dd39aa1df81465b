"""Plots of a run: the gain per set, samples of the sets, the training curve."""

import os
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import datasets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image, ImageOps

from ..data.transforms import to_rgb
from ..errors import InputError
from .accuracy_table import Table, TableCell, TableColumn, TableRow
from .plot_style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    VERMILLION,
    new_figure,
    plain_axes,
    plain_text,
    series_style,
    write_figure,
)

TRAINING_PANELS = {  # title -> key of the log: colour and label
    "training loss (nats)": {
        "loss": (INK, "sum"),
        "adversarial_loss": (VERMILLION, "adversarial"),
        "clean_loss": (BLUE, "clean"),
    },
    "loss of the ascent, in eval mode (nats)": {
        "loss_after_ascent": (VERMILLION, "after"),
        "loss_before_ascent": (GREEN, "before"),
    },
    "multipliers: distance from 1 (RMS of channels)": {
        "mean_distance": (BLUE, "of the mean"),
        "std_distance": (ORANGE, "of the standard deviation"),
    },
}
_HEADLINE = 64  # letters of a line of the title that the figure has room for
LINE, GAP = 0.26, 0.22  # inches: the height of one model's line in a set, and the gap between sets


def plot_gain(table: Table, path: str | os.PathLike) -> None:
    """Draws the accuracy of every model on every set; bars from the baseline to AdvBN are the gain.

    Args:
        table: from `comparison_table`.
        path: the PNG file to write.

    Raises:
        InputError: there is no accuracy.
    """
    if not table.rows:
        raise InputError("results: no accuracy to draw")
    drawn = [column for column in table.columns if not column.is_reference]
    height = max(len(drawn), 1) * LINE + GAP
    figure = new_figure(1.6 + height * len(table.rows))
    axes = figure.add_subplot()
    for index, row in enumerate(table.rows):
        _draw_row(axes, row, drawn, top=index * height, height=height)
    _dress_gain(axes, table, bottom=len(table.rows) * height)
    write_figure(figure, path)


def plot_samples(
    sets: Mapping[str, datasets.Dataset], path: str | os.PathLike, columns: int = 10, seed: int = 0
) -> None:
    """Draws what each set looks like: one row a set, the same row numbers in each where they go that far.

    Args:
        sets: caption -> dataset with an "image" column (decoded, or `{"bytes", "path"}`) and perhaps a "label" column.
        path: the PNG file to write.
        columns: images in a row.
        seed: seed of the choice.

    Raises:
        InputError: no set, an empty one, or one without an "image" column.
    """
    _check_sets(sets)
    shortest = min(len(dataset) for dataset in sets.values())
    chosen = np.sort(np.random.default_rng(seed).permutation(shortest)[:columns])
    left, right, bottom = -1.75, len(chosen) + 0.05, 1.28 * len(sets)  # in widths of an image
    figure = Figure(figsize=(8, 8 * bottom / (right - left)), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(left, right), ylim=(bottom, -0.05), autoscale_on=False)
    axes.axis("off")
    for line, (name, dataset) in enumerate(sets.items()):
        top = 1.28 * line
        axes.text(
            -0.1,
            top + 0.45,
            plain_text(shortened(name)),
            ha="right",
            va="bottom",
            weight="bold",
            color=INK,
            fontsize=9,
        )
        axes.text(-0.1, top + 0.5, f"{len(dataset):,} images", ha="right", va="top", color=GREY, fontsize=7.5)
        undecoded = dataset.cast_column("image", datasets.Image(decode=False))
        for place, index in enumerate(chosen):
            _draw_sample(axes, undecoded, int(index), place, top)
    write_figure(figure, path, dpi=100)


def plot_training(
    log_history: Iterable[Mapping[str, float]], path: str | os.PathLike, images_per_step: int | None = None
) -> None:
    """Draws over the steps the losses, the loss before and after the ascent, and how far its multipliers go.

    Args:
        log_history: `Trainer.state.log_history`; entries with "step" and what `TRAINING_PANELS` names are drawn, what
            is missing is left out.
        path: the PNG file to write.
        images_per_step: for the label of the axis.

    Raises:
        InputError: nothing of this was logged.
    """
    history = list(log_history)
    panels = [(title, kept) for title, curves in TRAINING_PANELS.items() if (kept := _logged(history, curves))]
    if not panels:
        raise InputError("log_history: no loss was logged; lower logging_steps")
    figure = new_figure(1 + 1.9 * len(panels))
    grid = figure.subplots(len(panels), sharex=True, squeeze=False, height_ratios=(3, 2, 2)[: len(panels)])
    for axes, (title, curves) in zip(grid[:, 0], panels, strict=True):
        _draw_curves(axes, title, curves)
    images = f" of {images_per_step:,} images" if images_per_step else ""
    grid[-1, 0].set_xlabel(f"optimiser step{images}", color=GREY)
    write_figure(figure, path)


def _draw_row(axes: Axes, row: TableRow, drawn: list[TableColumn], top: float, height: float) -> None:
    middle, weight = top + height / 2, "bold" if row.mean_over else "normal"
    if row.mean_over:
        axes.axhline(top, color=GREY, linewidth=0.8)
    left: dict[str, Any] = {"x": -0.015, "transform": axes.get_yaxis_transform(), "ha": "right"}
    name, _, source = row.name.removesuffix(")").partition(" (")  # "corruptions (ImageNet-C-style, generated)"
    below = [f"{row.images} images"] if row.images else []
    axes.text(y=middle, s=plain_text(name), va="bottom", color=INK, fontsize=11, weight=weight, **left)
    axes.text(y=middle + 0.02, s=plain_text("\n".join([*below, *filter(None, [source])])), va="top", color=GREY,
              fontsize=8, **left)  # fmt: skip
    for column, cell in row.cells.items():
        if column.is_reference:
            _draw_reference(axes, column.model, cell, top, height)
    for place, column in enumerate(drawn):
        if column in row.cells:
            y = top + GAP / 2 + LINE * (place + 0.5)
            _draw_cell(axes, row.cells[column], row.baseline, place, y, weight)


def _draw_reference(axes: Axes, model: str, cell: TableCell, top: float, height: float) -> None:
    ends = (top + 0.08, top + height - 0.08)
    if model == "base":
        axes.plot([100 * cell.value] * 2, ends, color=GREY, linewidth=1.3, linestyle=(0, (2, 1.5)), zorder=3)
        return
    if cell.interval:
        low, high = cell.interval
        axes.fill_betweenx(ends, 100 * low, 100 * high, color=PALE, linewidth=0, zorder=1)
    axes.plot([100 * cell.value] * 2, ends, color=INK, linewidth=2.2, solid_capstyle="butt", zorder=4)


def _draw_cell(axes: Axes, cell: TableCell, baseline: TableCell | None, place: int, y: float, weight: str) -> None:
    value, style = 100 * cell.value, series_style(place)
    colour = style["color"]
    if baseline:
        axes.plot([100 * baseline.value, value], [y, y], color=colour, linewidth=6, alpha=0.35,
                  solid_capstyle="butt", zorder=2)  # fmt: skip
    if cell.interval:
        axes.plot([100 * end for end in cell.interval], [y, y], color=colour, linewidth=1.3, zorder=5)
    axes.plot(value, y, **style, markersize=6.5, zorder=6, markeredgecolor="white", markeredgewidth=0.7)
    beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center"}
    axes.text(1.09, y, f"{value:.1f}", color=INK, fontsize=9.5, weight=weight, **beside)
    if cell.gain is not None:
        axes.text(1.18, y, _signed(cell.gain), color=colour, fontsize=9.5, weight="bold", **beside)


def _dress_gain(axes: Axes, table: Table, bottom: float) -> None:
    axes.set(xlim=(0, 100), ylim=(bottom, 0), yticks=[])
    axes.set_xlabel("accuracy in %; lines and bands: 95 % intervals", color=GREY, fontsize=9.5)
    plain_axes(axes, grid="x")
    above: dict[str, Any] = {"transform": axes.transAxes, "ha": "right", "va": "bottom", "color": GREY, "fontsize": 8}
    axes.text(1.09, 1.0, "accuracy\n%", **above)
    if any(cell.gain is not None for row in table.rows for cell in row.cells.values()):
        axes.text(1.18, 1.0, "gain\npoints", **above)
    handles = [_legend_handle(axes, column, table) for column in table.columns]
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False,
                fontsize=9.5, borderaxespad=0.2, borderpad=0, handletextpad=0.5, columnspacing=1.2)  # fmt: skip
    pad = 16 + 16 * -(-len(handles) // 4)
    axes.set_title(plain_text(_headline(table)), loc="left", fontsize=12, weight="bold", color=INK, pad=pad)


def _legend_handle(axes: Axes, column: TableColumn, table: Table) -> Line2D:
    if column.is_reference:
        style: dict[str, Any] = {"color": INK, "linewidth": 2.2}
        if column.model == "base":
            style = {"color": GREY, "linewidth": 1.3, "linestyle": (0, (2, 1.5))}
        return axes.plot([], [], label=plain_text(column.label), **style)[0]
    place = [other for other in table.columns if not other.is_reference].index(column)
    return axes.plot([], [], linestyle="none", label=plain_text(column.label), **series_style(place))[0]


def _headline(table: Table) -> str:
    """The gain of the branch that a plain `from_pretrained` loads, where it and a mean over sets were measured."""
    mean = table.rows[-1]
    for column, cell in mean.cells.items():
        if column.model == "advbn" and column.branch != "auxiliary" and mean.mean_over and cell.gain is not None:
            gain = f"{column.label}: {_signed(cell.gain)} points over the baseline"
            names = textwrap.wrap(f"(mean of {', '.join(mean.mean_over)})", _HEADLINE)
            return "\n".join([gain, *names])
    return "Accuracy per set"


def _signed(gain: float) -> str:
    return f"{gain:+.1f}".replace("-", "\N{MINUS SIGN}")


def _check_sets(sets: Mapping[str, datasets.Dataset]) -> None:
    if not sets:
        raise InputError("samples: no set to draw")
    for name, dataset in sets.items():
        if "image" not in dataset.column_names:
            raise InputError(f"samples: set {name!r} has no column 'image'; it has {', '.join(dataset.column_names)}")
        if not len(dataset):
            raise InputError(f"samples: set {name!r} is empty")


def _draw_sample(axes: Axes, dataset: datasets.Dataset, index: int, left: float, top: float) -> None:
    row = dataset[index]
    caption = _label_text(dataset, row["label"]) if "label" in row else ""
    try:
        image = to_rgb(datasets.Image().decode_example(row["image"]))
    except Exception:  # damaged files raise more than a dozen types in PIL; the evaluation has named them by now
        caption = "unreadable"
    else:
        # By itself, `pad` of Pillow 12 makes very wide images 0 pixels high.
        size = [max(1, round(72 * side / max(image.size))) for side in image.size]
        image = ImageOps.pad(image.resize(size, Image.Resampling.BICUBIC), (72, 72), color="white")
        axes.imshow(image, extent=(left, left + 0.95, top + 0.95, top), aspect="auto", interpolation="antialiased")
    axes.text(left + 0.475, top + 0.98, plain_text(caption), ha="center", va="top", color=INK, fontsize=7.5)


def _label_text(dataset: datasets.Dataset, label: int | str) -> str:
    feature = dataset.features["label"]
    return shortened(feature.int2str(label) if isinstance(feature, datasets.ClassLabel) else str(label))


def shortened(text: str) -> str:
    """A class name for a caption below a small image."""
    if " " in text:
        return textwrap.shorten(text, 14, placeholder="...")
    return text if len(text) <= 14 else f"{text[:11]}..."


def _logged(history: list[Mapping[str, float]], curves: Mapping[str, tuple[str, str]]) -> list[tuple]:
    """(colour, label, steps, values) of the curves that were logged."""
    kept = []
    for key, (colour, label) in curves.items():
        points = [(entry["step"], entry[key]) for entry in history if key in entry and "step" in entry]
        if points:
            kept.append((colour, label, *np.array(points, dtype=float).T))
    return kept


def _draw_curves(axes: Axes, title: str, curves: list[tuple]) -> None:
    for colour, label, steps, values in curves:
        window = max(1, len(values) // 40)
        if window > 1:
            axes.plot(steps, values, color=colour, linewidth=0.6, alpha=0.3)
        mean = np.convolve(values, np.ones(window) / window, mode="valid")
        axes.plot(steps[window - 1 :], mean, color=colour, linewidth=1.8, label=label)
    if len(curves) > 1:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(curves), frameon=False, borderaxespad=0.2)
    axes.set_title(title, loc="left", fontsize=11, weight="bold", color=INK)
    axes.set(xlim=(0, None), ylim=(min(0, axes.get_ylim()[0]), None))
    axes.tick_params(colors=GREY, length=0)
    axes.yaxis.grid(True, color=PALE, linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
