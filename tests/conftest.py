"""Where tests find recipes and fixtures, and what must be so before one imports Transformers."""

import gc
import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

# Last, since recipes/evaluate.py has the name of a library.
sys.path.append(str(Path(__file__).parents[1] / "recipes"))

pytest_plugins = ["hub_fixture", "icon_packages", "jobs"]

# Test files run on two processes (pytest-xdist), each with its share of the cores; what they start has it too.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("LOCAL_WORLD_SIZE", os.environ["PYTEST_XDIST_WORKER_COUNT"])  # for `cli.use_all_cores`
    torch.set_num_threads(1)

# Beside a CPU build of torch, PyPI's torchvision has no compiled operators, and its import stops at the names of two.
if importlib.util.find_spec("torchvision"):
    try:
        import torchvision
    except RuntimeError:
        operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401


@pytest.fixture(scope="module", autouse=True)
def _precision_of_each_file():
    """Accelerate keeps the precision that was asked for first for the rest of a process."""
    yield
    AcceleratorState._reset_state()


def pytest_collection_modifyitems(items):
    """Brings files with slow tests forward, so that at the end no process waits for a long file of the other."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish():
    """Takes what was imported out of garbage collection, which Accelerate asks for in each training."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def same_path(monkeypatch):
    """Where modules are found stays as it is: a recipe that is run as a script takes its own folder away."""
    monkeypatch.setattr(sys, "path", list(sys.path))
