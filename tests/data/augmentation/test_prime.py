"""PRIME's three maps against their formulas, in loops and with the same random numbers."""

import math

import numpy as np
import pytest
from PIL import Image

from advbn_hf.data.augmentation import prime as module
from advbn_hf.data.augmentation.prime import prime, random_colours, random_displacement, random_filter

SEEDS = pytest.mark.parametrize("seed", range(4))


@pytest.fixture
def levels():
    return np.random.default_rng(9).random((12, 10, 3), dtype=np.float32)


@SEEDS
def test_colours_are_moved_by_a_band_of_sines(levels, seed):
    result = random_colours(levels, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    highest, variance = rng.integers(1, 501), rng.uniform(0, 0.05)
    lowest = rng.integers(1, highest + 1)
    expected = levels.astype(float)
    for frequency in list(range(lowest, highest + 1))[:20]:
        for channel, coefficient in enumerate(rng.normal(0, math.sqrt(variance), 3)):
            expected[..., channel] += coefficient * np.sin(math.pi * frequency * levels[..., channel].astype(float))
    np.testing.assert_allclose(result, np.clip(expected, 0, 1), atol=2e-3)
    assert result.dtype == np.float32 and not np.allclose(result, levels, atol=0.02)


@SEEDS
def test_a_filter_is_identity_and_noise_for_all_channels(levels, seed):
    result = random_filter(levels, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    kernel = rng.normal(0, rng.uniform(0, 4), (3, 3)) + np.diag([0, 1, 0])
    expected = np.zeros(levels.shape)
    for row in range(12):
        for column in range(10):
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    if 0 <= row + down < 12 and 0 <= column + right < 10:
                        weight = kernel[down + 1, right + 1]
                        expected[row, column] += weight * levels[row + down, column + right]
    np.testing.assert_allclose(result, expected.clip(0, 1), atol=1e-5)


@SEEDS
def test_pixels_are_displaced_by_sines(monkeypatch, seed):
    monkeypatch.setattr(module, "_HIGHEST", 6)
    rows, columns = np.mgrid[:40, :40].astype(np.float32)
    ramps = np.stack([rows, columns, rows], axis=-1)  # show where each pixel comes from
    result = random_displacement(ramps, np.random.default_rng(seed))
    rng = np.random.default_rng(seed)
    largest = rng.integers(3, 7)
    cut = 2 + int(rng.beta(0.5, 0.5) * (largest - 1))
    assert 2 <= cut <= largest
    coolest = 1 / (math.pi * 40**2 * math.log(cut))
    hottest = 4 / (math.pi**3 * cut**2 * math.log(cut))
    temperature = coolest + rng.beta(0.5, 0.5) * max(hottest - coolest, 0)
    for axis in range(2):
        drawn, moved = rng.normal(size=(cut, cut)), np.zeros((40, 40))
        for i in range(1, cut + 1):
            for j in range(1, cut + 1):
                if i**2 + j**2 <= cut**2:
                    coefficient = math.sqrt(temperature / (i**2 + j**2)) * drawn[i - 1, j - 1]
                    moved += coefficient * np.sin(i * math.pi * rows / 39) * np.sin(j * math.pi * columns / 39)
        expected = (ramps[..., axis] - 40 * moved).clip(0, 39)
        np.testing.assert_allclose(result[..., axis], expected, atol=1e-3)
    assert np.abs(result - ramps).max() > 0.1


def test_the_mean_displacement_lies_between_half_a_pixel_and_the_largest_without_folds():
    """Petrini et al.: sqrt(pi n^2 T ln(cut) / 4) in pixels, so half a pixel at the lowest temperature."""
    rows = np.mgrid[:64, :64][0].astype(np.float32)
    ramp = np.repeat(rows[..., None], 3, axis=-1)
    rng = np.random.default_rng(0)
    middle = [np.square(random_displacement(ramp, rng) - ramp)[16:48, 16:48].mean() for _ in range(150)]
    assert 0.2 < math.sqrt(np.median(middle)) < 3


def test_a_view_is_a_mixture_of_levels():
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    views = [prime(Image.fromarray(pixels), np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert views[0].shape == (24, 20, 3) and views[0].dtype == np.float32
    assert min(view.min() for view in views) >= 0 and max(view.max() for view in views) < 255.01
    assert np.array_equal(views[0], views[1]) and not np.array_equal(views[0], views[2])
