"""Confidence of each model over the severities of a shift."""

import io

from matplotlib.figure import Figure
from PIL import Image

from ..reporting.plot_style import GREY, INK, PALE, plain_axes, plain_text, series_style
from .sweep import Sweep


def plot_sweep(sweep: Sweep, chosen: int) -> Image.Image:
    """Draws each model's confidence in its own prediction for the image as it is.

    Args:
        sweep: the images and the predictions.
        chosen: which of its images is shown beside the plot.
    """
    figure = Figure(figsize=(4.8, 3.4), layout="constrained", facecolor="white", dpi=160)
    axes = figure.add_subplot()
    places = range(len(sweep.steps))
    axes.axvline(chosen, color=PALE, linewidth=9, zorder=0)
    for place, branch in enumerate(sweep.predictions):
        own = branch.probabilities[0].argmax()
        label = f"{branch.title}: {branch.class_names[own]}"
        axes.plot(
            places,
            (100 * branch.probabilities[:, own]).tolist(),
            label=plain_text(label[:48]),
            linewidth=1.8,
            **series_style(place),
        )
    axes.set(ylim=(-4, 104), xticks=places, xticklabels=sweep.steps)
    axes.set_xlim(-0.4, len(sweep.steps) - 0.6)
    axes.set_xlabel(f"{sweep.shift.replace('_', ' ')}: severity" if len(sweep.steps) > 2 else sweep.shift, color=GREY)
    axes.set_ylabel("confidence, %", color=GREY)
    plain_axes(axes, grid="y")
    axes.set_title(
        "Confidence in the prediction for the image as it is", loc="left", fontsize=10, weight="bold", color=INK
    )
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", frameon=False, fontsize=9, ncols=1)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    return Image.open(drawn).convert("RGB")


def describe_sweep(sweep: Sweep) -> str:
    """The plot in words, for screen readers."""
    described = []
    for branch in sweep.predictions:
        own = branch.probabilities[0].argmax()
        values = ", ".join(f"{value:.0%}" for value in branch.probabilities[:, own].tolist())
        described.append(f"{branch.title}, confidence in {branch.class_names[own]}: {values}")
    return f"{sweep.shift}, {', '.join(sweep.steps)}. {'; '.join(described)}."
