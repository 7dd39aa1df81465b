"""Summary, questions and plots of a comparison, by hand."""

from dataclasses import replace

import pytest
from comparison import tuning
from comparison.grid import Trial
from comparison.plots import apart, frontier, method_label
from comparison.questions import answers
from comparison.report import to_markdown
from comparison.summary import paired_gain, summarize

from advbn_hf.data.embedded.rendering import STYLES


def test_paired_interval_by_hand():
    # Differences 1 to 5: mean 3, standard deviation sqrt(2.5); t of 4 degrees of freedom at 97.5 % is 2.7764.
    values, reference = {seed: 60.0 + seed for seed in range(6)}, dict.fromkeys(range(5), 59.0) | {9: 1.0}
    gain, interval = paired_gain(values, reference)
    assert gain == 3.0
    assert interval == pytest.approx((3 - 2.7764 * 2.5**0.5 / 5**0.5, 3 + 2.7764 * 2.5**0.5 / 5**0.5), abs=1e-3)
    assert paired_gain({0: 5.0}, {0: 3.0}) == (2.0, None)
    assert paired_gain({0: 5.0}, {1: 3.0}) == (None, None)
    assert paired_gain({0: 5.0, 1: 6.0}, {0: 4.0, 1: 5.0}) == (1.0, (1.0, 1.0))


def test_summary_by_hand():
    def trial(method, seed, accuracy):
        sets = dict.fromkeys(STYLES, accuracy) | {"sketch": accuracy + 0.04}
        result = {"accuracy": {"clean": sets}, "cost": 1.0, "cost_without_views": 1.0, "step_ms": 5.0, "steps": 3}
        return Trial(method, "digits", "resnet", seed, "steps", result)

    trials = [trial("plain", 0, 0.5), trial("plain", 1, 0.6), trial("advbn", 0, 0.6), trial("advbn", 1, 0.8)]
    entries = {(entry.method, entry.set): entry for entry in summarize(trials, "plain")}
    shifts = entries["advbn", "shifts"]  # the mean of four sets, of which one is 4 points better
    assert (shifts.mean, shifts.std, shifts.seeds) == (pytest.approx(71), pytest.approx(20 / 2**0.5), 2)
    assert shifts.gain == pytest.approx(15)
    assert shifts.interval == pytest.approx((15 - 12.7062 * 5, 15 + 12.7062 * 5), abs=1e-2)
    assert entries["advbn", "clean"].mean == pytest.approx(70)
    assert entries["plain", "shifts"].gain == 0


def test_trials_without_a_branch_or_set_that_others_have_are_left_out_there():
    def trial(method, seed, **accuracy):
        result = {"accuracy": accuracy, "cost": 1.0, "cost_without_views": 1.0, "step_ms": 5.0, "steps": 3}
        return Trial(method, "digits", "resnet", seed, "steps", result)

    sets = dict.fromkeys(STYLES, 0.5)
    trials = [trial("plain", 0, clean=sets), trial("advbn", 0, clean=sets)]
    trials += [
        trial(name, 1, clean=sets | {"unseen": value}, adapted=sets | {"unseen": value})
        for name, value in (("plain", 0.25), ("advbn", 0.75))
    ]
    entries = {(entry.method, entry.branch, entry.set): entry for entry in summarize(trials, "plain")}
    unseen = entries["advbn", "clean", "unseen"]
    assert (unseen.seeds, unseen.mean, unseen.gain) == (1, 75, 50)
    assert entries["advbn", "clean", "shifts"].seeds == 2
    assert entries["advbn", "clean", "shifts"].mean == 50  # the unseen set is not among the shifts
    assert entries["plain", "adapted", "unseen"].seeds == 1
    header, _, *lines = (
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in to_markdown(list(entries.values()), "plain").splitlines()
    )
    assert [line[header.index("unseen")] for line in lines] == ["25.0", "75.0"]
    assert [line[header.index("adapted (sees test images): shifts")] for line in lines] == ["50.0", "50.0"]
    assert header[-2:] == ["cost", "cost without views"]


def test_settings_are_chosen_without_the_shift_that_is_reported():
    def trials(method, **accuracy):
        return [
            Trial(method, "digits", "resnet", seed, "steps", {"accuracy": {"clean": {**accuracy, "clean": 1.0}}})
            for seed in (0, 1)
        ]

    names = ["filters", "corruptions", "stylized", "sketch"]
    flat = dict.fromkeys(names, 0.5) | {"unseen": 0.1}
    made = [
        *trials("np", **flat),
        *trials("np:spread=1", **flat | {"sketch": 0.9, "unseen": 0.2}),  # best thanks to sketch alone
        *trials("np:spread=2", **flat | {"filters": 0.6, "stylized": 0.6, "unseen": 0.9}),
        *trials("plain", **flat),
    ]
    made.append(replace(made[0], method="mixstyle", seed=0))
    made.append(replace(made[0], method="mixstyle:alpha=1", seed=1))  # no seed in common
    found = tuning.leave_one_out(made)
    assert found.keys() == {"np", "plain"}
    assert found["np"]["sketch"] == tuning.LeftOut("np:spread=2", {0: 50.0, 1: 50.0})
    assert found["np"]["filters"] == tuning.LeftOut("np:spread=1", {0: 50.0, 1: 50.0})
    assert found["np"]["unseen"] == tuning.LeftOut("np:spread=1", {0: 20.0, 1: 20.0})  # whatever it has there
    header, _, *lines = tuning.to_markdown(made[2:]).splitlines()
    assert [cell.strip() for cell in header.split("|")[1:-1]][:4] == ["method", "settings tried", "mean", "filters"]
    assert [line.split("|")[1].strip() for line in lines] == ["np", "plain"]
    assert "| 50.0 ± 0.0 |" in lines[0] and "spread=1; spread=2" in lines[0]
    assert tuning.to_markdown(trials("plain", **flat)) == ""
    earlier = trials("np", **dict.fromkeys(names, 0.5)) + trials("np:spread=1", **dict.fromkeys(names, 0.7))
    assert tuning.leave_one_out(earlier)["np"].keys() == set(names)
    assert "70.0" in tuning.to_markdown(earlier)
    assert tuning.leave_one_out(trials("np", sketch=0.5)) == {}


def test_frontier():
    assert frontier([1, 2, 2, 3, 4], [50, 60, 61, 55, 62]) == [0, 2, 4]


def test_questions_are_answered_by_paired_differences():
    def trial(method, seed, clean, auxiliary=None):
        accuracy = {"clean": dict.fromkeys(STYLES, clean)} | (
            {"auxiliary": dict.fromkeys(STYLES, auxiliary)} if auxiliary else {}
        )
        return Trial(method, "digits", "resnet", seed, "steps", {"accuracy": accuracy})

    trials = [
        trial("advbn", 0, 0.7, 0.8),
        trial("advbn", 1, 0.6, 0.8),
        trial("random_image", 0, 0.5, 0.5),
        trial("random_image", 2, 0.1, 0.1),
    ]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in answers(trials).splitlines()]
    assert lines[0] == ["question", "on", "digits"]
    assert lines[2] == ["Does one adversarial step beat random styles?", "shifts", "+20.0"]  # of the one common seed
    assert lines[3] == [
        "Does the auxiliary branch beat the clean one?",
        "shifts",
        "+15.0 [-48.5, +78.5]",
    ]  # 12.706 * 5
    assert len(lines) == 5  # nothing about methods that were not compared


def test_names_of_methods_with_settings_of_their_own_are_short():
    assert method_label("advbn") == "advbn"
    text = "advbn:insert_after=resnet.encoder.stages.1,num_perturbations=16,epsilon=0.5"
    assert method_label(text) == "advbn (stages 1, 16, 0.5)"


def test_names_in_the_cost_plot_do_not_overlap():
    costs, values = [1, 2.2, 2.3, 2.25, 8, 3], [10, 50, 50.1, 50.2, 60, 30]
    spans = [(1.1 * cost, 1.5 * cost) for cost in costs]
    heights = apart(costs, values, spans, gap=2)
    assert [heights[place] for place in (0, 4, 5)] == [10, 60, 30]  # nothing beside them
    low, middle, high = heights[1:4]
    assert middle - low == pytest.approx(2, abs=1e-6)
    assert high - middle == pytest.approx(2, abs=1e-6)
    assert middle == pytest.approx(50.1, abs=1e-6)


def test_names_in_the_cost_plot_leave_the_points_of_others():
    heights = apart([1, 1.2], [50, 51], [(1.1, 1.5), (1.3, 1.7)], gap=1)
    assert heights[0] < 50.2
    assert heights[1] - heights[0] >= 1 - 1e-6
