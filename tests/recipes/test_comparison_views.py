"""Augmentations as the methods of the comparison see them: by hand, and from their seed alone."""

import sys

import numpy as np
import pytest
import torch
from comparison import views
from comparison.methods import METHODS
from comparison.peers.apr import apr_s, recombine
from comparison.views import Collator, Views, to_input
from PIL import Image

from advbn_hf import InputError
from advbn_hf.data.augmentation import named
from advbn_hf.data.augmentation.augmix import OPERATIONS
from advbn_hf.data.augmentation.named import augmentation_called
from advbn_hf.data.augmentation.prime import prime
from advbn_hf.data.augmentation.randconv import randconv


@pytest.fixture
def rows():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 40, 3), dtype=np.uint8)
    return [{"pixels": image, "labels": label} for label, image in enumerate(pixels)]


@pytest.mark.parametrize("views", ["augmix", "apr_s", "prime", "randconv", "image and two augmix"])
def test_views_depend_on_their_seed_alone_and_leave_torch_s_numbers(views, rows):
    collate = Collator(Views(views), seed=3)
    torch.manual_seed(1)
    first = [collate(rows) for _ in range(2)]
    following = torch.rand(3)
    collate = Collator(Views(views), seed=3)
    torch.manual_seed(2)
    second = [collate(rows) for _ in range(2)]
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one["pixel_values"], other["pixel_values"])
        assert one["labels"].tolist() == [0, 1, 2, 3, 4]
    assert not torch.equal(first[0]["pixel_values"], first[1]["pixel_values"])
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), following)


def test_views_of_prime_and_randconv_by_hand(rows):
    images = [row["pixels"] for row in rows]
    rng = np.random.default_rng(3)
    expected = to_input(np.stack([prime(Image.fromarray(image), rng) for image in images]))
    assert torch.equal(Collator(Views("prime"), 3)(rows)["pixel_values"], expected)
    torch.manual_seed(int(np.random.default_rng(3).integers(2**63)))
    expected = torch.stack([randconv(values) for values in to_input(np.stack(images))])
    assert torch.equal(Collator(Views("randconv"), 3)(rows)["pixel_values"], expected)


@pytest.mark.parametrize("views", ["randaugment", "trivialaugment"])
def test_views_of_torchvision_by_hand(views, rows):
    try:
        augment, _ = augmentation_called(views)
    except InputError:
        pytest.skip('torchvision is missing: pip install "advbn_hf[augmentation]"')
    torch.manual_seed(int(np.random.default_rng(3).integers(2**63)))
    expected = np.stack([np.asarray(augment(Image.fromarray(row["pixels"]))) for row in rows])
    assert torch.equal(Collator(Views(views), 3)(rows)["pixel_values"], to_input(expected))


@pytest.mark.parametrize("name", ["prime", "randconv"])
def test_a_share_of_the_images_is_augmented_several_times(name, rows, monkeypatch):
    applied = []
    function = {"prime": lambda image, rng: applied.append(0) or np.asarray(image) // 2, "randconv": None}[name]
    monkeypatch.setitem(views._OF_NUMPY, name, function)
    monkeypatch.setattr(named, "randconv", lambda values: applied.append(0) or values / 2)
    collate, images = Collator(Views(name, times=3, share=0.5), 3), np.stack([row["pixels"] for row in rows])
    counts = []
    for _ in range(30):
        applied.clear()
        seen = collate(rows)["pixel_values"]
        halved = to_input(images // 8) if name == "prime" else to_input(images) / 8
        augmented = [torch.equal(found, expected) for found, expected in zip(seen, halved, strict=True)]
        kept = [torch.equal(found, expected) for found, expected in zip(seen, to_input(images), strict=True)]
        assert [not value for value in augmented] == kept
        assert len(applied) == 3 * sum(augmented)
        counts.append(sum(augmented))
    assert 50 < sum(counts) < 100 and len(set(counts)) > 2  # of 150 images, drawn anew for each batch


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.transforms", None)
    with pytest.raises(InputError, match=r"trivialaugment needs torchvision.*advbn_hf\[augmentation\]"):
        Collator(METHODS["trivialaugment_advbn"].views, 0)


def test_amplitude_and_phase_are_recombined_by_a_sum_over_all_places():
    first, second = np.random.default_rng(0).normal(size=(2, 3, 4, 2))
    frequencies = [np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) for n in first.shape]

    def transformed(image, sign):
        matrices = frequencies if sign > 0 else [matrix.conj() / len(matrix) for matrix in frequencies]
        return np.einsum("ai,bj,ck,ijk->abc", *matrices, image)

    one, other = transformed(first, 1), transformed(second, 1)
    expected = transformed(abs(one) * other / abs(other), -1)
    assert abs(expected.imag).max() < 1e-9
    np.testing.assert_allclose(recombine(first, second), expected.real, atol=1e-9)


def test_apr_s_is_one_operation_or_two_recombined(monkeypatch):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    recombined = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        first = OPERATIONS[rng.integers(len(OPERATIONS))](image, rng)
        if rng.random() < 0.5:
            expected = np.asarray(first)
            recombined.append(False)
        else:
            second = OPERATIONS[rng.integers(len(OPERATIONS))](first, rng)
            views = [np.asarray(view) for view in (first, second)]
            pairs = [recombine(*views), recombine(*views[::-1])]
            found = apr_s(image, np.random.default_rng(seed))
            expected = min((pair.clip(0, 255) for pair in pairs), key=lambda pair: abs(pair - found).max())
            recombined.append(True)
        np.testing.assert_allclose(apr_s(image, np.random.default_rng(seed)), expected, atol=1e-3)
    assert 10 < sum(recombined) < 30
