"""Adversarial Batch Normalization for Hugging Face image classifiers."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import AdvBNConfig
    from .errors import InputError
    from .evaluation.api import evaluate_suite
    from .method.losses import AdvBNOutput
    from .modeling import AdvBNForImageClassification
    from .trainer import AdvBNTrainer
    from .training_args import AdvBNTrainingArguments

__version__ = "0.1.0.dev0"

__all__ = [
    "AdvBNConfig",
    "AdvBNForImageClassification",
    "AdvBNOutput",
    "AdvBNTrainer",
    "AdvBNTrainingArguments",
    "InputError",
    "__version__",
    "evaluate_suite",
]

_MODULES = {
    "AdvBNConfig": "config",
    "AdvBNForImageClassification": "modeling",
    "AdvBNOutput": "method.losses",
    "AdvBNTrainer": "trainer",
    "AdvBNTrainingArguments": "training_args",
    "InputError": "errors",
    "evaluate_suite": "evaluation.api",
}


def __getattr__(name: str) -> object:
    """Imports what is asked for alone: the command `advbn` need not wait four seconds for all of Transformers."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
