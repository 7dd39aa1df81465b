"""How all plots look: colours, markers, figures and the files that they are written to."""

import io
import os
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from ..utils.files import write_atomically

# Okabe and Ito's colours, told apart by colour-blind readers too (jfly.uni-koeln.de/color).
BLUE, VERMILLION, GREEN, PURPLE, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"
SERIES_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE)
SERIES_MARKERS = ("o", "D", "s", "^", "v")
INK, GREY, PALE = "#1a1a1a", "#6e6e6e", "#e4e4e4"
SMALL_LETTERS = {"text.hinting": "none"}  # hinted ones change their shape from one small size to the next


def plain_text(text: str) -> str:
    """Text with its dollars escaped, between which Matplotlib would set a formula."""
    return text.replace("$", r"\$")


def series_style(place: int) -> dict[str, Any]:
    """Colour and marker of a series by its place in the legend; they repeat after five.

    Args:
        place: 0 or more.
    """
    return {
        "color": SERIES_COLOURS[place % len(SERIES_COLOURS)],
        "marker": SERIES_MARKERS[place % len(SERIES_MARKERS)],
    }


def new_figure(height: float) -> Figure:
    """An empty figure, 8.4 inches wide.

    Args:
        height: in inches.
    """
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
    return Figure(figsize=(8.4, height), layout=layout, facecolor="white")


def plain_axes(axes: Axes, grid: Literal["x", "y", "both"] = "both") -> None:
    """Neither frame nor ticks; a pale grid behind what is drawn.

    Args:
        axes: to change.
        grid: the axis whose grid lines are drawn.
    """
    axes.tick_params(colors=GREY, length=0)
    axes.grid(True, axis=grid, color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)


def write_within(axes: Axes, x: float, y: float, text: str, width: float, **style: Any) -> None:
    """Text that is not parsed as a formula, in smaller letters where it would be wider than there is room.

    Args:
        axes: whose limits are final, in a figure of the resolution that it is written with.
        x, y: where, in the data's units.
        text: one line.
        width: the room, in the data's units of x.
        style: of `Axes.text`.
    """
    written = axes.text(x, y, plain_text(text), **style)
    # Hinted letters keep their width over a range of sizes, so that it is not proportional to the size.
    while written.get_window_extent().transformed(axes.transData.inverted()).width > width:
        written.set_fontsize(written.get_fontsize() * 0.95)


def write_figure(figure: Figure, path: str | os.PathLike, dpi: int = 150, colours: int | None = 256) -> None:
    """Writes a figure as PNG, atomically; with 256 colours plots look the same in a third of the size."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    image = Image.open(drawn).convert("RGB")
    if colours is not None:
        image = image.quantize(colours, dither=Image.Dither.NONE)
    image.save(small, format="png", optimize=True)
    write_atomically(path, small.getvalue())
