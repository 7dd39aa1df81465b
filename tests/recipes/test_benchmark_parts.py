"""The parts of the benchmark about loading, processes and planning, in small; no time is asserted."""

import sys
from types import SimpleNamespace

import benchmark
import pytest
import torch
from benchmarking import data as benchmark_data
from benchmarking import planning as benchmark_planning
from benchmarking import processes as benchmark_processes
from benchmarking import profile as benchmark_profile
from benchmarking import training as benchmark_training

from advbn_hf.utils.cli import run


@pytest.mark.slow
def test_every_loader_of_images_feeds_the_step(monkeypatch):
    small = benchmark_training.BACKBONES["resnet_small"]
    monkeypatch.setitem(benchmark_training.BACKBONES, "resnet50", small)
    monkeypatch.setattr(benchmark_data, "SIZE", 48)
    seen = []
    call = benchmark_training.Step.__call__
    monkeypatch.setattr(
        benchmark_training.Step, "__call__", lambda step, *args: (seen.append(step.images), call(step, *args))
    )
    text, numbers = benchmark_data.measure_loading(2, 1, torch.device("cpu"))
    kinds = ["map-style, 0 workers", "map-style, 2 workers", "streaming, 0 workers", "streaming, 2 workers"]
    assert [line.split(":")[0] for line in text.splitlines()] == list(numbers) == kinds
    assert all(batch.shape == (2, 3, 48, 48) for batch in seen)
    assert len({batch.sum().item() for batch in seen}) > 4


def test_throughput_counts_the_images_of_both_processes(monkeypatch):
    seconds = {1: iter([3.0, 2.0]), 2: iter([4.0, 2.0])}
    monkeypatch.setattr(benchmark_processes, "seconds_of", lambda count, *_: next(seconds[count]))
    text, numbers = benchmark_processes.measure_processes(8, 2, cpu=True)
    assert numbers["ratios"] == [1.5, 2.0]
    assert text == "throughput of 2 processes over that of 1: 1.75 (median of 2, 1.50 to 2.00)"


@pytest.mark.slow
def test_two_processes_train_together(monkeypatch):
    assert benchmark_processes.seconds_of(2, 1, cpu=True) > 0


def test_plan_multiplies_counted_operations_by_measured_ratios(monkeypatch):
    record = {"model": "resnet50", "switches": "none", "precision": "fp32"}
    methods = {"plain": [1, 1, 1], "recommended": [2.5, 2, 3]}
    records = [{**record, "method": method, "ratio": ratio} for method, ratio in methods.items()]
    others = [{**records[0], "model": "vit_small", "ratio": [9, 9, 9]}]
    monkeypatch.setattr(benchmark_planning, "operations", lambda *_: 312e12 * 0.25 * 3600 / 1_281_167)
    text, numbers = benchmark_planning.plan({"records": records + others}, "benchmark.json")
    assert text.splitlines()[2:4] == ["| plain | 1.00 | 20.0 |", "| recommended | 2.50 | 50.0 |"]
    assert numbers["hours"] == pytest.approx({"plain": 20, "recommended": 50})


def test_shares_of_a_profile_by_kind_of_work():
    times = {"aten::convolution_backward": 60, "aten::mkldnn_convolution": 10, "aten::native_batch_norm": 20}
    times |= {"Optimizer.step#SGD.step": 5, "aten::threshold_backward": 1, "aten::copy_": 4}
    events = [SimpleNamespace(key=name, self_cpu_time_total=time) for name, time in times.items()]
    shares = benchmark_profile.shares_of(events, on_device=False)
    assert shares == {
        "norms": 0.2, "convolutions, products": 0.7, "activations": 0.01, "optimiser": 0.05, "the rest": 0.04
    }  # fmt: skip


def test_profile_of_every_method():
    text, numbers = benchmark_profile.measure_profile("resnet_small", 2, torch.device("cpu"))
    assert len(text.splitlines()) == 1 + len(benchmark_training.METHODS)
    for shares in numbers["shares"].values():
        assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
        assert shares["convolutions, products"] > 0 and shares["optimiser"] > 0


@pytest.mark.slow
def test_counted_operations_are_those_of_the_passes():
    """Of the tail: plain a pass forward and two backward, with a step and a second branch eight, with six 18.

    With half of the images in the one branch and half, after a step, in the other it is four.

    Of 4.1 GMAC (torchvision's figure) the embeddings take 0.12, all up to the end of the first stage a fifth.
    """
    embeddings, stage = 0.03, 0.2
    plain, *others = (
        benchmark_training.operations("resnet50", method) for method in ("plain", "recommended", "all_images", "paper")
    )
    assert plain == pytest.approx(2 * 4.1e9 * (embeddings + 3 * (1 - embeddings)), rel=0.05)
    for counted, stem, passes in zip(others, (embeddings, embeddings, stage), (4, 8, 18), strict=True):
        expected = (stem + passes * (1 - stem)) / (embeddings + 3 * (1 - embeddings))
        assert counted / plain == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "resnet50 in fp32"),
        ('{"training": {"records": []}}', "resnet50 in fp32"),
        ("{", "JSON"),
        ('{"accuracy": 1}', "another name"),
    ],
)
def test_a_file_of_another_kind(tmp_path, monkeypatch, capsys, text, message):
    file = tmp_path / "benchmark.json"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--only", "planning", "--output_file", str(file)])
    with pytest.raises(SystemExit) as left:
        run(benchmark.main)
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert "benchmark.json" in error and message in error
    assert (file.read_text() if file.exists() else None) == text
