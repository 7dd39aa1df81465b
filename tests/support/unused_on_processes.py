"""What `test_processes_of_users.py` starts on two processes: weights that no forward uses, and a folder for each."""

import os
from pathlib import Path

import torch
import torch.distributed as dist
from builders import rows, tiny_convnext
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPForImageClassification,
    PreTrainedModel,
    SiglipConfig,
    SiglipForImageClassification,
    ViTImageProcessorPil,
)
from transformers.utils import ModelOutput

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, AdvBNTrainer, AdvBNTrainingArguments, InputError
from advbn_hf.utils.cli import run

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def tiny_clip() -> PreTrainedModel:
    """Its last norm, of a token that is not used, gets no gradient."""
    text, vision = SMALL | {"projection_dim": 16}, SMALL | {"image_size": 32, "patch_size": 8}
    return CLIPForImageClassification(CLIPConfig(text_config=text, vision_config=vision, num_labels=5))


def tiny_siglip() -> PreTrainedModel:
    """Its pooling head gets no gradient."""
    vision = SMALL | {"image_size": 32, "patch_size": 8}
    return SiglipForImageClassification(SiglipConfig(text_config=SMALL, vision_config=vision, num_labels=5))


def with_a_spare_head() -> PreTrainedModel:
    """A head of one's own for another task."""
    model = tiny_convnext()
    model.spare = nn.Linear(4, 4)
    return model


def with_a_head_that_runs() -> PreTrainedModel:
    """The same, but it runs, and nothing is made of what it gives."""
    model = with_a_spare_head()

    def run_in_vain(model: PreTrainedModel, inputs: tuple, output: ModelOutput) -> None:
        model.spare(output.logits[:, :4])

    model.register_forward_hook(run_in_vain)
    return model


MODELS = {"clip": tiny_clip, "siglip": tiny_siglip, "spare": with_a_spare_head, "runs": with_a_head_that_runs}


def train(name: str, output_dir: Path, **settings: object) -> dict:
    """Three steps over batches of 8 images, shared by all processes; the weights before and after them."""
    torch.manual_seed(0)
    model = AdvBNForImageClassification.from_backbone(MODELS[name](), AdvBNConfig(random_start=False))
    start = {key: value.clone() for key, value in model.state_dict().items()}
    settings = {"save_strategy": "no", "max_steps": 3, "optim": "sgd", "max_grad_norm": 0} | settings
    args = AdvBNTrainingArguments(
        str(output_dir), learning_rate=0.1, report_to="none", use_cpu=True, disable_tqdm=True, **settings
    )
    args.per_device_train_batch_size = 8 // args.world_size
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    AdvBNTrainer(model, args, train_dataset=rows(24), processing_class=processor).train()
    return {"start": start, "weights": model.state_dict()}


def fail() -> None:
    """A recipe that ends with an error on every process."""
    raise InputError("field: wrong")


def main(output_dir: str | Path) -> None:
    """Writes `rank<r>.pt`, and what is trained to a folder for each process, as on machines without a shared disk."""
    rank = int(os.environ.get("RANK", 0))
    own = Path(output_dir) / f"rank{rank}"
    kept = {name: train(name, own / name) for name in MODELS}
    kept["checkpointed"] = train("clip", own / "checkpointed", gradient_checkpointing=True)
    kept["saved"] = train("spare", own / "saved", save_strategy="steps", save_steps=3)
    several = "RANK" in os.environ
    kept["grouped"] = dist.is_initialized() == several
    if several:
        try:
            run(fail)
        except SystemExit as end:
            kept["code"] = end.code
        kept["ended"] = not dist.is_initialized()
    torch.save(kept, Path(output_dir) / f"rank{rank}.pt")
