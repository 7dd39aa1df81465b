"""Texts of plots fit where they are written."""

import pytest
from matplotlib.figure import Figure

from advbn_hf.reporting.plot_style import write_within


@pytest.mark.parametrize("text", ["cat", "high-voltage 100%", "✗ $a very long name of a class$ 100%"])
@pytest.mark.parametrize("place", [(0.5, "center"), (1.0, "right")])
def test_a_text_is_as_wide_as_its_room_at_most(text, place):
    figure = Figure(figsize=(2, 1))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-1, 3), ylim=(1, 0))
    x, align = place
    write_within(axes, x, 0.5, text, 0.9, ha=align, va="center", fontsize=7.5)
    (written,) = axes.texts
    box = written.get_window_extent().transformed(axes.transData.inverted())
    assert box.width <= 0.9
    assert (written.get_fontsize() == 7.5) == (text == "cat")
