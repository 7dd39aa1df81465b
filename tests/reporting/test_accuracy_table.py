"""The comparison table, as data, text and Markdown; and the plots made of it."""

from dataclasses import replace

import datasets
import numpy as np
import pytest
from PIL import Image

from advbn_hf import InputError
from advbn_hf.evaluation.records import Record
from advbn_hf.reporting import plots
from advbn_hf.reporting.accuracy_table import comparison_table, renamed, to_markdown, to_text
from advbn_hf.reporting.plots import plot_gain, plot_samples, plot_training

ACCURACIES = {  # set -> base, baseline, AdvBN clean, AdvBN auxiliary
    "clean": (0.99, 0.98, 0.975, 0.96),
    "filters": (0.5, 0.6, 0.7, 0.75),
    "sketch": (0.4, 0.3, 0.5, 0.2),
}
COLUMNS = (("base", None), ("baseline", None), ("advbn", "clean"), ("advbn", "auxiliary"))


def records(n=100, columns=COLUMNS):
    return [
        Record(*column[:1], name, None, None, column[1], "accuracy", value, n)
        for name, values in ACCURACIES.items()
        for column, value in zip(COLUMNS, values, strict=True)
        if column in columns
    ]


def by_label(row):
    return {column.label: cell for column, cell in row.cells.items()}


def test_rows_and_columns_in_order():
    table = comparison_table(reversed(records()))
    assert [column.label for column in table.columns] == ["base", "baseline", "AdvBN clean", "AdvBN auxiliary"]
    assert [row.name for row in table.rows] == ["sketch", "filters", "clean"]
    assert by_label(table.rows[1])["AdvBN clean"].value == 0.7


def test_gain_is_in_points_over_the_baseline():
    row = by_label(comparison_table(records()).rows[2])
    assert row["AdvBN clean"].gain == pytest.approx(20) and row["AdvBN auxiliary"].gain == pytest.approx(-10)
    assert row["base"].gain is None and row["baseline"].gain is None


def test_mean_of_named_sets():
    mean = comparison_table(records(), mean_over=("filters", "sketch")).rows[-1]
    assert mean.name == "mean of 2 sets" and mean.mean_over == ("filters", "sketch") and mean.images == "200"
    assert by_label(mean)["AdvBN clean"].value == pytest.approx(0.6)
    assert by_label(mean)["AdvBN clean"].gain == pytest.approx(15)
    # The Wilson intervals of 0.7 and 0.5 on 100 images are 0.604152 to 0.781051 and 0.403832 to 0.596168.
    assert by_label(mean)["AdvBN clean"].interval == pytest.approx((0.503992, 0.688610), abs=1e-6)


def test_a_mean_lacks_what_one_of_its_sets_lacks():
    kept = [record for record in records() if (record.model, record.set) != ("base", "sketch")]
    assert "base" not in by_label(comparison_table(kept, mean_over=("filters", "sketch")).rows[-1])
    with pytest.raises(InputError, match=r"mean_over: .*fog.*clean, filters, sketch"):
        comparison_table(records(), mean_over=("filters", "fog"))


def test_names_of_a_table_are_changed_throughout():
    table = renamed(comparison_table(records(), mean_over=("filters", "sketch")), str.upper)
    upper = [replace(record, model=record.model.upper(), set=record.set.upper()) for record in records()]
    assert [column.model for column in table.columns] == ["BASE", "BASELINE", "ADVBN", "ADVBN"]
    assert [row.name for row in table.rows] == ["CLEAN", "FILTERS", "SKETCH", "MEAN OF 2 SETS"]
    assert table.rows[-1].mean_over == ("FILTERS", "SKETCH")
    for row, expected in zip(table.rows, comparison_table(upper, ("FILTERS", "SKETCH")).rows, strict=True):
        assert [cell.value for cell in row.cells.values()] == [cell.value for cell in expected.cells.values()]
        assert {column.model for column in row.cells} == {"BASE", "BASELINE", "ADVBN"}


def test_one_thing_measured_twice_is_refused():
    with pytest.raises(InputError, match=r"'clean'.*'AdvBN clean'"):
        comparison_table(records() + records(columns=[("advbn", "clean")])[:1])


def test_shift_and_severity_make_a_row_and_other_metrics_do_not():
    extra = [Record("advbn", "corruptions", "fog", s, "clean", "accuracy", 0.5, 10) for s in (1, 3)]
    extra.append(Record("advbn", "corruptions", None, None, "clean", "mce", 0.9, None))
    assert [row.name for row in comparison_table(extra).rows] == ["corruptions fog 1", "corruptions fog 3"]


def test_text_is_aligned_and_complete():
    lines = to_text(comparison_table(records(), mean_over=("filters", "sketch"))).splitlines()
    assert len({len(line) for line in lines[:-1]}) == 1
    assert " ".join(lines[0].split()) == "set images base baseline AdvBN clean gain AdvBN auxiliary gain"
    assert lines[3].split()[:3] == ["filters", "100", "50.0"] and "+10.0" in lines[3] and "+15.0" in lines[3]
    assert "70.0 +-8.8" in lines[3]  # half of 0.604152 to 0.781051
    assert lines[-1].endswith("Mean of 2 sets: filters, sketch.")


def test_one_set_and_one_model_alone():
    text = to_text(comparison_table(records(columns=[("advbn", "clean")])[:1]))
    assert text.splitlines()[0].split() == ["set", "images", "AdvBN"] and "gain" not in text and "base" not in text
    assert "+-" not in to_text(comparison_table(records(n=None)))


def test_markdown_table_escapes_names():
    odd = Record("a|b", "<b>_x_ [y](z)", None, None, None, "accuracy", 0.5, 10)
    lines = to_markdown(comparison_table([*records(), odd])).splitlines()
    assert lines[3].startswith("| filters | 100 | 50.0 [40.4, 59.6] |") and "| +10.0 |" in lines[3]
    assert r"| a\|b |" in lines[0] and lines[5].startswith(r"| &lt;b&gt;\_x\_ \[y\](z) | 10 |")
    assert {line.replace(r"\|", "").count("|") for line in lines[:6]} == {10}


def test_a_mean_of_many_sets_leaves_the_title_in_the_figure(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(plots, "write_figure", lambda figure, path: drawn.update(figure=figure))
    many = [replace(record, set=f"{record.set} by designer {number}") for number in range(4) for record in records()]
    plot_gain(comparison_table(many, list(dict.fromkeys(record.set for record in many))), tmp_path / "results.png")
    figure = drawn["figure"]
    figure.draw_without_rendering()
    (axes,) = figure.axes
    title = axes.get_title("left")
    assert title.replace("\n", " ").count("by designer") == 12
    assert axes._left_title.get_window_extent().x1 < figure.bbox.x1


@pytest.mark.parametrize("columns", [COLUMNS, COLUMNS[2:3], COLUMNS[:1]])
def test_gain_is_drawn_in_a_small_file(tmp_path, columns):
    plot_gain(comparison_table(records(columns=columns), ("filters", "sketch")), tmp_path / "results.png")
    with Image.open(tmp_path / "results.png") as image:
        assert image.format == "PNG" and image.width > 1000 and len(image.getcolors()) > 10
    assert (tmp_path / "results.png").stat().st_size < 150_000
    with pytest.raises(InputError, match="no accuracy"):
        plot_gain(comparison_table([]), tmp_path / "none.png")
    assert [path.name for path in tmp_path.iterdir()] == ["results.png"]


def test_the_drawn_gain_follows_the_numbers(tmp_path):
    for name, drawn in (("one", records()), ("same", records()), ("other", records(n=1000))):
        plot_gain(comparison_table(drawn), tmp_path / name)
    one, same, other = ((tmp_path / name).read_bytes() for name in ("one", "same", "other"))
    assert one == same != other


def solid(colours, **columns):
    images = [Image.new("RGB", (8, 12), colour) for colour in colours]
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a$b$", "_" * 40]))
    return datasets.Dataset.from_dict({"image": images, "label": [0, 1] * (len(images) // 2)}, features=features)


def colours_in(path):
    with Image.open(path) as image:
        return {tuple(colour) for colour in np.asarray(image.convert("RGB")).reshape(-1, 3)}


def test_samples_show_images_of_each_set(tmp_path):
    sets = {"reds": solid([(200, 0, 0)] * 4), "greens": solid([(0, 150, 0)] * 6)}
    plot_samples(sets, tmp_path / "samples.png", columns=3)
    assert {(200, 0, 0), (0, 150, 0)} <= colours_in(tmp_path / "samples.png")
    undecoded = {name: rows.cast_column("image", datasets.Image(decode=False)) for name, rows in sets.items()}
    plot_samples(undecoded, tmp_path / "undecoded.png", columns=3)
    assert (tmp_path / "samples.png").read_bytes() == (tmp_path / "undecoded.png").read_bytes()


def test_samples_depend_on_the_seed_and_take_the_same_rows_everywhere(tmp_path):
    palette = [(10 * i, 0, 250 - 10 * i) for i in range(20)]
    for seed in (0, 1):
        plot_samples({"x": solid(palette), "y": solid(palette)}, tmp_path / f"{seed}.png", columns=2, seed=seed)
        assert len(colours_in(tmp_path / f"{seed}.png") & set(palette)) == 2
    assert (tmp_path / "0.png").read_bytes() != (tmp_path / "1.png").read_bytes()


def test_samples_without_images_are_refused_and_damaged_ones_passed_over(tmp_path):
    rows = solid([(200, 0, 0)] * 2)
    for sets, message in (
        ({}, "set"),
        ({"x": rows.rename_column("image", "photo")}, "'x'.*'image'.*photo, label"),
        ({"x": rows.select([])}, "'x'.* empty"),
    ):
        with pytest.raises(InputError, match=message):
            plot_samples(sets, tmp_path / "samples.png")
    damaged = datasets.Dataset.from_dict({"image": [{"bytes": b"no image", "path": None}], "label": [1]})
    plot_samples({"x": damaged, "y": rows}, tmp_path / "samples.png")
    assert (200, 0, 0) in colours_in(tmp_path / "samples.png")


def test_training_curve_draws_what_was_logged(tmp_path):
    ascent = {"loss_before_ascent": 1.0, "loss_after_ascent": 1.3, "mean_distance": 0.7, "std_distance": 0.8}
    log = [{"step": s, "loss": 2 / s, "clean_loss": 1 / s, **ascent} for s in range(1, 90)]
    plot_training([*log, {"step": 89, "eval_loss": 1.0}], tmp_path / "full.png", 64)
    plot_training([{"step": 5, "loss": 1.0, "loss_after_ascent": 1.0}], tmp_path / "two.png")
    plot_training([{"step": 5, "loss": 1.0}], tmp_path / "one.png")
    heights = [Image.open(tmp_path / f"{name}.png").height for name in ("full", "two", "one")]
    assert heights[0] > heights[1] > heights[2]  # the losses of the ascent and its multipliers have their own panels
    with pytest.raises(InputError, match="loss"):
        plot_training([{"step": 5, "eval_loss": 1.0}], tmp_path / "none.png")
