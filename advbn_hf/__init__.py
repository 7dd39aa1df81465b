"""Adversarial Batch Normalization for Hugging Face image classifiers."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import AdvBNConfig as AdvBNConfig
    from .errors import InputError as InputError
    from .evaluation.api import evaluate_suite as evaluate_suite
    from .method.losses import AdvBNOutput as AdvBNOutput
    from .modeling import AdvBNForImageClassification as AdvBNForImageClassification
    from .trainer import AdvBNTrainer as AdvBNTrainer
    from .training_args import AdvBNTrainingArguments as AdvBNTrainingArguments

__version__ = "0.1.0.dev0"

_DEFINED_IN = {
    "AdvBNConfig": "config",
    "AdvBNForImageClassification": "modeling",
    "AdvBNOutput": "method.losses",
    "AdvBNTrainer": "trainer",
    "AdvBNTrainingArguments": "training_args",
    "InputError": "errors",
    "evaluate_suite": "evaluation.api",
}
__all__ = ["__version__", *_DEFINED_IN]


def __getattr__(name: str) -> object:
    """Imports what is asked for alone: the command `advbn` need not wait for Transformers' models and trainer."""
    if name not in _DEFINED_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_DEFINED_IN[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
