"""Tiny untrained models: of any image classifier class of Transformers, and a base for models of one's own."""

import re
from typing import Any

import torch
from torch import Tensor, nn
from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

NUM_LABELS = 5
IMAGE_SIZE = 64


class TinyClassifier(PreTrainedModel):
    """A classifier into 5 classes of 16 x 16 images, whose `forward` a test writes."""

    config_class = PreTrainedConfig
    main_input_name = "pixel_values"

    def __init__(self, width: int = 4) -> None:
        super().__init__(PreTrainedConfig(num_labels=NUM_LABELS))
        self.config.image_size = 16
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.head = nn.Linear(width, NUM_LABELS)

    def classify(self, features: Tensor) -> ImageClassifierOutput:
        """The output for features (B, width, ...)."""
        return ImageClassifierOutput(logits=self.head(features.flatten(2).mean(2)))


# What a tiny config has under these names.
SETTINGS = {
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_self_attends_per_block": 4,
    "num_self_attention_heads": 1,
    "num_cross_attention_heads": 1,
    "n_layer": 2,
    "num_groups": 2,
    "depth_coefficient": 1.0,
    "depth_multiplier": 0.25,
    "width_coefficient": 0.25,
    "width_multiplier": 0.25,
    "scale": 0.25,
    "vocab_size": 64,
    "window_size": 2,
    "initializer_range": 0.2,  # with the usual 0.02 no signal comes through a deep network that has no residuals
}
WIDTHS = re.compile("hidden_(size|dim)|embd?|embed|channels$|intermediate|_dims?$|latents|d_model|^groups_width")
DEPTHS = re.compile("depths$|num_blocks$|num_block_repeats")


def image_classifiers() -> dict[str, tuple[type[PreTrainedConfig], type[PreTrainedModel]]]:
    """Every class in the mapping with its config's class, by name."""
    found = {}
    for config_class, classes in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING.items():
        for model_class in classes if isinstance(classes, tuple) else (classes,):
            found[model_class.__name__] = (config_class, model_class)
    return found


def tiny_model(name: str, seed: int = 0) -> PreTrainedModel:
    """A tiny model of a class in the mapping, for images of 64 x 64 and 5 classes, in eval mode."""
    config_class, model_class = image_classifiers()[name]
    settings = _shrunk(config_class().to_dict())
    torch.manual_seed(seed)
    config = config_class(**settings, num_labels=NUM_LABELS)
    if not hasattr(config, "image_size"):
        config.image_size = IMAGE_SIZE
    model = model_class(config)
    settle(model)
    return model.eval()


def settle(model: PreTrainedModel) -> None:
    """Sets the running statistics of batch norms to those of noise, if the model runs on images."""
    norms = [module for module in model.modules() if hasattr(module, "running_mean")]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the mean over all batches
    if norms:
        with torch.no_grad():
            model.train()(pixel_values=torch.randn(8, 3, IMAGE_SIZE, IMAGE_SIZE))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _shrunk(settings: dict[str, Any]) -> dict[str, Any]:
    """The attributes to change."""
    changed = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            if name.endswith("_config"):
                changed[name] = _shrunk(value)
        elif name in SETTINGS and not isinstance(value, (list, tuple)):
            changed[name] = SETTINGS[name]
        elif name == "image_size":
            changed[name] = _each(value, lambda _: IMAGE_SIZE)
        elif WIDTHS.search(name):
            changed[name] = _each(value, lambda number: number // 8 if number >= 16 else number)
        elif DEPTHS.search(name):
            changed[name] = _each(value, lambda number: min(number, 2))
    return changed


def _each(value: Any, change: Any) -> Any:
    """A number or a list of them, each integer changed."""
    if isinstance(value, (list, tuple)):
        return type(value)(_each(entry, change) for entry in value)
    return change(value) if isinstance(value, int) and not isinstance(value, bool) else value
