"""Runs a classifier, or both branches of an AdvBN model, over a set of images."""

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..backbones.model_outputs import logits_of
from ..backbones.norms import BRANCHES
from ..backbones.tracing import evaluating
from ..data.images import ImageDataset, collate
from ..errors import InputError
from ..modeling import AdvBNForImageClassification
from .labels import LabelMatch, restrict
from .predictions import Predictions, TopPredictions

KEPT = 5  # classes kept of each image, for top-5 accuracy


def branch_logits(model: PreTrainedModel | AdvBNForImageClassification, pixel_values: Tensor) -> dict[str, Tensor]:
    """Logits of every branch that a classifier has. Both branches of an AdvBN model share the stem's pass.

    Args:
        model: any image classifier, in eval mode.
        pixel_values: (B, C, H, W), on the model's device.

    Returns:
        "clean" and "auxiliary" of a model with auxiliary norms, "plain" of any other; (B, K) each.
    """
    if isinstance(model, AdvBNForImageClassification) and model.advbn_config.auxiliary_norms:
        output = model(pixel_values=pixel_values, branch="both")
        return dict(zip(BRANCHES, (output.logits, output.auxiliary_logits), strict=True))
    return {"plain": logits_of(model(pixel_values=pixel_values))}


def predict(
    model: PreTrainedModel | AdvBNForImageClassification,
    images: ImageDataset,
    *,
    accelerator: Accelerator,
    description: str,
    match: LabelMatch | None = None,
    batch_size: int = 64,
    num_workers: int = 0,
) -> Predictions:
    """Predictions of a model for every image. Both branches of an AdvBN model share the stem's pass.

    The batches are the same on any number of processes, which take them in turn; so are the predictions.

    Args:
        model: a plain classifier, or one with two branches; it is moved to the accelerator's device.
        images: the set, as the model's inputs.
        accelerator: device, precision and processes.
        description: text of the progress bar.
        match: the model's class for each of the set's; all other logits are left out. By default they are the same.
        batch_size: images at a time on each process.
        num_workers: processes that decode images, for each process.

    Returns:
        The predictions of all processes, in classes of the set, on every process.

    Raises:
        InputError: an image cannot be decoded and `images` does not leave such ones out.
    """
    model = model.to(accelerator.device)
    batches: list[dict[str, Tensor]] = []
    problem: InputError | None = None
    try:
        with torch.no_grad(), evaluating(model), accelerator.autocast():
            loader = _loader(images, accelerator, batch_size, num_workers)
            _run(model, loader, match, batches, accelerator, description)
    except InputError as error:
        problem = error
    # All processes end together, with the same mistake where one met any.
    merged = {name: torch.cat([batch[name] for batch in batches]).cpu() for name in batches[0]} if batches else {}
    shares = gather_object([(merged, problem)]) if accelerator.num_processes > 1 else [(merged, problem)]
    for _, met in shares:
        if met is not None:
            raise met
    return _join([share for share, _ in shares if share])


class _Numbered(Dataset):
    """Images with their row numbers."""

    def __init__(self, images: ImageDataset) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.images[index], "row": index}


def _loader(images: ImageDataset, accelerator: Accelerator, batch_size: int, num_workers: int) -> DataLoader:
    starts = range(accelerator.process_index * batch_size, len(images), accelerator.num_processes * batch_size)
    batches = [range(start, min(start + batch_size, len(images))) for start in starts]
    return DataLoader(
        _Numbered(images),
        batch_sampler=batches,
        collate_fn=_collate,
        num_workers=num_workers,
        pin_memory=accelerator.device.type == "cuda",
    )


def _collate(rows: list[dict[str, Any]]) -> dict[str, Tensor] | None:
    """A batch with its row numbers; None where no image of it can be decoded."""
    rows = [row for row in rows if row["pixel_values"] is not None]
    return {**collate(rows), "rows": torch.tensor([row["row"] for row in rows])} if rows else None


def _run(
    model: nn.Module,
    loader: DataLoader,
    match: LabelMatch | None,
    predicted: list[dict[str, Tensor]],
    accelerator: Accelerator,
    description: str,
) -> None:
    """Appends the predictions of each batch to `predicted`, on the device: nothing waits for them between batches."""
    right, seen = torch.zeros((), dtype=torch.int64, device=accelerator.device), 0
    bar = tqdm(total=len(loader), desc=description, unit="batch", disable=not accelerator.is_main_process, leave=False)
    with bar:
        for batch in loader:
            if batch is not None:
                pixel_values = batch["pixel_values"].to(accelerator.device, non_blocking=True)
                tensors = {name: batch[name].to(accelerator.device, non_blocking=True) for name in ("rows", "labels")}
                columns = _probabilities(model, pixel_values, match)
                for column, probabilities in columns.items():
                    top = probabilities.topk(min(KEPT, probabilities.shape[1]))
                    tensors |= {f"{column}.classes": top.indices.int(), f"{column}.confidence": top.values[:, 0]}
                predicted.append(tensors)
                right += (tensors[f"{next(iter(columns))}.classes"][:, 0] == tensors["labels"]).sum()
                seen += len(tensors["labels"])
            if bar.update() and seen:  # only when the bar is drawn, since this waits for the device
                bar.set_postfix_str(f"accuracy {100 * right.item() / seen:.1f} %", refresh=False)


def _probabilities(model: nn.Module, pixel_values: Tensor, match: LabelMatch | None) -> dict[str, Tensor]:
    """Column -> float32 probabilities (B, K) over the classes of the set."""
    columns = {
        name: (logits if match is None else restrict(logits, match)).float().softmax(dim=1)
        for name, logits in branch_logits(model, pixel_values).items()
    }
    return columns | ({"mean": sum(columns.values()) / len(columns)} if len(columns) > 1 else {})


def _join(shares: list[dict[str, Tensor]]) -> Predictions:
    if not shares:
        raise InputError("no image of the set can be decoded; fix or remove those that the log names")
    joined = {name: torch.cat([share[name] for share in shares]) for name in shares[0]}
    order = joined["rows"].argsort()
    joined = {name: tensor[order] for name, tensor in joined.items()}
    columns = [name.removesuffix(".classes") for name in joined if name.endswith(".classes")]
    by_column = {name: TopPredictions(joined[f"{name}.classes"], joined[f"{name}.confidence"]) for name in columns}
    return Predictions(joined["rows"], joined["labels"], by_column)
