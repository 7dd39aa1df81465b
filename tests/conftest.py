"""What must be so before a test imports Transformers."""

import importlib.util

import torch

pytest_plugins = ["hub_fixture"]

# Beside a CPU build of torch, PyPI's torchvision has no compiled operators, and its import stops at the names of two.
if importlib.util.find_spec("torchvision"):
    try:
        import torchvision
    except RuntimeError:
        operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401
