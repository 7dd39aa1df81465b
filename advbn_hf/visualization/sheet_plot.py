"""A contact sheet as an image."""

import os
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from ..reporting.plot_style import GREY, INK, SMALL_LETTERS, VERMILLION, plain_text, write_figure, write_within
from ..reporting.plots import shortened
from .sheet import Prediction, SheetColumn

SIDE = 0.98  # inches from one image to the next
LINE = 0.17  # height of a line of a caption, in sides
ROW = 1 + 2 * LINE + 0.1  # height of a row, in sides: an image and two lines
HEAD, LEFT = 0.62, 0.95  # what stands above and beside the images, in sides
LETTERS = 15  # of the note, in a side
DPI = 110  # texts are measured as they are drawn


@rc_context(SMALL_LETTERS)
def plot_sheet(
    columns: Sequence[SheetColumn],
    labels: Sequence[int],
    class_names: Sequence[str],
    path: str | os.PathLike,
    note: str = "",
) -> None:
    """Draws a contact sheet: a row for each image, with the predictions of each branch below it.

    Args:
        columns: from `contact_sheet`.
        labels: the class of each row.
        class_names: names of the classes, in the order of their numbers.
        path: the PNG file to write.
        note: for the foot; lines that are too long are broken.
    """
    width = LEFT + len(columns)
    lines = [line for text in note.splitlines() for line in textwrap.wrap(text, int(LETTERS * width))]
    note = plain_text("\n".join(lines))
    height = HEAD + ROW * len(labels) + LINE * len(lines) + 0.08
    figure = Figure(figsize=(SIDE * width, SIDE * height), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-LEFT, len(columns)), ylim=(height - HEAD, -HEAD), autoscale_on=False)
    axes.axis("off")
    for place, column in enumerate(columns):
        axes.text(place + 0.48, -0.06, column.title, ha="center", va="bottom", color=INK, fontsize=8, weight="bold")
    for line, label in enumerate(labels):
        top = ROW * line
        style = {"ha": "right", "va": "center", "color": INK, "fontsize": 9.5, "weight": "bold"}
        write_within(axes, -0.08, top + 0.5, shortened(class_names[label]), LEFT - 0.12, **style)
        for step, branch in enumerate(columns[0].predictions):
            axes.text(-0.08, top + 1 + LINE * (step + 0.55), branch, ha="right", va="center", color=GREY, fontsize=7.5)
        for place, column in enumerate(columns):
            _draw_image(axes, column.images[line], place, top)
            for step, predictions in enumerate(column.predictions.values()):
                _draw_prediction(axes, predictions[line], label, class_names, place, top + 1 + LINE * (step + 0.55))
    axes.text(-LEFT + 0.08, height - HEAD - 0.08, note, ha="left", va="bottom", color=GREY, fontsize=7.5)
    write_figure(figure, path, dpi=DPI, colours=None)


def _draw_image(axes: Axes, image: Image.Image, place: int, top: float) -> None:
    image = ImageOps.pad(image, (104, 104), Image.Resampling.BICUBIC, color="white")
    axes.imshow(np.asarray(image), extent=(place, place + 0.96, top + 0.96, top), aspect="auto")


def _draw_prediction(
    axes: Axes, prediction: Prediction, label: int, class_names: Sequence[str], place: int, y: float
) -> None:
    """A wrong prediction has a cross before it and bold letters, besides its colour."""
    correct = prediction.label == label
    text = f"{'' if correct else '✗ '}{shortened(class_names[prediction.label])} {prediction.confidence:.0%}"
    style = {"color": INK} if correct else {"color": VERMILLION, "weight": "bold"}
    write_within(axes, place + 0.48, y, text, 0.92, ha="center", va="center", fontsize=7.5, **style)
