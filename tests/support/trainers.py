"""A trainer of a small model on a few random images."""

from builders import rows, tiny_resnet
from transformers import ViTImageProcessorPil

from advbn_hf import AdvBNForImageClassification, AdvBNTrainer, AdvBNTrainingArguments

ROWS = rows(32)


def trainer_of(output_dir, *, model=None, config=None, data=ROWS, callbacks=None, **settings):
    settings = {
        "per_device_train_batch_size": 8,
        "max_steps": 4,
        "learning_rate": 0.05,
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "lr_scheduler_type": "cosine",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
    } | settings
    model = AdvBNForImageClassification.from_backbone(model or tiny_resnet(), config)
    args = AdvBNTrainingArguments(str(output_dir), **settings)
    return AdvBNTrainer(
        model,
        args,
        train_dataset=data,
        eval_dataset=data[:20],
        processing_class=ViTImageProcessorPil(size={"height": 32, "width": 32}),
        callbacks=callbacks,
    )
