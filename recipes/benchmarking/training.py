"""The training part of `benchmark.py`: what a step of each method costs, in time and memory.

All methods are timed in turn, step by step; their ratios are taken within one turn. A step is forward, backward and
SGD with momentum, on a batch that lies ready on the device.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, InputError
from advbn_hf.backbones.split import Recording
from advbn_hf.errors import check_at_least, check_choice
from advbn_hf.method.losses import AdvBNOutput, Objective
from advbn_hf.modeling import PlainForImageClassification

from .timing import median_and_range, ratios, time_in_turn

BACKBONES: dict[str, Callable[[], PreTrainedModel]] = {
    "resnet50": lambda: ResNetForImageClassification(ResNetConfig(num_labels=1000, image_size=224)),
    "resnet_small": lambda: ResNetForImageClassification(
        ResNetConfig(
            embedding_size=16, hidden_sizes=[16, 32, 64, 128], depths=[1] * 4, layer_type="basic", image_size=48
        )
    ),
    "convnext_tiny": lambda: ConvNextForImageClassification(ConvNextConfig(num_labels=1000)),
    "vit_small": lambda: ViTForImageClassification(
        ViTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536, num_labels=1000)
    ),
}


class StraightforwardForImageClassification(AdvBNForImageClassification):
    """AdvBN in its most direct form: one perturbation of the batch, and a complete backward pass for each step."""

    def training_output(self, recording: Recording, objective: Objective) -> AdvBNOutput:
        """CE(tail_clean(f)) + CE(tail_auxiliary(f_adv)), with neither smoothing nor ascent statistics."""
        labels = objective.labels
        config, features = self.advbn_config, recording.features
        shape = [1] * features.ndim
        shape[self.split.channel_axis] = -1
        channels = features.shape[self.split.channel_axis]
        mean_multiplier, std_multiplier = (
            torch.ones(channels, device=features.device).view(shape).requires_grad_() for _ in range(2)
        )
        self.backbone.eval()
        for _ in range(config.num_steps):
            adversarial = self._perturbed(features, mean_multiplier, std_multiplier)
            F.cross_entropy(self.tail_logits(recording, adversarial, "auxiliary"), labels).backward()
            for multiplier in (mean_multiplier, std_multiplier):
                multiplier.data += config.step_size * multiplier.grad.sign()
                multiplier.data.clamp_(1 - config.epsilon, 1 + config.epsilon)
                multiplier.grad = None
        self.zero_grad()
        self.train()
        adversarial = self._perturbed(features, mean_multiplier.detach(), std_multiplier.detach())
        auxiliary_logits = self.tail_logits(recording, adversarial, "auxiliary")
        logits = self.tail_logits(recording, None, "clean")
        loss = F.cross_entropy(logits, labels) + F.cross_entropy(auxiliary_logits, labels)
        return AdvBNOutput(loss=loss, logits=logits, auxiliary_logits=auxiliary_logits)

    def _perturbed(self, features: Tensor, mean_multiplier: Tensor, std_multiplier: Tensor) -> Tensor:
        axes = [axis for axis in range(features.ndim) if axis != self.split.channel_axis % features.ndim]
        mean = features.mean(axes, keepdim=True)
        perturbed = (features - mean) * std_multiplier + mean * mean_multiplier
        perturbed = perturbed.to(features.dtype)
        return torch.where(perturbed < 0, 0, perturbed) if self.split.rectified else perturbed


# One perturbation a batch, so that both versions of the published setting find the same multipliers.
PUBLISHED = replace(AdvBNConfig.paper(), num_perturbations=1)
METHODS: dict[str, tuple[type[AdvBNForImageClassification], AdvBNConfig]] = {
    "plain": (PlainForImageClassification, AdvBNConfig(auxiliary_norms=False)),
    "straightforward": (StraightforwardForImageClassification, PUBLISHED),
    "paper": (AdvBNForImageClassification, PUBLISHED),
    "recommended": (AdvBNForImageClassification, AdvBNConfig()),
    "all_images": (AdvBNForImageClassification, AdvBNConfig(adversarial_share=1.0)),
}

PRECISIONS = {"fp32": False, "bf16": True}
SWITCHES = ("channels_last", "compiled")


@dataclass
class TrainingBenchmarkArguments:
    """What the training benchmark covers."""

    models: list[str] = field(
        default_factory=lambda: list(BACKBONES), metadata={"help": f"Any of {', '.join(BACKBONES)}."}
    )
    methods: list[str] = field(
        default_factory=lambda: list(METHODS), metadata={"help": f"Any of {', '.join(METHODS)}; plain is needed."}
    )
    precisions: list[str] = field(default_factory=lambda: list(PRECISIONS), metadata={"help": "fp32, bf16 or both."})
    switches: list[str] = field(
        default_factory=lambda: ["none", *SWITCHES],
        metadata={"help": "Any of none, channels_last, compiled, channels_last+compiled; each is measured by itself."},
    )
    train_batch_size: int = field(default=8, metadata={"help": "Images of a training step."})

    def __post_init__(self) -> None:
        known = {"models": BACKBONES, "methods": METHODS, "precisions": PRECISIONS}
        known["switches"] = ("none", *SWITCHES, "+".join(SWITCHES))
        for name, values in known.items():
            for value in getattr(self, name):
                check_choice(name, value, values)
        if "plain" not in self.methods:
            raise InputError("methods: plain is what the others are compared with; add it")
        check_at_least("train_batch_size", self.train_batch_size, 1)


class Step:
    """A model of one method, ready to be trained step by step.

    Args:
        model: key of `BACKBONES`.
        method: key of `METHODS`.
        switches: some of `SWITCHES`, joined by "+", or "none".
        batch_size: images of a step.
        device: where to train.
    """

    def __init__(self, model: str, method: str, switches: str, batch_size: int, device: torch.device) -> None:
        torch.manual_seed(0)
        backbone = BACKBONES[model]()
        model_class, config = METHODS[method]
        self.model = model_class.from_backbone(backbone, config).to(device).train()
        size = backbone.config.image_size
        self.images = torch.randn(batch_size, 3, size, size, device=device)
        self.labels = torch.randint(backbone.config.num_labels, (batch_size,), device=device)
        if "channels_last" in switches:
            self.model.to(memory_format=torch.channels_last)
            self.images = self.images.to(memory_format=torch.channels_last)
        if "compiled" in switches:
            self.model.split.compile_tail()
        tail = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.SGD(tail, lr=1e-3, momentum=0.9, fused=True)

    def __call__(self, precision: str) -> None:
        """One step, until the device has done it."""
        device = self.images.device.type
        with torch.autocast(device, torch.bfloat16, enabled=PRECISIONS[precision]):
            loss = self.model(pixel_values=self.images, labels=self.labels).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()


def measure_training(args: TrainingBenchmarkArguments, repeats: int, device: torch.device) -> list[dict[str, Any]]:
    """Times every method and finds its peak memory.

    Args:
        args: what to measure.
        repeats: turns that count; one more comes first.
        device: where to train.

    Returns:
        A record for each model, switches, precision and method: "seconds" (one for each turn), "ratio" to the plain
        method of the same turn as [median, lowest, highest], "of_fp32" likewise to the same method in fp32 (where
        that is measured), "operations_ratio" to the plain method (what "ratio" would be if nothing but products took
        time), and "memory_mb" with "memory_ratio".
    """
    records: list[dict[str, Any]] = []
    counted = {(model, method): operations(model, method) for model, method in product(args.models, args.methods)}
    # A training compiles three graphs. Here all methods and precisions count together, and past 8 torch gives up.
    torch._dynamo.config.recompile_limit = 64
    for model, switches in product(args.models, args.switches):
        steps = {method: Step(model, method, switches, args.train_batch_size, device) for method in args.methods}
        timed = {
            (precision, method): partial(steps[method], precision)
            for precision, method in product(args.precisions, args.methods)
        }
        seconds = time_in_turn(timed, repeats, description=f"{model}, {switches}")
        del steps, timed
        for (precision, method), taken in seconds.items():
            record = {"model": model, "switches": switches, "precision": precision, "method": method}
            record |= {"seconds": taken, "ratio": _ratio(taken, seconds[precision, "plain"])}
            record["of_fp32"] = _ratio(taken, seconds["fp32", method]) if "fp32" in args.precisions else None
            record["operations_ratio"] = round(counted[model, method] / counted[model, "plain"], 3)
            memory = peak_memory(model, method, switches, precision, args.train_batch_size, device)
            record["memory_mb"] = round(memory / 2**20, 1)
            records.append(record)
    for record in records:
        same = ("model", "switches", "precision")
        plain = next(r for r in records if r["method"] == "plain" and all(r[key] == record[key] for key in same))
        record["memory_ratio"] = round(record["memory_mb"] / plain["memory_mb"], 3)
    return records


def operations(model: str, method: str) -> float:
    """Operations of a step for each image, as torch counts those of products and convolutions.

    It counts weight gradients of grouped convolutions as if these were not grouped: with depthwise ones, as in a
    ConvNeXt, plain fine-tuning seems more expensive than it is, and ratios to it are too low to be a bound.

    Args:
        model: key of `BACKBONES`.
        method: key of `METHODS`.
    """
    step = Step(model, method, "none", 4, torch.device("cpu"))  # two for each branch of a batch that is shared out
    with FlopCounterMode(display=False) as counter:
        step("fp32")
    return counter.get_total_flops() / len(step.images)


def peak_memory(model: str, method: str, switches: str, precision: str, batch_size: int, device: torch.device) -> int:
    """Bytes that model, optimiser and two steps take at their peak.

    On a CPU (Linux) it is what a process of their own grows by after its imports, on a GPU what torch allocates there.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        _two_steps(model, method, switches, precision, batch_size, device)
        return torch.cuda.max_memory_allocated() - before
    settings = json.dumps([model, method, switches, precision, batch_size, torch.get_num_threads()])
    command = [sys.executable, "-m", "benchmarking.training", settings]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, check=True, text=True)
    return int(done.stdout.split()[-1])


def _two_steps(model: str, method: str, switches: str, precision: str, batch_size: int, device: torch.device) -> None:
    step = Step(model, method, switches, batch_size, device)
    for _ in range(2):
        step(precision)


def _grown_by(model: str, method: str, switches: str, precision: str, batch_size: int, threads: int) -> int:
    torch.set_num_threads(threads)
    before = _resident("VmRSS")
    _two_steps(model, method, switches, precision, batch_size, torch.device("cpu"))
    return _resident("VmHWM") - before


def _resident(what: str) -> int:
    """Bytes of this process in memory: now (VmRSS) or at most so far (VmHWM). `getrusage` tells the parent's too."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{what}:")))


def to_text(records: list[dict[str, Any]]) -> str:
    """The records as a table, one a line."""
    lines = [
        f"{'model':14}{'switches':24}{'precision':10}{'method':16}{'s/step':>8}  {'of plain':20}{'counted':9}"
        f"{'of fp32':8}{'MB':>8}"
    ]
    for record in records:
        middle, low, high = record["ratio"]
        line = f"{record['model']:14}{record['switches']:24}{record['precision']:10}{record['method']:16}"
        line += f"{statistics.median(record['seconds']):8.3f}  {f'{middle:.2f} ({low:.2f}-{high:.2f})':20}"
        line += f"{record['operations_ratio']:<9.2f}"
        line += f"{record['of_fp32'][0] if record['of_fp32'] else float('nan'):<8.2f}{record['memory_mb']:8.0f}"
        lines.append(f"{line} ({record['memory_ratio']:.2f})")
    return "\n".join(lines)


def _ratio(seconds: list[float], reference: list[float]) -> list[float]:
    """Median, lowest and highest of the ratios of each turn."""
    return [round(value, 4) for value in median_and_range(ratios(seconds, reference))]


if __name__ == "__main__":  # a process of its own for `peak_memory`
    print(_grown_by(*json.loads(sys.argv[1])))
