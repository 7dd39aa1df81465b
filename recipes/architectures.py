"""What AdvBN does to image classifiers: where it cuts them, which norms it doubles, and what a step costs.

python recipes/architectures.py                                            the table of README, in Markdown
python recipes/architectures.py --only ResNetForImageClassification ...    some classes of it

The models are small published sizes of each class, untrained, on noise of the size that they are made for. The cost is
the time of a training step in the recommended setting over that of plain fine-tuning of the same tail: forward and
backward pass and update, timed in turn, the median over all repeats.
"""

import copy
import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import transformers
from benchmarking.timing import ratios, time_in_turn
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from advbn_hf import AdvBNConfig, AdvBNForImageClassification
from advbn_hf.backbones.norms import two_branch_norms
from advbn_hf.backbones.tracing import probe_inputs
from advbn_hf.errors import check_at_least, check_choice
from advbn_hf.modeling import PlainForImageClassification
from advbn_hf.utils.cli import run, use_all_cores
from advbn_hf.utils.files import check_file, write_atomically
from advbn_hf.utils.options import parse

TINY_VIT = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
# Class -> what differs from the defaults of its config.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "ResNetForImageClassification": {
        "hidden_sizes": [64, 128, 256, 512],
        "depths": [2, 2, 2, 2],
        "layer_type": "basic",
    },
    "RegNetForImageClassification": {
        "hidden_sizes": [48, 104, 208, 440],
        "depths": [1, 3, 6, 6],
        "groups_width": 8,
    },
    "MobileNetV2ForImageClassification": {},
    "EfficientNetForImageClassification": {
        "image_size": 224,
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
        "hidden_dim": 1280,
    },
    "ConvNextForImageClassification": {"hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 6, 2]},
    "PoolFormerForImageClassification": {},
    "MobileViTForImageClassification": {},
    "LevitForImageClassification": {},
    "SwinForImageClassification": {"embed_dim": 48, "num_heads": [2, 4, 8, 16]},
    "PvtV2ForImageClassification": {},
    "SegformerForImageClassification": {},
    "FocalNetForImageClassification": {"embed_dim": 48},
    "ViTForImageClassification": TINY_VIT,
    "BeitForImageClassification": TINY_VIT,
    "Dinov2ForImageClassification": {
        "hidden_size": 192,
        "num_attention_heads": 3,
        "patch_size": 16,
        "image_size": 224,
    },
}


@dataclass
class TableArguments:
    """What to measure, and how long."""

    only: list[str] | None = field(default=None, metadata={"help": "Names of the classes to measure."})
    batch_size: int = field(default=2, metadata={"help": "Images in a step."})
    repeats: int = field(default=5, metadata={"help": "How often to time each of the two steps, in turn."})
    output_file: str = field(
        default="outputs/architectures.json", metadata={"help": "Where the numbers are written, with every repeat."}
    )


@dataclass
class Measurement:
    """One class; `cost` is the median of `costs`, one a repeat."""

    name: str
    insert_after: str
    features: list[int]
    norms: int
    cost: float
    costs: list[float]


def main() -> None:
    """Measures class by class, then prints and writes the table."""
    (args,) = parse((TableArguments,))
    use_all_cores()
    for name in args.only or []:
        check_choice("only", name, ARCHITECTURES)
    for name in ("batch_size", "repeats"):
        check_at_least(name, getattr(args, name), 1)
    check_file(args.output_file, "output_file", ".json")
    measurements = [measure(name, args) for name in tqdm(args.only or ARCHITECTURES, desc="classes")]
    print(to_markdown(measurements))
    write_atomically(args.output_file, json.dumps([asdict(one) for one in measurements], indent=2) + "\n")


def measure(name: str, args: TableArguments) -> Measurement:
    """Builds a model of a class, and measures it.

    Args:
        name: one of `ARCHITECTURES`.
        args: how long to measure.
    """
    torch.manual_seed(0)
    backbone = new_model(name)
    inputs = probe_inputs(backbone, args.batch_size)
    inputs["labels"] = torch.arange(args.batch_size)
    plain = PlainForImageClassification.from_backbone(copy.deepcopy(backbone), AdvBNConfig(auxiliary_norms=False))
    # Two images are too few to share out between the branches.
    model = AdvBNForImageClassification.from_backbone(backbone, AdvBNConfig(adversarial_share=1.0))
    features = model.split.stem(pixel_values=inputs["pixel_values"]).features
    steps = {"advbn": training_step(model, inputs), "plain": training_step(plain, inputs)}
    seconds = time_in_turn(steps, args.repeats)
    costs = ratios(seconds["advbn"], seconds["plain"])
    return Measurement(
        name=name,
        insert_after=model.advbn_config.insert_after,
        features=list(features.shape[1:]),
        norms=len(set(two_branch_norms(model).values())),
        cost=statistics.median(costs),
        costs=costs,
    )


def new_model(name: str) -> PreTrainedModel:
    """An untrained model of a class, for 1,000 classes."""
    model_class = getattr(transformers, name)
    return model_class(model_class.config_class(**ARCHITECTURES[name], num_labels=1000))


def training_step(model: AdvBNForImageClassification, inputs: dict[str, torch.Tensor]) -> Callable[[], None]:
    """Forward and backward pass and update of what trains."""
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], 1e-3, momentum=0.9)
    model.train()

    def step() -> None:
        optimizer.zero_grad()
        model(**inputs).loss.backward()
        optimizer.step()

    return step


def to_markdown(measurements: list[Measurement]) -> str:
    """The table, and what it was measured with."""
    lines = ["| class | perturbed after | features | norms doubled | cost of a step |", "|---|---|---|---|---|"]
    for one in measurements:
        shape = " x ".join(map(str, one.features))
        lines.append(f"| {one.name} | `{one.insert_after}` | {shape} | {one.norms} | {one.cost:.1f} |")
    lines += [
        "",
        f"transformers {transformers.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
