"""Adversarial Batch Normalization for Hugging Face image classifiers."""

from .config import AdvBNConfig
from .errors import InputError
from .modeling import AdvBNForImageClassification
from .outputs import AdvBNOutput
from .trainer import AdvBNTrainer
from .training_arguments import AdvBNTrainingArguments

__version__ = "0.1.0.dev0"

__all__ = [
    "AdvBNConfig",
    "AdvBNForImageClassification",
    "AdvBNOutput",
    "AdvBNTrainer",
    "AdvBNTrainingArguments",
    "InputError",
    "__version__",
]
