"""A stream has every row once a pass, whoever reads it, and resumes after any batch."""

from itertools import islice

import pytest
import torch
from builders import models_equal, tiny_resnet
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage
from transformers import ViTImageProcessorPil

from advbn_hf import AdvBNForImageClassification, AdvBNTrainer, AdvBNTrainingArguments
from advbn_hf.data.images import ImageDataset, collate
from advbn_hf.data.streaming import StreamedImageDataset, load_stream
from advbn_hf.data.transforms import EvaluationTransform, TrainingTransform

PROCESSOR = ViTImageProcessorPil(size={"height": 16, "width": 16}, do_normalize=False)
EXACT = EvaluationTransform(PROCESSOR)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Twelve images whose grey is their row's number."""
    images = [PILImage.new("RGB", (20, 20), (row, row, row)) for row in range(12)]
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b", "c"])})
    rows = Dataset.from_dict({"image": images, "label": [row % 3 for row in range(12)]}, features=features)
    return rows.cast_column("image", Image(decode=False))


def numbers(images: torch.Tensor) -> list[int]:
    return (images[:, 0, 0, 0] * 255).round().int().tolist()


def batches(stream: StreamedImageDataset, count: int, workers: int = 0, batch_size: int = 3) -> list[torch.Tensor]:
    sizes = {"per_device_train_batch_size": batch_size, "dataloader_num_workers": workers}
    args = AdvBNTrainingArguments(use_cpu=True, report_to="none", **sizes)
    return [batch["pixel_values"] for batch in islice(load_stream(stream, args, collate), count)]


def test_one_pass_is_what_images_give(dataset):
    streamed = torch.cat(batches(StreamedImageDataset(dataset.to_iterable_dataset(num_shards=4), EXACT), 4))
    assert torch.equal(streamed, torch.stack([row["pixel_values"] for row in ImageDataset(dataset, EXACT)]))


@pytest.mark.parametrize("num_shards", [1, 4])
@pytest.mark.parametrize("workers", [0, 2])
def test_processes_and_workers_share_each_pass(dataset, num_shards, workers):
    rows = dataset.to_iterable_dataset(num_shards=num_shards).shuffle(seed=0, buffer_size=5)
    orders = []
    for rank in range(2):
        stream = StreamedImageDataset(rows, EXACT, rank=rank, world_size=2)
        orders.append([numbers(batch) for batch in batches(stream, 4, workers)])
    for two in (slice(0, 2), slice(2, 4)):
        read = [number for order in orders for batch in order[two] for number in batch]
        assert sorted(read) == list(range(12))
    assert orders[0][:2] != orders[0][2:]


@pytest.mark.parametrize("num_shards", [1, 4])
@pytest.mark.parametrize("workers", [0, 2])
def test_it_starts_after_any_batch(dataset, num_shards, workers):
    rows = dataset.to_iterable_dataset(num_shards=num_shards).shuffle(seed=0, buffer_size=5)
    complete = batches(StreamedImageDataset(rows, TrainingTransform(PROCESSOR), seed=1), 12, workers, batch_size=5)
    for passed in (1, 4, 7):
        stream = StreamedImageDataset(rows, TrainingTransform(PROCESSOR), seed=1)
        stream.pass_over(passed, 5)
        rest = batches(stream, 12 - passed, workers, batch_size=5)
        assert torch.equal(torch.cat(rest), torch.cat(complete[passed:]))


def test_what_is_passed_over_is_not_decoded(dataset):
    read = []
    stream = StreamedImageDataset(dataset.to_iterable_dataset(), lambda image: read.append(image) or EXACT(image))
    stream.pass_over(2, 5)
    assert numbers(torch.stack([row["pixel_values"] for row in islice(stream, 3)])) == [10, 11, 0]
    assert len(read) == 3


def test_a_stream_without_rows_ends(dataset):
    nothing = dataset.to_iterable_dataset().filter(lambda row: False)
    assert list(StreamedImageDataset(nothing, EXACT)) == []


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"gradient_accumulation_steps": 2, "dataloader_num_workers": 2}], ids=str)
def test_a_streamed_run_resumes_where_it_was(dataset, tmp_path, settings):
    """Seven steps of four images are three passes over twelve; the checkpoint lies in the second."""

    def train(folder, seed, **resume):
        args = AdvBNTrainingArguments(
            str(tmp_path / folder),
            max_steps=7,
            per_device_train_batch_size=4,
            save_steps=4,
            logging_steps=1,
            learning_rate=0.05,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            **settings,
        )
        rows = dataset.to_iterable_dataset(num_shards=4).shuffle(seed=0, buffer_size=5)
        model = AdvBNForImageClassification.from_backbone(tiny_resnet(seed=seed))
        stream = StreamedImageDataset(rows, TrainingTransform(PROCESSOR))
        trainer = AdvBNTrainer(model, args, train_dataset=stream, data_collator=collate)
        trainer.train(**resume)
        return trainer

    uninterrupted = train("uninterrupted", 0)
    resumed = train("resumed", 1, resume_from_checkpoint=str(tmp_path / "uninterrupted" / "checkpoint-4"))
    assert resumed.state.global_step == 7
    assert not resumed.args.ignore_data_skip
    assert models_equal(uninterrupted.model, resumed.model)
    ended = train("ended", 1, resume_from_checkpoint=str(tmp_path / "uninterrupted" / "checkpoint-7"))
    assert ended.state.global_step == 7
    assert models_equal(uninterrupted.model, ended.model)
