"""Accuracy of a classifier, or of both branches of an AdvBN model, on a set of pictures."""

from collections import Counter

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..data.pictures import Pictures, collate
from ..modeling import AdvBNForImageClassification
from ..norms import BRANCHES
from .results import Record


@torch.no_grad()
def measure_accuracy(
    model: PreTrainedModel | AdvBNForImageClassification,
    pictures: Pictures,
    *,
    model_name: str,
    set_name: str,
    accelerator: Accelerator,
    batch_size: int = 64,
    num_workers: int = 0,
) -> list[Record]:
    """Share of pictures whose largest logit is the label's. Both branches of an AdvBN model share the stem's pass.

    Args:
        model: a plain classifier, or one with two branches; it is put into eval mode.
        pictures: the set, as the model's inputs.
        model_name: the records' `model`.
        set_name: the records' `set`.
        accelerator: says which device, precision and processes to use.
        batch_size: pictures at a time on each process.
        num_workers: processes that decode pictures, for each process.

    Returns:
        A record for each branch; one whose branch is None for a plain classifier.
    """
    loader = DataLoader(pictures, batch_size, collate_fn=collate, num_workers=num_workers)
    model, loader = accelerator.prepare_model(model.eval(), evaluation_mode=True), accelerator.prepare(loader)
    correct: Counter[str | None] = Counter()
    total = 0
    for batch in tqdm(
        loader, desc=f"{model_name} on {set_name}", disable=not accelerator.is_main_process, leave=False
    ):
        labels = batch["labels"]
        for branch, logits in _logits_by_branch(model, batch["pixel_values"]).items():
            correct[branch] += accelerator.gather_for_metrics(logits.argmax(dim=-1) == labels).sum().item()
        total += len(accelerator.gather_for_metrics(labels))
    return [
        Record(model_name, set_name, None, None, branch, "accuracy", count / total, total)
        for branch, count in correct.items()
    ]


def _logits_by_branch(model: torch.nn.Module, pixel_values: Tensor) -> dict[str | None, Tensor]:
    if isinstance(model, AdvBNForImageClassification):
        output = model(pixel_values=pixel_values, branch="both")
        return dict(zip(BRANCHES, (output.logits, output.auxiliary_logits), strict=True))
    return {None: model(pixel_values=pixel_values).logits}
