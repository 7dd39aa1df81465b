"""The profiling part of `benchmark.py`: what the time of a training step goes into."""

from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from tqdm.auto import tqdm

from .training import METHODS, Step

# Kind of work -> what the names of its operators have in them; the first that fits counts.
KINDS = {
    "norms": ("norm",),
    "convolutions, products": ("conv", "mm", "linear", "attention", "matmul"),
    "activations": ("relu", "gelu", "clamp", "where", "threshold", "softmax"),
    "optimiser": ("sgd",),
}
REST = "the rest"  # sums, copies, pooling, losses, Python


def measure_profile(model: str, batch_size: int, device: torch.device) -> tuple[str, dict[str, Any]]:
    """Profiles the second step of every method in fp32.

    Args:
        model: key of `training.BACKBONES`.
        batch_size: images of a step.
        device: where to train; on a GPU, its own time is measured.

    Returns:
        A table, and the shares in 0..1 by method and kind of work.
    """
    shares = {}
    for method in tqdm(METHODS, desc=f"profiling {model}", leave=False):
        step = Step(model, method, "none", batch_size, device)
        step("fp32")
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        with profile(activities=activities) as profiled:
            step("fp32")
        shares[method] = shares_of(profiled.key_averages(), device.type == "cuda")
    kinds = (*KINDS, REST)
    lines = [f"{model:18}" + "".join(f"{kind:>26}" for kind in kinds)]
    lines += [
        f"{name:18}" + "".join(f"{100 * share[kind]:24.1f} %" for kind in kinds) for name, share in shares.items()
    ]
    return "\n".join(lines), {"model": model, "batch_size": batch_size, "shares": shares}


def shares_of(events: Any, on_device: bool) -> dict[str, float]:
    """Share of the time by kind of work, in 0..1.

    Args:
        events: of torch's profiler, averaged by name, each with its own time without that of what it called.
        on_device: whether to take a GPU's time.
    """
    taken = dict.fromkeys((*KINDS, REST), 0.0)
    for event in events:
        name = event.key.lower()
        kind = next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), REST)
        taken[kind] += event.self_device_time_total if on_device else event.self_cpu_time_total
    total = sum(taken.values())
    return {kind: round(time / total, 4) for kind, time in taken.items()}
