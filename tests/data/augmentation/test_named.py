"""Augmentations by name: what they share, and torchvision's where it is installed (conftest makes it import)."""

import importlib.util
import pickle
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTImageProcessorPil

from advbn_hf.data.augmentation.named import AUGMENTATIONS, augmentation_called
from advbn_hf.data.images import ImageDataset
from advbn_hf.data.transforms import EvaluationTransform, TrainingTransform
from advbn_hf.errors import InputError

OF_TORCHVISION = ("trivialaugment", "randaugment")
with_torchvision = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None,
    reason='torchvision is missing: pip install "advbn_hf[augmentation]"',
)
NAMES = [pytest.param(n, marks=with_torchvision) if n in OF_TORCHVISION else n for n in AUGMENTATIONS]
PROCESSOR = ViTImageProcessorPil(size={"height": 32, "width": 40})


@pytest.fixture
def image():
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((60, 50), Image.Resampling.BICUBIC)


def seeded(transform, image, seed):
    torch.manual_seed(seed)
    return transform(image)


@pytest.mark.parametrize("name", NAMES)
def test_an_augmentation_depends_on_torch_s_seed_alone_and_can_be_pickled(name, image):
    transform = TrainingTransform(PROCESSOR, name)
    views = [seeded(transform, image, seed) for seed in range(8)]
    assert all(view.shape == (3, 32, 40) and view.isfinite().all() for view in views)
    np.random.seed(1)
    sent = pickle.loads(pickle.dumps(transform))
    assert all(torch.equal(seeded(sent, image, seed), view) for seed, view in enumerate(views))
    assert not torch.equal(views[0], views[1])
    plain = [seeded(TrainingTransform(PROCESSOR), image, seed) for seed in range(8)]
    changed = [not torch.equal(*pair) for pair in zip(plain, views, strict=True)]
    assert any(changed) == (name != "crop_flip")


@pytest.mark.parametrize("name", ["augmix", "randconv"])
def test_each_branch_has_its_view_of_the_same_crop(name, image):
    plain = seeded(TrainingTransform(PROCESSOR), image, 3)
    augmented = seeded(TrainingTransform(PROCESSOR, name), image, 3)
    for branch, clean, auxiliary in (("auxiliary", plain, augmented), ("clean", augmented, plain)):
        views = seeded(TrainingTransform(PROCESSOR, name, branch), image, 3)
        assert torch.equal(views["pixel_values"], clean)
        assert torch.equal(views["auxiliary_pixel_values"], auxiliary)


def test_without_crop_and_flip_the_image_is_augmented_in_its_own_size(image):
    transform = TrainingTransform(PROCESSOR, "augmix", crop_flip=False)
    expected = EvaluationTransform(PROCESSOR)(seeded(augmentation_called("augmix")[0], image, 3))
    assert torch.equal(seeded(transform, image, 3), expected)
    as_it_is = EvaluationTransform(PROCESSOR)(image)
    torch.manual_seed(3)
    expected = augmentation_called("randconv")[1](as_it_is)
    views = seeded(TrainingTransform(PROCESSOR, "randconv", "auxiliary", crop_flip=False), image, 3)
    assert torch.equal(views["pixel_values"], as_it_is)
    assert torch.equal(views["auxiliary_pixel_values"], expected)
    with pytest.raises(InputError, match=r"crop_flip: .*none"):
        TrainingTransform(PROCESSOR, crop_flip=False)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "crop_flip"])
def test_an_augmentation_is_applied_several_times_in_a_row(name, image):
    on_image, on_input = augmentation_called(name)
    cropped = seeded(TrainingTransform(PROCESSOR)._cropped, image, 3)
    for _ in range(3):
        cropped = on_image(cropped)
    expected = EvaluationTransform(PROCESSOR)(cropped)
    for _ in range(3):
        expected = on_input(expected)
    assert torch.equal(seeded(TrainingTransform(PROCESSOR, name, times=3), image, 3), expected)


@with_torchvision
@pytest.mark.parametrize(
    ("name", "theirs"), [("trivialaugment", "TrivialAugmentWide"), ("randaugment", "RandAugment")]
)
def test_torchvision_s_come_with_its_defaults_after_crop_and_flip(name, theirs, image):
    from torchvision.transforms import v2

    transform, reference = TrainingTransform(PROCESSOR, name), getattr(v2, theirs)()
    for seed in range(8):
        torch.manual_seed(seed)
        cropped = TrainingTransform(PROCESSOR)._cropped(image)
        expected = EvaluationTransform(PROCESSOR)(reference(cropped))
        assert torch.equal(seeded(transform, image, seed), expected)


@with_torchvision
def test_rows_and_epochs_have_numbers_of_their_own_whatever_was_read_before(image):
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["a"])})
    rows = Dataset.from_dict({"image": [image] * 4, "label": [0] * 4}, features=features)
    rows = rows.cast_column("image", ImageFeature(decode=False))
    images = ImageDataset(rows, TrainingTransform(PROCESSOR, "trivialaugment"), seed=5)
    forwards = [images[row]["pixel_values"] for row in range(4)]
    backwards = [images[row]["pixel_values"] for row in (3, 2, 1, 0)]
    assert all(map(torch.equal, forwards, reversed(backwards)))
    assert not torch.equal(forwards[0], forwards[1])
    images.set_epoch(1)
    assert not torch.equal(images[0]["pixel_values"], forwards[0])


def test_a_missing_library_and_an_unknown_name_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.transforms", None)
    with pytest.raises(InputError, match=r"augmentation: randaugment needs torchvision.*advbn_hf\[augmentation\]"):
        TrainingTransform(PROCESSOR, "randaugment")
    with pytest.raises(InputError, match=r"augmentation: .*'prim'.*'prime'"):
        augmentation_called("prim")
    for times in (0, 1.5, True):
        with pytest.raises(InputError, match=f"augmentation_times must be a whole number from 1 on, got {times}"):
            TrainingTransform(PROCESSOR, "prime", times=times)
    with pytest.raises(InputError, match="augmented_branch"):
        TrainingTransform(PROCESSOR, "prime", "adversarial")
