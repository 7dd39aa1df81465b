"""Which models can be wrapped and evaluated: single-label classifiers, with weights that gradients pass."""

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..errors import InputError


def check_single_label(config: PreTrainedConfig) -> None:
    """Checks that a model chooses one of several classes for each image.

    Args:
        config: the model's.

    Raises:
        InputError: it is a multi-label or a regression model.
    """
    problem_type = getattr(config, "problem_type", None)
    if problem_type not in (None, "single_label_classification"):
        raise InputError(
            f"config.problem_type is {problem_type}; only single_label_classification works, one class for each image"
        )
    if config.num_labels < 2:
        raise InputError(
            f"config.num_labels is {config.num_labels}, which Transformers takes for a regression; "
            "two classes or more are needed, also for a yes or no"
        )


def check_backbone(model: nn.Module) -> None:
    """Checks that a model is a Transformers classifier whose tail passes gradients to its features.

    Args:
        model: the model to wrap, outside any wrapper of its own.

    Raises:
        InputError: it is another module, a multi-label or a regression model, or quantised.
    """
    if not isinstance(model, PreTrainedModel):
        raise InputError(
            f"backbone: must be a Transformers image classifier, not {type(model).__name__}; "
            "recipes/custom_model.py makes one of any torch.nn.Module"
        )
    check_single_label(model.config)
    quantised = [type(module).__name__ for module in model.modules() if "quantized" in type(module).__module__]
    if quantised or getattr(model, "is_quantized", False):
        what = f"its modules of type {quantised[0]} pass" if quantised else "quantised weights pass"
        raise InputError(
            f"backbone: {type(model).__name__} is quantised, and {what} no gradients to train with; "
            "wrap the model as it was before, and quantise what export() returns"
        )
