"""Adversarial Batch Normalization for Hugging Face image classifiers."""

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
