"""The planning part of `benchmark.py`: what the published ImageNet training would cost, by setting. An estimate."""

from typing import Any

from advbn_hf import InputError

from .training import operations

IMAGES, EPOCHS = 1_281_167, 20  # ImageNet's training set; the published recipe
# NVIDIA's figure for a dense product in bf16 on an A100, and the share of it that training a ResNet-50 commonly gets.
PEAK, REACHED = 312e12, 0.25


def plan(training: dict[str, Any], output_file: str) -> tuple[str, dict[str, Any]]:
    """GPU-hours of 20 epochs of ResNet-50 on ImageNet: counted operations of the plain step, times measured ratios.

    Args:
        training: what `--only training` has measured.
        output_file: where that should be.

    Returns:
        A Markdown table, labelled as an estimate, and the hours by method.

    Raises:
        InputError: no times of a ResNet-50 have been measured.
    """
    ratios = measured_ratios(training)
    if not ratios:
        raise InputError(f"output_file: {output_file} has no times of resnet50 in fp32; run --only training first")
    for_each = operations("resnet50", "plain")
    plain = for_each * IMAGES * EPOCHS / (PEAK * REACHED) / 3600
    hours = {method: plain * ratio for method, ratio in ratios.items()}
    lines = ["| setting | measured cost of a step | estimated A100-hours |", "| --- | ---: | ---: |"]
    lines += [f"| {method} | {ratios[method]:.2f} | {hours[method]:.1f} |" for method in hours]
    lines.append(
        f"\nAn estimate: {for_each / 1e9:.1f} GFLOP for each image in a plain step (counted), {IMAGES:,} "
        f"images, {EPOCHS} epochs, {100 * REACHED:.0f} % of {PEAK / 1e12:.0f} TFLOP/s in bf16 (assumed), times the "
        "cost of a step as measured on the machine of the benchmark. Loading is not in it."
    )
    return "\n".join(lines), {"hours": hours, "peak": PEAK, "reached": REACHED}


def measured_ratios(training: dict[str, Any]) -> dict[str, float]:
    """Cost of a step over plain fine-tuning by method: ResNet-50 in fp32 without switches."""
    wanted = {"model": "resnet50", "switches": "none", "precision": "fp32"}
    records = training.get("records", [])
    return {record["method"]: record["ratio"][0] for record in records if wanted.items() <= record.items()}
