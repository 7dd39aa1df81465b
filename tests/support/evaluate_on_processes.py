"""What `test_api.py` starts on two processes: each evaluates a model whose running statistics are its own."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator

from advbn_hf import AdvBNForImageClassification, evaluate_suite
from advbn_hf.backbones.loading import load_processor
from advbn_hf.evaluation.records import Record


def evaluate(folder: str | Path, rank: int) -> list[Record]:
    """Evaluates a checkpoint after as many steps on noise of its own as its rank and one more."""
    model = AdvBNForImageClassification.from_pretrained(folder).train()
    generator = torch.Generator().manual_seed(rank)
    for _ in range(rank + 1):
        model.split.tail(model.split.stem(pixel_values=torch.randn(8, 3, 32, 32, generator=generator)))
    return evaluate_suite(model, processor=load_processor(folder), sets=["clean"], max_samples=50, batch_size=10)


def main(folder: str | Path, output_dir: str | Path) -> None:
    """Writes the records of each process."""
    number = Accelerator().process_index
    records = [asdict(record) for record in evaluate(folder, number)]
    Path(output_dir, f"{number}.json").write_text(json.dumps(records))
