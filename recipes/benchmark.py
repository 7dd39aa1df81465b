"""Measures how fast the package is, as ratios of two things timed in turn in the same run.

accelerate launch recipes/benchmark.py                      all benchmarks
accelerate launch recipes/benchmark.py --only evaluation    our evaluation loop over the bare forward pass
accelerate launch recipes/benchmark.py --only training      a training step of AdvBN over plain fine-tuning, and memory
accelerate launch recipes/benchmark.py --only profile       what the time of a training step goes into
accelerate launch recipes/benchmark.py --only loading       how much of a training step waits for its images
accelerate launch recipes/benchmark.py --only processes     two processes over one
accelerate launch recipes/benchmark.py --only planning      what the published training would cost, estimated

Each prints a table or a line and puts its numbers under its name into the output file, beside those of the others.
"""

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from benchmarking.data import SIZE, central_crop, measure_loading, photographs
from benchmarking.planning import plan
from benchmarking.processes import measure_processes
from benchmarking.profile import measure_profile
from benchmarking.timing import median_and_range, ratios, time_in_turn
from benchmarking.training import TrainingBenchmarkArguments, measure_training, to_text
from transformers import ResNetConfig, ResNetForImageClassification

from advbn_hf import InputError
from advbn_hf.data.images import ImageDataset
from advbn_hf.data.transforms import Unresized
from advbn_hf.errors import check_at_least, check_choice
from advbn_hf.evaluation.inference import predict
from advbn_hf.shifts.generate import shift_images
from advbn_hf.utils.cli import run, use_all_cores
from advbn_hf.utils.files import check_file, write_atomically
from advbn_hf.utils.options import parse
from advbn_hf.utils.versions import installed_versions

Numbers = dict[str, Any]


@dataclass
class BenchmarkArguments:
    """What to measure, and how long."""

    only: str | None = field(default=None, metadata={"help": "Name of the one benchmark to run."})
    num_images: int = field(default=256, metadata={"help": "Images of one pass."})
    batch_size: int = field(default=32, metadata={"help": "Images at a time."})
    num_workers: int = field(default=0, metadata={"help": "Processes that read images."})
    repeats: int = field(default=5, metadata={"help": "How often to time each of the two, in turn."})
    bf16: bool = field(default=False, metadata={"help": "Evaluate in bfloat16."})
    output_file: str = field(default="outputs/benchmark.json", metadata={"help": "Where to write the numbers."})


def main() -> None:
    """Runs the benchmarks that were asked for."""
    args, training_args = parse((BenchmarkArguments, TrainingBenchmarkArguments))
    use_all_cores()
    if args.only is not None:
        check_choice("only", args.only, BENCHMARKS)
    for name in ("num_images", "batch_size", "repeats"):
        check_at_least(name, getattr(args, name), 1)
    check_file(args.output_file, "output_file", ".json")
    accelerator = Accelerator(mixed_precision="bf16" if args.bf16 else None)
    if accelerator.num_processes > 1:
        raise InputError("benchmark: runs in one process; pass --num_processes 1 to accelerate launch")
    device = (
        torch.cuda.get_device_name()
        if accelerator.device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads"
    )
    numbers = read_numbers(args.output_file)
    print(f"on {device}, torch {torch.__version__}")
    for name in [args.only] if args.only else BENCHMARKS:
        text, numbers[name] = BENCHMARKS[name](args, training_args, accelerator)
        numbers[name] |= {"device": device, "versions": installed_versions()}
        write_atomically(args.output_file, json.dumps(numbers, indent=1) + "\n")
        print(f"{name}:\n{text}")
    print(f"written to {args.output_file}")


def read_numbers(output_file: str) -> Numbers:
    """What earlier runs have measured, by benchmark; empty where there is no file yet."""
    path = Path(output_file)
    try:
        numbers = json.loads(path.read_text()) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise InputError(f"output_file: {path} cannot be read as JSON ({error}); remove it") from error
    if not isinstance(numbers, dict) or not numbers.keys() <= BENCHMARKS.keys():
        raise InputError(f"output_file: {path} holds something else; choose another name")
    return numbers


def training(
    args: BenchmarkArguments, training_args: TrainingBenchmarkArguments, accelerator: Accelerator
) -> tuple[str, Numbers]:
    """Steps of AdvBN, as published and ours, over steps of plain fine-tuning behind the same embeddings."""
    records = measure_training(training_args, args.repeats, accelerator.device)
    return to_text(records), {"batch_size": training_args.train_batch_size, "records": records}


def profile(
    args: BenchmarkArguments, training_args: TrainingBenchmarkArguments, accelerator: Accelerator
) -> tuple[str, Numbers]:
    """Convolutions, norms and the rest, as shares of a step of every method."""
    return measure_profile(training_args.models[0], training_args.train_batch_size, accelerator.device)


def loading(
    args: BenchmarkArguments, training_args: TrainingBenchmarkArguments, accelerator: Accelerator
) -> tuple[str, Numbers]:
    """Share of a step that waits for its images, with the Trainer's own loaders."""
    return measure_loading(training_args.train_batch_size, args.repeats, accelerator.device)


def processes(
    args: BenchmarkArguments, training_args: TrainingBenchmarkArguments, accelerator: Accelerator
) -> tuple[str, Numbers]:
    """Training on two processes of one thread over training on one."""
    return measure_processes(training_args.train_batch_size, args.repeats, accelerator.device.type == "cpu")


def planning(args: BenchmarkArguments, _: TrainingBenchmarkArguments, accelerator: Accelerator) -> tuple[str, Numbers]:
    """An estimate, from counted operations and the measured ratios of `training`."""
    return plan(read_numbers(args.output_file).get("training", {}), args.output_file)


def evaluation(
    args: BenchmarkArguments, _: TrainingBenchmarkArguments, accelerator: Accelerator
) -> tuple[str, Numbers]:
    """Our loop, from files to predictions, over the forward passes of the same batches that lie ready on the device.

    The images are fog of severity 3 as ImageNet-C makes it, from the cache; the model is a ResNet-50 at 224.
    """
    torch.manual_seed(0)
    model = ResNetForImageClassification(ResNetConfig(num_labels=1000)).eval().to(accelerator.device)
    rows = shift_images(photographs(args.num_images), "fog", 3, size=SIZE)
    images = ImageDataset(rows, Unresized(central_crop()))
    starts = range(0, len(images), args.batch_size)
    batches = [
        torch.stack([images[i]["pixel_values"] for i in range(start, min(start + args.batch_size, len(images)))])
        for start in starts
    ]
    batches = [batch.to(accelerator.device) for batch in batches]

    @torch.no_grad()
    def bare() -> None:
        with accelerator.autocast():
            for batch in batches:
                model(pixel_values=batch)

    def ours() -> None:
        settings = {"batch_size": args.batch_size, "num_workers": args.num_workers}
        predict(model, images, accelerator=accelerator, description="evaluation", **settings)

    seconds = time_in_turn({"ours": ours, "bare": bare}, args.repeats)
    found = ratios(seconds["ours"], seconds["bare"])
    rate = len(images) / statistics.median(seconds["ours"])
    text = f"overhead of our loop over the bare forward pass {describe(found)}; {rate:.1f} images/s in our loop"
    return text, {"ratios": found, "seconds": seconds["ours"], "num_images": args.num_images, "bf16": args.bf16}


def describe(overheads: list[float]) -> str:
    """The median overhead in per cent, with the range."""
    middle, low, high = (100 * (ratio - 1) for ratio in median_and_range(overheads))
    return f"{middle:+.1f} % (median of {len(overheads)}, {low:+.1f} to {high:+.1f})"


BENCHMARKS: dict[str, Callable[[BenchmarkArguments, TrainingBenchmarkArguments, Accelerator], tuple[str, Numbers]]] = {
    "training": training,
    "profile": profile,
    "loading": loading,
    "processes": processes,
    "evaluation": evaluation,
    "planning": planning,
}

if __name__ == "__main__":
    run(main)
