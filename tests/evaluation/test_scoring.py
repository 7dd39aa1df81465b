"""Records from predictions, against values computed by hand or by SciPy."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from advbn_hf.evaluation.predictions import Predictions, TopPredictions
from advbn_hf.evaluation.runner import MeasuredSet
from advbn_hf.evaluation.scoring import score
from advbn_hf.evaluation.sets import Shift
from advbn_hf.evaluation.suites import SetEntry, Suite
from advbn_hf.reporting.accuracy_table import comparison_table, to_markdown, to_text
from advbn_hf.reporting.suite_report import SuiteReport
from advbn_hf.shifts.generate import GROUPS

CLEAN = SetEntry("clean", "x")


def predictions(right, columns=("plain",), rows=None, confidence=0.8):
    """Of ten classes for images whose label is 0; a wrong one has the label second."""
    right = torch.as_tensor(right)
    top = torch.where(right[:, None], torch.tensor([0, 1, 2, 3, 4]), torch.tensor([1, 0, 2, 3, 4]))
    rows = torch.arange(len(right)) if rows is None else torch.tensor(rows)
    made = TopPredictions(top, torch.full((len(right),), confidence))
    return Predictions(rows, torch.zeros(len(right), dtype=torch.int64), dict.fromkeys(columns, made))


def first(num_right, num=10):
    return [index < num_right for index in range(num)]


def find(records, **wanted):
    found = [record for record in records if all(getattr(record, key) == value for key, value in wanted.items())]
    assert len(found) == 1
    return found[0].value


def test_one_set_of_one_plain_model():
    records = score([MeasuredSet(CLEAN, 10, {Shift(): {"resnet": predictions(first(7))}})])
    assert {(record.model, record.set, record.branch, record.shift, record.n) for record in records} == {
        ("resnet", "clean", None, None, 10)
    }
    assert {record.metric: record.value for record in records} == pytest.approx(
        {"accuracy": 0.7, "top5_accuracy": 1.0, "ece": 0.1}
    )


def test_no_top_5_of_five_classes():
    records = score([MeasuredSet(CLEAN, 5, {Shift(): {"resnet": predictions(first(7))}})])
    assert {record.metric for record in records} == {"accuracy", "ece"}


def test_branches_in_the_order_of_the_suite_and_their_mean_as_a_model():
    columns = ("clean", "auxiliary", "mean")
    for branch, order in (("clean", ["clean", "auxiliary"]), ("auxiliary", ["auxiliary", "clean"])):
        entry = SetEntry("sketch", "x", branch=branch)
        records = score([MeasuredSet(entry, 10, {Shift(): {"advbn": predictions(first(4), columns)}})])
        kept = [(record.model, record.branch) for record in records if record.metric == "accuracy"]
        assert kept == [("advbn", order[0]), ("advbn", order[1]), ("advbn (mean of branches)", None)]


def test_a_baseline_is_compared_on_the_images_that_both_have():
    ours, theirs = first(9), [index % 2 == 0 for index in range(10)]
    measured = MeasuredSet(
        CLEAN, 10, {Shift(): {"resnet": predictions(ours[1:], rows=range(1, 10)), "baseline": predictions(theirs)}}
    )
    # Of rows 1 to 9, only we are right on 1, 3, 5, 7; only the baseline on none.
    assert find(score([measured]), metric="gain_p_value") == pytest.approx(binomtest(4, 4).pvalue)


def test_what_others_are_compared_with_is_not_compared_itself():
    models = {name: predictions(first(count)) for name, count in (("base", 5), ("baseline", 4), ("advbn", 9))}
    records = score([MeasuredSet(CLEAN, 10, {Shift(): models})])
    assert [record.model for record in records if record.metric == "gain_p_value"] == ["advbn"]


def test_a_set_under_several_shifts():
    entry = SetEntry("c", "x", shift=("fog", "snow"), severities=(1, 2))
    counts = {Shift("fog", 1): (9, 6), Shift("fog", 2): (8, 5), Shift("snow", 1): (7, 4), Shift("snow", 2): (2, 1)}
    by_shift = {
        shift: {"r": predictions(first(a)), "baseline": predictions(first(b))} for shift, (a, b) in counts.items()
    }
    measured = MeasuredSet(entry, 10, by_shift)
    records = score([measured])
    whole = {"shift": None, "metric": "accuracy"}
    assert find(records, model="r", **whole) == pytest.approx(0.65)
    assert find(records, model="baseline", **whole) == pytest.approx(0.4)
    assert find(records, model="r", metric="accuracy", shift="snow", severity=2) == 0.2
    assert {record.n for record in records} == {10}  # all shifts show the same images
    gains = np.array([sum((index < a) - (index < b) for a, b in counts.values()) / 4 for index in range(10)])
    t = gains.mean() / (gains.std(ddof=1) / np.sqrt(10))
    assert t == pytest.approx(3)
    # Two-sided, of Student's distribution with 9 degrees of freedom.
    assert find(records, shift=None, metric="gain_p_value") == pytest.approx(0.01496, abs=1e-5)


def corruption_set(errors, **settings):
    """100 images, of which `errors[model]` are wrong under every shift."""
    entry = SetEntry("c", "x", shift=GROUPS["corruptions"], clean="clean", **settings)
    by_shift = {
        Shift(shift, severity): {model: predictions(first(100 - wrong, 100)) for model, wrong in errors.items()}
        for shift in entry.shift
        for severity in range(1, 6)
    }
    return MeasuredSet(entry, 10, by_shift)


def test_mean_corruption_error_against_a_baseline():
    models = {"r": predictions(first(90, 100)), "baseline": predictions(first(80, 100))}
    clean = MeasuredSet(CLEAN, 10, {Shift(): models})
    records = score([clean, corruption_set({"r": 40, "baseline": 50}, mce="baseline")])
    assert find(records, model="r", metric="mce") == pytest.approx(80)
    assert find(records, model="baseline", metric="mce") == pytest.approx(100)
    assert find(records, model="r", metric="relative_mce") == pytest.approx(100 * (0.4 - 0.1) / (0.5 - 0.2))


def test_mean_corruption_error_against_alexnet():
    records = score([corruption_set({"r": 40}, mce="alexnet")])
    published = (0.886428, 0.894468, 0.922640, 0.819880, 0.826268, 0.785948, 0.798360, 0.866816, 0.826572, 0.819324,
                 0.564592, 0.853204, 0.646056, 0.717840, 0.606500)  # fmt: skip
    assert find(records, metric="mce") == pytest.approx(100 * np.mean([0.4 / error for error in published]))
    assert not [record for record in records if record.metric == "relative_mce"]


def test_what_cannot_be_divided_by_is_left_out():
    records = score([corruption_set({"r": 40, "baseline": 0}, mce="baseline")])
    assert not [record for record in records if "mce" in record.metric]
    assert find(records, model="r", shift=None, metric="accuracy") == pytest.approx(0.6)
    assert not [r for r in score([corruption_set({"r": 40}, mce="baseline")]) if "mce" in r.metric]


def test_tables_show_the_paired_test_and_the_branch_to_report_first():
    entry = SetEntry("sketch", "x", branch="auxiliary")
    columns = ("clean", "auxiliary", "mean")
    measured = MeasuredSet(
        entry, 10, {Shift(): {"advbn": predictions(first(90, 100), columns), "baseline": predictions(first(70, 100))}}
    )
    report = SuiteReport(score([measured]), Suite((entry,)))
    assert "+20.0 (p < 0.001)" in report.to_text()
    assert "*90.0" in report.to_text() and "top-5 accuracy" in report.to_text()
    table = comparison_table(report.records, first={"sketch": "auxiliary"})
    line = next(line for line in to_markdown(table).splitlines() if line.startswith("| sketch"))
    assert line.count("**90.0**") == 1
    assert "*" not in to_text(comparison_table(report.records))


def test_markdown_has_all_shifts(tmp_path):
    measured = corruption_set({"r": 40}, mce="alexnet")
    SuiteReport(score([measured]), Suite((CLEAN, measured.entry))).write_markdown(tmp_path / "results.md")
    text = (tmp_path / "results.md").read_text()
    assert "c (ImageNet-C-style, generated)" in text
    assert "jpeg\\_compression 5" in text
    assert "mCE, %" in text
