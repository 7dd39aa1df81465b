"""What `test_processes_resume.py` starts on two processes: an uninterrupted run, a resumed one, one on a stream."""

from pathlib import Path

import torch
from builders import EpochRows, rows, tiny_resnet
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, AdvBNTrainer, AdvBNTrainingArguments
from advbn_hf.data.images import collate
from advbn_hf.data.streaming import StreamedImageDataset


def train(output_dir: str, resume_from: str | None = None) -> dict:
    """Five steps over 21 images, which two processes share as two full batches and a short one."""
    args = AdvBNTrainingArguments(
        output_dir,
        max_steps=5,
        per_device_train_batch_size=4,
        per_device_eval_batch_size=4,
        optim="sgd",
        optim_args="momentum=0.9",
        learning_rate=0.1,
        save_steps=2,
        ema_decay=0.9,
        eval_strategy="steps",
        eval_steps=5,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    model = AdvBNForImageClassification.from_backbone(tiny_resnet())
    data = EpochRows(21)
    trainer = AdvBNTrainer(model, args, train_dataset=data, eval_dataset=rows(8))
    trainer.train(resume_from_checkpoint=resume_from)
    evaluations = [log for log in trainer.state.log_history if "eval_loss" in log]
    return {
        "weights": trainer.model.state_dict(),
        "eval_loss": evaluations[-1]["eval_loss"],
        "world": args.world_size,
        "read_in": data.read_in,
    }


def train_on_stream(output_dir: str) -> dict:
    """Three steps of two images per process over a stream of six, which makes two passes; returns which were seen."""
    images = Dataset.from_dict(
        {"image": [Image.new("RGB", (32, 32), (row, row, row)) for row in range(6)], "label": [0] * 6},
        features=Features({"image": ImageFeature(), "label": Value("int64")}),
    )
    args = AdvBNTrainingArguments(
        output_dir,
        max_steps=3,
        per_device_train_batch_size=2,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    seen = []

    def note(image: Image.Image) -> torch.Tensor:
        seen.append(image.getpixel((0, 0))[0])
        return torch.full((3, 32, 32), seen[-1] / 255)

    stream = images.cast_column("image", ImageFeature(decode=False)).to_iterable_dataset(num_shards=3)
    stream = StreamedImageDataset(stream, note, rank=args.process_index, world_size=args.world_size)
    model = AdvBNForImageClassification.from_backbone(tiny_resnet(), AdvBNConfig(adversarial_share=1.0))
    AdvBNTrainer(model, args, train_dataset=stream, data_collator=collate).train()
    return {"seen": seen, "weights": model.state_dict()}


def main(output_dir: str | Path) -> None:
    """Writes `rank<r>.pt`."""
    folder = Path(output_dir)
    full = train(str(folder / "full"))
    resumed = train(str(folder / "resumed"), resume_from=str(folder / "full" / "checkpoint-2"))
    kept = {"full": full, "resumed": resumed, "streamed": train_on_stream(str(folder / "streamed"))}
    torch.save(kept, folder / f"rank{torch.distributed.get_rank()}.pt")
