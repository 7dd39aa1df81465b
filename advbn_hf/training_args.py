"""`AdvBNTrainingArguments`, and the check that they fit the method's settings."""

from dataclasses import dataclass, field

from torch import nn
from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy

from .backbones.norms import fewest_images
from .config import AdvBNConfig
from .errors import InputError, check_at_least


@dataclass
class AdvBNTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` and what the published recipe needs beside them.

    Args:
        logging_nan_inf_filter: as in `TrainingArguments`, but off: to read the loss, the host waits for the device.
            On with `fp16`, whose loss scaling waits too and skips steps that overflow.
        lr_decay_epochs: multiply the learning rate by 0.1 every so many epochs, instead of `lr_scheduler_type`;
            above 0.
        decay_norms_and_biases: let `weight_decay` act on norms and biases too, as the published recipe does; the
            Trainer excludes most of them.
        compile_tail: compile what follows the insertion point with `torch.compile`; `torch_compile` would compile the
            whole model, which changes its own modules as it goes.
        sync_batchnorm: let batch norms take their statistics over all processes, as the published recipe does;
            needs GPUs.
        ema_decay: average the weights and running statistics along the run, average <- decay * average + (1 - decay)
            * weights after each step, and evaluate and save the average; above 0, below 1.

    Raises:
        InputError: if a value is out of its range or cannot work with two branches.

    Example:
        >>> args = AdvBNTrainingArguments("outputs/mine", num_train_epochs=20, lr_decay_epochs=5, use_cpu=True)
        >>> args.lr_decay_epochs
        5
    """

    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Exclude NaN and inf from the logged loss, at the cost of waiting each step."}
    )
    lr_decay_epochs: float | None = field(
        default=None,
        metadata={"help": "Multiply the learning rate by 0.1 every so many epochs, instead of lr_scheduler_type."},
    )
    decay_norms_and_biases: bool = field(
        default=False, metadata={"help": "Let weight_decay act on norms and biases too, as in the published recipe."}
    )
    compile_tail: bool = field(
        default=False, metadata={"help": "Compile what follows the insertion point; the first steps take longer."}
    )
    sync_batchnorm: bool = field(
        default=False, metadata={"help": "Take the statistics of batch norms over all processes; needs GPUs."}
    )
    ema_decay: float | None = field(
        default=None,
        metadata={"help": "Decay of a moving average of the weights, which is evaluated and saved, such as 0.99."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("seed", self.seed, 0)
        for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
            check_at_least(name, getattr(self, name), 1)
        if not 0 <= self.label_smoothing_factor <= 1:
            raise InputError(f"label_smoothing_factor must be in 0..1, got {self.label_smoothing_factor}")
        if self.use_liger_kernel:
            raise InputError("use_liger_kernel: its kernels are of language models; leave it out")
        if self.neftune_noise_alpha is not None:
            raise InputError(
                "neftune_noise_alpha: is noise on embeddings of text, which images have none of; leave it out"
            )
        if self.fp16:
            self.logging_nan_inf_filter = True  # else the loss is logged as NaN ever after
        if self.lr_decay_epochs is not None and self.lr_decay_epochs <= 0:
            raise InputError(f"lr_decay_epochs must be above 0, got {self.lr_decay_epochs}")
        for name in ("warmup_steps", "lr_scheduler_kwargs"):
            if self.lr_decay_epochs is not None and getattr(self, name):
                raise InputError(f"{name}: is of lr_scheduler_type, in whose place lr_decay_epochs is; leave out one")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise InputError(f"ema_decay must be above 0 and below 1, got {self.ema_decay}")
        if self.torch_compile:
            raise InputError("torch_compile: the model changes as it runs; use compile_tail instead")
        if self.compile_tail and self.gradient_checkpointing:
            raise InputError("compile_tail: cannot compile a tail whose activations are checkpointed; leave out one")
        if self.sync_batchnorm and self.world_size > 1 and self.device.type != "cuda":
            raise InputError("sync_batchnorm: torch can do that on GPUs alone; leave it out or train one process")
        if self.enable_jit_checkpoint:
            raise InputError("enable_jit_checkpoint: SIGTERM always saves a checkpoint here; leave it out")
        if self.eval_use_gather_object:
            raise InputError(
                "eval_use_gather_object: is for outputs that are no tensors, which logits are; leave it out"
            )
        if self.batch_eval_metrics:
            raise InputError("batch_eval_metrics must be false: metrics of a branch need all its predictions")
        if self.hub_strategy not in (HubStrategy.END, HubStrategy.EVERY_SAVE):
            raise InputError("hub_strategy must be end or every_save: optimizer state is never uploaded")


def check_perturbations(config: AdvBNConfig, args: TrainingArguments, backbone: nn.Module) -> None:
    """Checks that share and number of perturbations fit the batch, the processes and the network.

    Raises:
        InputError: if they do not.
    """
    fewest = fewest_images(backbone)
    if config.adversarial_share < 1 and args.train_batch_size < (smallest := config.smallest_batch(fewest)):
        left = "no image" if fewest == 1 else "fewer than two images"
        raise InputError(
            f"per_device_train_batch_size ({args.train_batch_size}) leaves a branch {left} at "
            f"adversarial_share {config.adversarial_share}; take {smallest} or more, or a share of 1"
        )
    wanted = config.num_perturbations
    if wanted == "per_sample":
        return
    if args.world_size > 1 and wanted % args.world_size and wanted > args.world_size:
        raise InputError(
            f"num_perturbations ({wanted}) must be a multiple of the number of processes ({args.world_size})"
        )
    batch = args.train_batch_size * args.world_size
    if wanted > batch:
        raise InputError(f"num_perturbations ({wanted}) must not exceed the {batch} images of a forward pass")
