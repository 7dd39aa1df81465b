"""`recipes/benchmark.py` in small, and its mistakes; no time is asserted."""

import json
import re
import sys

import benchmark
import datasets
import pytest
from benchmarking import timing

from advbn_hf.utils.cli import run


@pytest.mark.slow
def test_evaluation_in_small(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    file = tmp_path / "new" / "benchmark.json"
    options = ["--only", "evaluation", "--num_images", "3", "--batch_size", "2", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *options, "--output_file", str(file)])
    for _ in range(2):  # the second time beside what another benchmark has written
        run(benchmark.main)
        assert "evaluation:\noverhead of our loop over the bare forward pass" in capsys.readouterr().out
        numbers = json.loads(file.read_text())
        assert len(numbers["evaluation"]["ratios"]) == 1
        file.write_text(json.dumps({"training": {"records": []}, **numbers}))
    assert numbers.keys() == {"training", "evaluation"}


def test_ratios_are_of_ours_to_the_reference(monkeypatch):
    clock = iter([0, 1, 1, 2, 10, 13, 20, 22, 30, 35, 40, 45])  # a pass that is not counted, then 3 to 2 and 5 to 5
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    seconds = timing.time_in_turn({"ours": lambda: None, "bare": lambda: None}, 2)
    assert seconds == {"ours": [3, 5], "bare": [2, 5]}
    found = timing.ratios(seconds["ours"], seconds["bare"])
    assert found == [1.5, 1.0]
    assert benchmark.describe(found) == "+25.0 % (median of 2, +0.0 to +50.0)"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "speed"], "only: .*'speed'"),
        (["--repeats", "0"], "repeats .*0"),
    ],
)
def test_mistakes(monkeypatch, capsys, options, message):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *options])
    with pytest.raises(SystemExit) as left:
        run(benchmark.main)
    assert left.value.code == 2
    assert re.search(f"error: {message}", capsys.readouterr().err)
