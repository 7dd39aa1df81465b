"""Data workers that are spawned, as on macOS and Windows, or come from a fork server, as from Python 3.14 on."""

import multiprocessing
import pickle
from itertools import islice
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from builders import tiny_resnet
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage
from torch.utils.data import DataLoader
from transformers import ViTImageProcessorPil

from advbn_hf import AdvBNForImageClassification
from advbn_hf.data.images import BadImages, ImageDataset, collate
from advbn_hf.data.streaming import StreamedImageDataset
from advbn_hf.data.transforms import EvaluationTransform, TrainingTransform, Unresized
from advbn_hf.evaluation.inference import predict
from advbn_hf.training.stem_cache import cached_stem_features

METHODS = pytest.mark.parametrize("method", ["spawn", "forkserver"])
multiprocessing.set_forkserver_preload(["advbn_hf"])  # imported once, for all that come from the server
PROCESSOR = ViTImageProcessorPil(size={"height": 32, "width": 32})
TRANSFORMS = [EvaluationTransform(PROCESSOR), TrainingTransform(PROCESSOR), Unresized(PROCESSOR)]
AUGMENTED = [
    TrainingTransform(PROCESSOR, *settings) for settings in (("augmix",), ("randconv",), ("prime", "auxiliary"))
]


@pytest.fixture
def rows() -> Dataset:
    """Twelve images of noise; the sixth is damaged."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b", "c"])})
    columns = {"image": [PILImage.fromarray(image) for image in pixels], "label": [row % 3 for row in range(12)]}
    rows = Dataset.from_dict(columns, features=features).cast_column("image", Image(decode=False))
    images = rows["image"][:]
    images[5] = {"bytes": b"damaged", "path": "5.png"}
    return rows.remove_columns("image").add_column("image", images, feature=rows.features["image"])


def batches(dataset, method=None, function=collate, count=None):
    """The batches that two data workers make, or this process where no method is named."""
    context = {} if method is None else {"num_workers": 2, "multiprocessing_context": method}
    loader = DataLoader(dataset, 3, collate_fn=function, generator=torch.Generator(), **context)
    return list(islice(loader, count))


def equal(ours, others) -> bool:
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, others)
    if isinstance(ours, dict):
        return ours.keys() == others.keys() and all(equal(ours[name], others[name]) for name in ours)
    if isinstance(ours, list | tuple):
        return len(ours) == len(others) and all(map(equal, ours, others))
    return vars(ours).keys() == vars(others).keys() and equal(vars(ours), vars(others)) if ours is not None else True


def sent(dataset):
    """What a process that is spawned gets of it."""
    return pickle.loads(ForkingPickler.dumps(dataset))


@pytest.mark.parametrize("transform", [*TRANSFORMS, *AUGMENTED], ids=lambda transform: type(transform).__name__)
@pytest.mark.parametrize("streaming", [False, True])
def test_what_workers_are_sent_reads_the_same(rows, tmp_path, transform, streaming):
    bad = BadImages(tmp_path / "bad.jsonl")
    if streaming:
        images = StreamedImageDataset(rows.to_iterable_dataset().shuffle(seed=0, buffer_size=5), transform, bad)
    else:
        images = ImageDataset(rows, transform, bad, seed=1)
        images.set_epoch(2)
    assert equal(batches(sent(images), count=8), batches(images, count=8))
    assert bad.summary() == ["row 5 (5.png)"] or streaming


def test_stem_features_are_mapped_by_each_process(rows, tmp_path):
    model = AdvBNForImageClassification.from_backbone(tiny_resnet(num_labels=3))
    images = ImageDataset(rows, TRANSFORMS[0], BadImages(tmp_path / "bad.jsonl"))
    with cached_stem_features(model, images, tmp_path / "stem", batch_size=4) as features:
        other = sent(features)
        assert equal(batches(other, function=other.collate), batches(features, function=features.collate))
        features.labels[0] = 2  # one file, not a copy of it
        assert other.labels[0] == 2
        stored = sum(file.stat().st_size for file in (tmp_path / "stem").iterdir())
        assert stored > 10_000 and len(ForkingPickler.dumps(features)) < stored / 2


@pytest.mark.slow
@METHODS
def test_workers_make_the_same_batches_of_streams_and_stem_features(rows, tmp_path, method):
    bad = BadImages(tmp_path / "bad.jsonl")
    stream = StreamedImageDataset(rows.to_iterable_dataset(), AUGMENTED[0], bad)  # one shard: for one of the workers
    assert equal(batches(stream, method, count=6), batches(stream, count=6))
    images = ImageDataset(rows, TRANSFORMS[1], bad)
    model = AdvBNForImageClassification.from_backbone(tiny_resnet(num_labels=3))
    with cached_stem_features(model, images, tmp_path / "stem", batch_size=3) as features:
        ours, others = (batches(features, how, features.collate) for how in (method, None))
        assert equal(ours, others)


@pytest.mark.slow
@METHODS
def test_workers_make_the_same_batches_and_see_the_next_epoch(rows, tmp_path, method):
    images = ImageDataset(rows, AUGMENTED[2], BadImages(tmp_path / "bad.jsonl"))
    options = {"collate_fn": collate, "generator": torch.Generator(), "persistent_workers": True}
    loader = DataLoader(images, 3, num_workers=2, multiprocessing_context=method, **options)
    for epoch in range(2):
        images.set_epoch(epoch)
        assert equal(list(loader), batches(images))


@pytest.mark.slow
@METHODS
def test_evaluation_where_workers_start_so_by_default(rows, tmp_path, method):
    model = tiny_resnet(num_labels=3)
    images = ImageDataset(rows, TRANSFORMS[0], BadImages(tmp_path / "bad.jsonl"))
    options = {"accelerator": Accelerator(cpu=True), "description": "noise", "batch_size": 3}
    expected = predict(model, images, **options)
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(method, force=True)
    try:
        seen = predict(model, images, num_workers=2, **options)
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert len(seen.rows) == 11 and equal(seen, expected)
