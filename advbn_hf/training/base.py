"""The training of a new classifier from scratch, before it is made robust."""

from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import BaseImageProcessor, PreTrainedModel, Trainer, TrainingArguments

from ..backbones.loading import load_classifier
from ..data.images import ImageDataset, SetEpochCallback, collate
from ..training_args import AdvBNTrainingArguments
from ..utils.files import filling
from .arguments import ModelArguments

# Up over 30 % of the steps, then down along a cosine, as PyTorch's OneCycleLR does.
ONE_CYCLE: dict[str, Any] = {"lr_scheduler_type": "cosine", "warmup_steps": 0.3}


def train_base(
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    images: ImageDataset,
    model_args: ModelArguments,
    args: AdvBNTrainingArguments,
) -> PreTrainedModel:
    """Trains all of a new model on clean images, unless the run that is resumed has done so.

    Args:
        model: untrained.
        processor: its image processor.
        images: to train on.
        model_args: epochs and learning rate of this training.
        args: arguments of the fine-tuning that follows: batch size, seed, precision and the like; the model is saved
            to the subfolder "base" of its output folder.

    Returns:
        The trained model, in eval mode.
    """
    folder = Path(args.output_dir) / "base"
    if not (folder / "preprocessor_config.json").exists():
        base_args = TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=model_args.base_epochs,
            learning_rate=model_args.base_learning_rate,
            **ONE_CYCLE,
            per_device_train_batch_size=args.per_device_train_batch_size,
            dataloader_num_workers=args.dataloader_num_workers,
            dataloader_pin_memory=args.dataloader_pin_memory,
            seed=args.seed,
            bf16=args.bf16,
            use_cpu=args.use_cpu,
            logging_steps=args.logging_steps,
            save_strategy="no",
            report_to=args.report_to,
        )
        callbacks = [SetEpochCallback()]
        Trainer(model, base_args, train_dataset=images, data_collator=collate, callbacks=callbacks).train()
        if args.process_index == 0:
            with filling(folder) as temporary:  # the processor's file comes last: it marks a complete folder
                model.save_pretrained(temporary)
                processor.save_pretrained(temporary)
        PartialState().wait_for_everyone()
    return load_classifier(folder)
