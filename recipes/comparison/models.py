"""The models that are compared: small ones, trained on clean images first, and those that start from ImageNet's."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainingArguments, set_seed

from advbn_hf.backbones.loading import load_classifier, load_classifier_for, new_classifier
from advbn_hf.errors import InputError
from advbn_hf.training.base import ONE_CYCLE

from .datasets import DecodedImages
from .linear_probe import train_linear_probe
from .views import Collator, Views

# The quickstart's ResNet and another network with batch norms; then two with layer norms instead. ConvNeXt's blocks
# are at full strength from the start: at 48 pixels and 4,000 images it would otherwise hardly learn.
MODELS: dict[str, dict[str, Any]] = {
    "resnet": {
        "model_type": "resnet",
        "embedding_size": 16,
        "hidden_sizes": [16, 32, 64, 128],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
        "image_size": 48,
    },
    "regnet": {
        "model_type": "regnet",
        "embedding_size": 16,
        "hidden_sizes": [16, 32, 64, 128],
        "depths": [1, 1, 1, 1],
        "groups_width": 8,
        "layer_type": "y",
        "image_size": 48,
    },
    "convnext": {
        "model_type": "convnext",
        "num_stages": 3,
        "hidden_sizes": [32, 64, 128],
        "depths": [1, 1, 1],
        "layer_scale_init_value": 1.0,
        "image_size": 48,
    },
    "vit": {
        "model_type": "vit",
        "hidden_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 192,
        "patch_size": 6,
        "image_size": 48,
    },
}

# Name of a model that starts from ImageNet's weights -> the checkpoint to name to recipes/convert.py.
PRETRAINED = {f"lite{size}": f"efficientnet-lite{size}" for size in range(3)}
# Name of a model -> the pretrained one whose new head is trained alone first.
PROBED = {"lite0_probed": "lite0"}
CHOICES = (*MODELS, *PRETRAINED, *PROBED)

# How all methods fine-tune.
SGD: dict[str, Any] = {
    "optim": "sgd",
    "optim_args": "momentum=0.9",
    "learning_rate": 0.03,
    "weight_decay": 1e-4,
    "lr_scheduler_type": "cosine",
    "max_grad_norm": 0,
}


@dataclass(frozen=True)
class BaseSettings:
    """How a small model is trained on clean images first.

    Args:
        epochs: passes over the training split.
        learning_rate: of AdamW, the highest of a one-cycle schedule.
        batch_size: images of a step.
    """

    epochs: float = 8.0
    learning_rate: float = 3e-3
    batch_size: int = 64


def weights_of(model: str, pretrained: str) -> Path:
    """The file of a pretrained model's weights.

    Args:
        model: one of `PRETRAINED`.
        pretrained: folder that has a folder for each of them.

    Raises:
        InputError: there is none.
    """
    folder = Path(pretrained) / model
    if not (folder / "model.safetensors").is_file():
        raise InputError(
            f"pretrained: {folder} has no model; make it: python recipes/convert.py {PRETRAINED[model]} {folder}"
        )
    return folder / "model.safetensors"


def base_model(
    model: str, images: DecodedImages, settings: BaseSettings, seed: int, folder: Path, pretrained: str
) -> PreTrainedModel:
    """The classifier to fine-tune: the trained one of `folder`, which is created if missing, or a pretrained one.

    Args:
        model: one of `CHOICES`.
        images: to train on.
        settings: how.
        seed: of weights and order; of a pretrained model, of its new head.
        folder: of a Transformers checkpoint; it is written atomically.
        pretrained: see `weights_of`.
    """
    if model in PRETRAINED:
        return _with_new_head(model, images, seed, pretrained)
    if folder.is_dir():
        return load_classifier(folder)
    temporary = folder.with_name(f".{folder.name}")
    if model in PROBED:
        backbone = _with_new_head(PROBED[model], images, seed, pretrained)
        train_linear_probe(backbone, images)
    else:
        backbone = _trained_from_scratch(model, images, settings, seed, temporary)
    backbone.save_pretrained(temporary)
    temporary.replace(folder)
    return load_classifier(folder)


def _with_new_head(model: str, images: DecodedImages, seed: int, pretrained: str) -> PreTrainedModel:
    set_seed(seed)
    return load_classifier_for(list(images.names), str(weights_of(model, pretrained).parent), new_head=True)


def _trained_from_scratch(
    model: str, images: DecodedImages, settings: BaseSettings, seed: int, scratch: Path
) -> PreTrainedModel:
    set_seed(seed)
    backbone, _ = new_classifier(json.dumps(MODELS[model]), list(images.names))
    arguments = TrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=settings.epochs,
        **ONE_CYCLE,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size,
        seed=seed,
        **QUIET,
    )
    trainer = Trainer(backbone, arguments, train_dataset=images, data_collator=Collator(Views(), seed))
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return backbone


# Training arguments of runs that write nothing, print nothing and leave the progress bar to the trials.
QUIET: dict[str, Any] = {
    "disable_tqdm": True,
    "logging_strategy": "no",
    "report_to": "none",
    "save_strategy": "no",
    "dataloader_pin_memory": False,
    "remove_unused_columns": False,
}
