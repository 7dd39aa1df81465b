"""The planning part of `benchmark.py`: what the published ImageNet training would cost, by setting. An estimate."""

import json
from pathlib import Path
from typing import Any

from benchmark_training import operations

from advbn_hf import InputError

PICTURES, EPOCHS = 1_281_167, 20  # ImageNet's training set; the published recipe
# NVIDIA's figure for a dense product in bf16 on an A100, and the share of it that training a ResNet-50 commonly gets.
PEAK, REACHED = 312e12, 0.25


def planning_table(benchmark_file: str) -> str:
    """GPU-hours of 20 epochs of ResNet-50 on ImageNet: counted operations of the plain step, times measured ratios.

    Args:
        benchmark_file: what `--only training` wrote.

    Returns:
        A Markdown table, labelled as an estimate.

    Raises:
        InputError: there is no such file, or it holds no times of a ResNet-50.
    """
    ratios = measured_ratios(benchmark_file)
    for_each = operations("resnet50", "plain")
    hours = for_each * PICTURES * EPOCHS / (PEAK * REACHED) / 3600
    lines = ["| setting | measured cost of a step | estimated A100-hours |", "| --- | ---: | ---: |"]
    lines += [f"| {method} | {ratio:.2f} | {hours * ratio:.0f} |" for method, ratio in ratios.items()]
    lines.append(
        f"\nAn estimate: {for_each / 1e9:.1f} GFLOP for each picture in a plain step (counted), {PICTURES:,} "
        f"pictures, {EPOCHS} epochs, {100 * REACHED:.0f} % of {PEAK / 1e12:.0f} TFLOP/s in bf16 (assumed), times the "
        "cost of a step as measured on the machine of the benchmark. Loading is not in it."
    )
    return "\n".join(lines)


def measured_ratios(benchmark_file: str) -> dict[str, float]:
    """Cost of a step over plain fine-tuning by method, in fp32, without switches."""
    path = Path(benchmark_file)
    if not path.is_file():
        raise InputError(f"output_file: there is no {path}; run --only training first")
    wanted = {"model": "resnet50", "switches": "none", "precision": "fp32"}
    records: list[dict[str, Any]] = json.loads(path.read_text())["records"]
    ratios = {record["method"]: record["ratio"][0] for record in records if wanted.items() <= record.items()}
    if not ratios:
        raise InputError(f"output_file: {path} has no fp32 times of resnet50 without switches; measure them")
    return ratios
