"""Plain Transformers image classifiers and their processors, with one clear line where loading fails."""

import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    BaseImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    ViTImageProcessorPil,
)
from transformers.utils import is_timm_available

from ..errors import InputError, first_line
from ..utils.advice import either
from ..utils.files import check_folder, finish_filling

# Options of `from_pretrained` that have no effect on a classifier, or would run code of a repository, and why.
_REFUSED = {
    "trust_remote_code": "code of a repository is never run",
    "use_kernels": "code of a repository is never run",
    "kernel_config": "code of a repository is never run",
    "allow_all_kernels": "code of a repository is never run",
    "code_revision": "code of a repository is never run",
    "weights_only": "must be true, since pickles that hold more than numbers are never read",
    "output_loading_info": "is always false here",
    "generation_config": "is of models that generate text",
    "gguf_file": "is of language models",
    "from_tf": "weights of TensorFlow are not read",
    "from_flax": "weights of Flax are not read",
    "tp_plan": "a model lies on one device",
    "tp_size": "a model lies on one device",
    "device_mesh": "a model lies on one device",
    "distributed_config": "a model lies on one device",
    "quantization_config": "quantised weights pass no gradients to train with",
}
_ON_BY_DEFAULT = ("weights_only", "safe_serialization", "save_peft_format")

PICKLED = "its weights are damaged, or a pickle that holds more than numbers and is never read; ask for safetensors"


def load_classifier(name: str | Path, **kwargs: Any) -> PreTrainedModel:
    """Loads an image classifier whose every weight, the head's included, comes from the checkpoint.

    Args:
        name: folder or Hub id.
        kwargs: for `AutoModelForImageClassification.from_pretrained`. With `ignore_mismatched_sizes=True` a head for
            another number of classes is replaced by an untrained one.

    Raises:
        InputError: if there is no such model, it cannot be read, it has no classification head, or an option would
            have no effect or run code.
    """
    refuse_options(kwargs, _REFUSED)
    if not isinstance(kwargs.get("config"), PreTrainedConfig | None):
        raise InputError(f"config: must be a PreTrainedConfig of the model, not {type(kwargs['config']).__name__}")
    check_folder(name)
    finish_filling(name)
    try:
        # Without trust_remote_code=False, Transformers asks on a terminal whether to run the repository's code.
        model, loading = AutoModelForImageClassification.from_pretrained(
            name, output_loading_info=True, trust_remote_code=False, **kwargs
        )
    except Exception as error:  # damaged and mislabelled files raise a dozen types
        raise InputError(f"cannot load the image classifier {name}: {_reason(error)}") from error
    if loading["missing_keys"]:
        missing = min(loading["missing_keys"])
        raise InputError(f"{name} has no weights for {missing}; give a model that was trained with its head")
    if any(weight.is_meta for weight in model.parameters()):
        raise InputError("device_map: leaves weights outside the device that computes; give one device for all")
    return model


def refuse_options(options: dict[str, Any], reasons: Mapping[str, str]) -> None:
    """Takes out options that may only say their default, since any other value would be ignored or do harm.

    Args:
        options: changed in place.
        reasons: names of such options, and why each is refused.

    Raises:
        InputError: names the option and the reason.
    """
    for option, reason in reasons.items():
        default = option in _ON_BY_DEFAULT
        if (value := options.pop(option, default)) is not None and value is not default:
            raise InputError(f"{option}: {reason}; leave it out")


def load_classifier_for(
    names: list[str] | None, name: str | Path, *, new_head: bool = False, **kwargs: Any
) -> PreTrainedModel:
    """Loads a classifier for the classes of a dataset.

    Args:
        names: the dataset's class names in the order of its labels; None where it has none.
        name: folder or Hub id of the model.
        new_head: whether a new head is created where the numbers of classes differ.
        kwargs: as for `load_classifier`.

    Returns:
        The model, with the dataset's `id2label`.

    Raises:
        InputError: if the numbers of classes differ and `new_head` is False, or the classes are the same in another
            order.
    """
    model = load_classifier(name, **kwargs)
    if names is None:
        return model
    if len(names) != model.config.num_labels:
        if not new_head:
            raise InputError(
                f"the dataset has {len(names)} classes, but {name} has {model.config.num_labels}; "
                f"{either('pass --ignore_mismatched_sizes true', 'give new_head=True')} to train a new head"
            )
        model = load_classifier(name, ignore_mismatched_sizes=True, **_labels(names), **kwargs)
    own = class_names_of(model)
    if own != names and sorted(own) == sorted(names):
        raise InputError(f"the dataset orders the classes of {name} otherwise; use Dataset.align_labels_with_mapping")
    for key, value in _labels(names).items():
        setattr(model.config, key, value)
    if hasattr(model.config, "label_names"):  # timm's models read it when they are loaded
        model.config.label_names = names
    return model


def load_processor(name: str | Path, **kwargs: Any) -> BaseImageProcessor:
    """Loads a checkpoint's own image processor.

    Args:
        name: folder or Hub id.
        kwargs: for `AutoImageProcessor.from_pretrained`.

    Raises:
        InputError: if there is none.
    """
    check_folder(name)
    finish_filling(name)
    try:
        return AutoImageProcessor.from_pretrained(name, trust_remote_code=False, **kwargs)
    except Exception as error:  # likewise
        raise InputError(f"{name} has no usable preprocessor_config.json: {_reason(error)}") from error


def new_classifier(config: str, names: list[str] | None) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Makes an untrained classifier, and a processor that scales images to the size its config names.

    Args:
        config: JSON object of a Transformers config, with `model_type` and `image_size`.
        names: class names in the order of their labels, or None to leave them to the config.

    Raises:
        InputError: if the config is not valid.
    """
    try:
        given = json.loads(config)
        if names is not None:
            given = {key: value for key, value in given.items() if key != "num_labels"} | _labels(names)
        settings = AutoConfig.for_model(**given)
        size = settings.image_size
        height, width = size if isinstance(size, list | tuple) else (size, size)
        size = {"height": height, "width": width}
        return AutoModelForImageClassification.from_config(settings), ViTImageProcessorPil(size=size)
    except (ValueError, TypeError, AttributeError) as error:
        reason = _reason(error)
        raise InputError(
            f"backbone_config: must be a JSON object with model_type and image_size ({reason})"
        ) from error


def class_names_of(model: PreTrainedModel) -> list[str]:
    """Names of a model's classes in the order of its logits."""
    return [model.config.id2label[index] for index in range(model.config.num_labels)]


def _labels(names: list[str]) -> dict[str, dict]:
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def _reason(error: Exception) -> str:
    """Why loading failed, in one line."""
    if isinstance(error, UnpicklingError):  # torch's own text advises to read it anyway
        return PICKLED
    if isinstance(error, ImportError) and "timm" in str(error) and not is_timm_available():
        return 'it needs timm, by pip install "advbn_hf[timm]"'
    if str(error).strip() and isinstance(
        error, LookupError | TypeError | AttributeError
    ):  # their text alone is too short
        return f"{type(error).__name__}: {first_line(error)}"
    return first_line(error)
