"""AugMix and its operations against their formulas."""

import math

import numpy as np
import pytest
from PIL import Image

from advbn_hf.data.augmentation import augmix as module
from advbn_hf.data.augmentation.augmix import OPERATIONS, augmix

AUTOCONTRAST, EQUALIZE, POSTERIZE, SOLARIZE, ROTATE, SHEAR_X, SHEAR_Y, SHIFT_X, SHIFT_Y = OPERATIONS


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(40, 200, (48, 48, 3), dtype=np.uint8)


def strength(seed, strongest, severity=3, signed=False):
    """That of an operation with the same seed."""
    rng = np.random.default_rng(seed)
    value = rng.uniform(0.1, severity) / 10 * strongest
    return value * rng.choice((-1, 1)) if signed else value


def test_chains_of_one_to_three_are_mixed(monkeypatch, noise):
    darker = lambda one, rng: Image.fromarray(np.asarray(one) // 2)  # noqa: E731
    monkeypatch.setattr(module, "OPERATIONS", (darker,))
    view = augmix(Image.fromarray(noise), np.random.default_rng(3))
    rng = np.random.default_rng(3)
    weights, share = rng.dirichlet([1, 1, 1]), rng.beta(1, 1)
    expected = (1 - share) * noise.astype(float)
    for weight in weights:
        depth = len(rng.choice(1, rng.integers(1, 4)))
        expected += share * weight * (noise // 2**depth)
    np.testing.assert_allclose(view, expected, rtol=1e-4, atol=0.01)


def test_autocontrast_stretches_each_channel_to_all_levels(noise):
    result = np.asarray(AUTOCONTRAST(Image.fromarray(noise), None))
    low, high = noise.min((0, 1)).astype(float), noise.max((0, 1)).astype(float)
    np.testing.assert_allclose(result, (noise - low) * 255 / (high - low), atol=1)


def test_equalize_makes_levels_equally_frequent():
    levels = (np.random.default_rng(0).beta(2, 5, (48, 48, 3)) * 255).astype(np.uint8)
    result = np.asarray(EQUALIZE(Image.fromarray(levels), None))
    for channel in range(3):
        below = np.searchsorted(np.sort(levels[..., channel].ravel()), levels[..., channel])
        np.testing.assert_allclose(result[..., channel], 255 * below / 48**2, atol=6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("size", "severity"), [(48, 3), (96, 1)])
def test_posterize_and_solarize(noise, size, severity, seed):
    image = Image.fromarray(np.resize(noise, (size, size, 3)))
    levels, rng = np.asarray(image), lambda: np.random.default_rng(seed)
    cut = 256 - int(strength(seed, 256, severity))
    np.testing.assert_array_equal(SOLARIZE(image, rng()), np.where(levels < cut, levels, 255 - levels))
    step = 2 ** (8 - (4 - int(strength(seed, 4, severity))))
    np.testing.assert_array_equal(POSTERIZE(image, rng()), levels // step * step)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("operation", "strongest", "moved"),
    [
        # Where (x, y), from the image's upper left corner, comes to lie, by the strength s.
        (SHEAR_X, 0.3, lambda x, y, s: (x - s * y, y)),
        (SHEAR_Y, 0.3, lambda x, y, s: (x, y - s * x)),
        (SHIFT_X, 16, lambda x, y, s: (x - s, y)),
        (SHIFT_Y, 16, lambda x, y, s: (x, y - s)),
        (
            ROTATE,
            math.radians(30),
            lambda x, y, s: (
                24 + math.cos(s) * (x - 24) + math.sin(s) * (y - 24),
                24 - math.sin(s) * (x - 24) + math.cos(s) * (y - 24),
            ),
        ),
    ],
)
def test_a_dot_moves_as_far_as_it_should(operation, strongest, moved, seed):
    dot = np.zeros((48, 48, 3), np.uint8)
    dot[24:29, 27:32] = 200
    result = np.asarray(operation(Image.fromarray(dot), np.random.default_rng(seed)), float)[..., 0]
    rows, columns = np.mgrid[:48, :48] + 0.5
    found = (result * columns).sum() / result.sum(), (result * rows).sum() / result.sum()
    assert found == pytest.approx(moved(29.5, 26.5, strength(seed, strongest, signed=True)), abs=0.3)
