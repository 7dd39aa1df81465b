"""Options of a fine-tuning beside `AdvBNConfig` and training arguments, and checks for contradictions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ..backbones.adapters import has_adapters
from ..config import AdvBNConfig
from ..errors import InputError, check_at_least, check_choice
from ..hub.metadata import validate_metadata
from ..modeling import AdvBNForImageClassification
from ..training_args import AdvBNTrainingArguments, check_perturbations
from ..utils.files import check_writable
from ..utils.run_lock import holds_files
from .augmentation import AugmentationArguments

# What a model card reports of the training.
REPORTED_ARGUMENTS = (
    "learning_rate",
    "lr_scheduler_type",
    "lr_decay_epochs",
    "optim",
    "optim_args",
    "weight_decay",
    "ema_decay",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "world_size",
    "bf16",
    "fp16",
    "seed",
)


@dataclass
class ModelArguments:
    """Which model to fine-tune."""

    model_name_or_path: str | None = field(default=None, metadata={"help": "Hub id or folder of the classifier."})
    model_revision: str = field(default="main", metadata={"help": "Branch, tag or commit of the classifier."})
    ignore_mismatched_sizes: bool = field(
        default=False,
        metadata={
            "help": "Create a new head where the dataset has another number of classes. The model before "
            "fine-tuning is then left out of the results."
        },
    )
    image_size: int | None = field(
        default=None, metadata={"help": "Side of the images in pixels; by default that of the model's processor."}
    )
    backbone_config: str | None = field(
        default=None,
        metadata={"help": "Instead of model_name_or_path: config (JSON, with model_type) of a model to train first."},
    )
    base_epochs: float = field(default=8, metadata={"help": "Epochs of that first training."})
    base_learning_rate: float = field(default=3e-3, metadata={"help": "Highest learning rate of that first training."})
    baseline: bool = field(default=False, metadata={"help": "Also fine-tune plainly, to compare."})
    license: str | None = field(
        default=None, metadata={"help": "Licence of the new model for its card, for example apache-2.0."}
    )
    list_insertion_points: bool = field(
        default=False, metadata={"help": "Only list the modules after which this model could be perturbed."}
    )


@dataclass
class DataArguments:
    """Which images to use."""

    dataset_name: str | None = field(
        default=None, metadata={"help": 'Hub id or folder of the dataset, or "embedded" for the embedded benchmark.'}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of the dataset."})
    dataset_revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the dataset."})
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    eval_split: str = field(default="validation", metadata={"help": "Split to evaluate on."})
    image_column: str | None = field(default=None, metadata={"help": "Column of the images; found by its type."})
    label_column: str | None = field(default=None, metadata={"help": "Column of the labels; found by its type."})
    suite: str | None = field(
        default=None,
        metadata={
            "help": "What to report on: name of a suite in recipes/suites, or a YAML file, whose sets are of this "
            "dataset where they name none; by default the evaluation split."
        },
    )
    streaming: bool = field(default=False, metadata={"help": "Read the training split as it is needed."})
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Evaluate on so many images of each set, at random."}
    )
    cache_stem_features: bool = field(
        default=False,
        metadata={"help": "Run the frozen stem once for each image and keep its features on disk while training."},
    )
    skip_bad_images: bool = field(
        default=False, metadata={"help": "Leave out images that cannot be decoded, and name them at the end."}
    )

    @property
    def source(self) -> dict[str, str | None]:
        """Keyword arguments of `load_images` and `SetEntry` for every split."""
        return {
            "config": self.dataset_config_name,
            "revision": self.dataset_revision,
            "image_column": self.image_column,
            "label_column": self.label_column,
        }


def reported_arguments(args: AdvBNTrainingArguments) -> dict[str, Any]:
    """The training arguments that a model card reports, by their names."""
    return {name: getattr(args, name) for name in REPORTED_ARGUMENTS}


def check_model_arguments(model_args: ModelArguments) -> None:
    """Checks that exactly one model is named.

    Raises:
        InputError: names the option.
    """
    if (model_args.model_name_or_path is None) == (model_args.backbone_config is None):
        raise InputError("model_name_or_path: give a Hub id or folder; or quickstart, before the quickstart's options")
    check_at_least("image_size", model_args.image_size, 1)
    if model_args.image_size is not None and model_args.backbone_config is not None:
        raise InputError("image_size: write the new model's into backbone_config")


def check_arguments(
    model_args: ModelArguments,
    data_args: DataArguments,
    augmentation_args: AugmentationArguments,
    advbn_config: AdvBNConfig,
    args: AdvBNTrainingArguments,
) -> None:
    """Checks for options that contradict each other or would overwrite another run.

    Raises:
        InputError: names the option.
    """
    if data_args.dataset_name is None:
        raise InputError('dataset_name: give a Hub id or folder, or "embedded"')
    check_at_least("max_eval_samples", data_args.max_eval_samples, 1)
    if data_args.streaming and args.max_steps <= 0:
        raise InputError("max_steps: a stream has no length; give the number of steps to train for")
    if data_args.streaming and model_args.backbone_config is not None:
        raise InputError("backbone_config: a new model is trained for epochs, but a stream has none; name a model")
    if data_args.cache_stem_features:
        if data_args.streaming:
            raise InputError("cache_stem_features: a stream has no length; leave out --streaming")
        if augmentation_args.augmentation != "none":
            raise InputError("cache_stem_features: augmented images differ in every epoch; add --augmentation none")
        if not advbn_config.freeze_stem:
            raise InputError("cache_stem_features: the stem learns (freeze_stem is false), so its features change")
    if augmentation_args.augmented_branch != "both" and not advbn_config.auxiliary_norms:
        raise InputError("augmented_branch: without auxiliary_norms there is one branch; leave it at both")
    if args.do_predict:
        raise InputError("do_predict: a run trains and evaluates; predict by recipes/evaluate.py on what it has saved")
    if args.resume_from_checkpoint not in (None, "last") and not Path(args.resume_from_checkpoint).is_dir():
        raise InputError(
            f'resume_from_checkpoint: there is no folder {args.resume_from_checkpoint}; give one, or "last"'
        )
    check_at_least("base_epochs", model_args.base_epochs, 0)
    check_at_least("base_learning_rate", model_args.base_learning_rate, 0)
    if args.metric_for_best_model is not None:
        name = args.metric_for_best_model.removeprefix("eval_")
        check_choice("metric_for_best_model", name, ("loss", "clean_accuracy", "auxiliary_accuracy"))
    validate_metadata({"license": model_args.license} if model_args.license else {})
    folder = Path(args.output_dir)
    if not args.resume_from_checkpoint and (folder.is_file() or holds_files(folder)):
        raise InputError(
            f"output_dir: {folder} holds another run; choose another folder, remove it, "
            "or resume that run with --resume_from_checkpoint last"
        )
    check_writable(folder, "output_dir")


def check_arguments_kind(args: AdvBNTrainingArguments) -> None:
    """Checks that training arguments are of our kind.

    Raises:
        InputError: they are not.
    """
    if not isinstance(args, AdvBNTrainingArguments):
        raise InputError(
            f"args: must be AdvBNTrainingArguments, which take the same settings, not {type(args).__name__}"
        )


def check_trainable(model: AdvBNForImageClassification, args: AdvBNTrainingArguments) -> None:
    """Checks that a model can be trained with these arguments.

    Raises:
        InputError: names the argument.
    """
    if not isinstance(model, AdvBNForImageClassification):
        raise InputError(
            f"model: must be an AdvBNForImageClassification, not {type(model).__name__}; wrap it by from_backbone"
        )
    check_perturbations(model.advbn_config, args, model.backbone)
    if args.n_gpu > 1:  # nn.DataParallel's copies of a model would all replay one stem
        raise InputError(
            f"{args.n_gpu} GPUs need a process each: accelerate launch --multi_gpu, or in a notebook "
            "accelerate.notebook_launcher; or set CUDA_VISIBLE_DEVICES=0"
        )
    if args.load_best_model_at_end and has_adapters(model):
        raise InputError("load_best_model_at_end must be false: checkpoints of an adapted model hold it merged")


def check_columns(inputs: Mapping[str, Any], stored: bool) -> None:
    """Checks that a batch holds images and labels alone.

    Args:
        inputs: what would go to the model's forward, whose other arguments are no data.
        stored: whether the rows are stored stem features.

    Raises:
        InputError: names a column that is neither.
    """
    views = {"pixel_values", "auxiliary_pixel_values", "labels"}
    others = sorted(inputs.keys() - views - ({"recording"} if stored else set()))
    if others:
        raise InputError(f"column {others[0]!r} is neither pixel_values nor labels; rename or remove it")


class FixedArguments:
    """Arguments that a trainer reads once, when it is made.

    Args:
        args: as they are then.
    """

    NAMES = (
        "bf16",
        "fp16",
        "use_cpu",
        "seed",
        "data_seed",
        "full_determinism",
        "compile_tail",
        "sync_batchnorm",
        "ema_decay",
        "ddp_find_unused_parameters",
        "ddp_backend",
        "fsdp",
        "deepspeed",
        "report_to",
    )

    def __init__(self, args: AdvBNTrainingArguments) -> None:
        self._values = {name: getattr(args, name) for name in self.NAMES}

    def check(self, args: AdvBNTrainingArguments) -> None:
        """Stops where one has been changed, which would have no effect.

        Raises:
            InputError: names the argument and both values.
        """
        for name, value in self._values.items():
            if getattr(args, name) != value:
                raise InputError(
                    f"{name}: was {value} when the trainer was made, and is {getattr(args, name)} now; "
                    "make a new AdvBNTrainer for it"
                )


def check_learns(model: nn.Module) -> None:
    """Checks that some weight is left to train.

    Raises:
        InputError: all are frozen.
    """
    if not any(weight.requires_grad for weight in model.parameters()):
        raise InputError(
            "model: all weights are frozen; unfreeze what follows the insertion point, with requires_grad_(True)"
        )
