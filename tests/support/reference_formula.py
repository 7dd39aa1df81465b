"""Weights, inputs and labels from a formula, so that reference numbers need no stored weights.

Each tensor is drawn from its own generator, seeded by a salt and its key in the published checkpoint layout.
"""

import math
from collections.abc import Sequence
from zlib import crc32

import numpy as np
import torch

SALT = "a:"


def formula_tensor(name: str, shape: Sequence[int]) -> torch.Tensor:
    """Returns the float32 tensor called `name`, a key without the `module.` prefix."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    n = _generator(name).standard_normal(math.prod(shape)).reshape(shape)
    if name.endswith(".running_var"):
        n = 1 + 0.2 * np.abs(n)
    elif name.endswith((".running_mean", ".bias")):
        n = 0.1 * n
    elif name.endswith(".weight"):
        n = 1 + 0.1 * n if len(shape) == 1 else n * np.sqrt(2 / math.prod(shape[1:]))
    return torch.from_numpy(n.astype(np.float32))


def formula_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Returns pixel values (8, 3, 64, 64) and their labels (8,), below 1000."""
    return formula_tensor("pixel_values", (8, 3, 64, 64)), torch.from_numpy(_generator("labels").randint(0, 1000, 8))


def formula_state_dict(
    depths: Sequence[int],
    widths: Sequence[int] = (64, 128, 256, 512),
    bottleneck: bool = False,
    cut: int = 1,
    num_classes: int = 1000,
) -> dict[str, torch.Tensor]:
    """Returns a complete ResNet in the published layout, without the `module.` prefix.

    Args:
        depths: blocks per stage.
        widths: channels of the 3x3 convolutions per stage. A bottleneck outputs four times as many.
        bottleneck: blocks of three convolutions in place of two.
        cut: the last stage of the stem, counted from 1.
        num_classes: rows of the classifier.
    """
    shapes = {"feature_x.0.weight": (widths[0], 3, 7, 7), **_norm("feature_x.1", widths[0])}
    channels = widths[0]
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
        out = 4 * width if bottleneck else width
        for block in range(depth):
            prefix = f"feature_x.{3 + stage}.{block}" if stage <= cut else f"head.layer{stage}_{block}"
            sizes = [(width, channels, 1), (width, width, 3), (out, width, 1)]
            if not bottleneck:
                sizes = [(width, channels, 3), (out, width, 3)]
            for k, (rows, columns, kernel) in enumerate(sizes, start=1):
                shapes[f"{prefix}.conv{k}.weight"] = (rows, columns, kernel, kernel)
                shapes |= _norm(f"{prefix}.clean_bn{k}", rows) | _norm(f"{prefix}.adv_bn{k}", rows)
            if block == 0 and (stage > 1 or channels != out):
                shapes[f"{prefix}.downsample.conv.weight"] = (out, channels, 1, 1)
                shapes |= _norm(f"{prefix}.downsample.clean_bn", out) | _norm(f"{prefix}.downsample.adv_bn", out)
            channels = out
    shapes |= {"head.fc.weight": (num_classes, channels), "head.fc.bias": (num_classes,)}
    return {name: formula_tensor(name, shape) for name, shape in shapes.items()}


def _norm(prefix: str, channels: int) -> dict[str, tuple[int, ...]]:
    vectors = ("weight", "bias", "running_mean", "running_var")
    return {f"{prefix}.{vector}": (channels,) for vector in vectors} | {f"{prefix}.num_batches_tracked": ()}


def _generator(name: str) -> np.random.RandomState:
    return np.random.RandomState(crc32((SALT + name).encode()))
