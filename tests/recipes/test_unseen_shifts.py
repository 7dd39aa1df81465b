"""The comparison's set of shifts that nothing was tuned on, against their formulas by loops."""

import math

import numpy as np
import pytest
import torch
from comparison.data.unseen import SHIFTS, unseen, with_checkerboard, with_plasma, with_waves
from comparison.datasets import DATASETS, load_decoded

LEVELS = np.random.default_rng(0).random((6, 9, 3))


def test_plasma_is_white_noise_with_amplitudes_divided_by_the_frequency():
    white = np.random.default_rng(4).normal(size=LEVELS.shape)
    plasma = (with_plasma(LEVELS, np.random.default_rng(4)) - LEVELS) / 0.2
    assert plasma.std() == pytest.approx(1)
    ratios = []
    for channel in range(3):
        for i in range(6):
            for j in range(9):
                wave = np.exp(-2j * np.pi * (i * np.arange(6)[:, None] / 6 + j * np.arange(9) / 9))
                before, after = (wave * white[..., channel]).sum(), (wave * plasma[..., channel]).sum()
                if i == j == 0:
                    assert abs(after) < 1e-9
                else:
                    frequency = math.hypot(min(i, 6 - i) / 6, min(j, 9 - j) / 9)
                    ratios.append(after * frequency / before)
    np.testing.assert_allclose(ratios, ratios[0].real, rtol=1e-6)


def test_waves_by_loops():
    cycles, direction, phase = np.random.default_rng(4).uniform((3, 0, 0), (12, math.pi, 1))
    found = with_waves(LEVELS, np.random.default_rng(4))
    for row in range(6):
        for column in range(9):
            along = (row * math.sin(direction) + column * math.cos(direction)) / 6
            expected = LEVELS[row, column] + 0.25 * math.sin(2 * math.pi * (cycles * along + phase))
            np.testing.assert_allclose(found[row, column], expected)


def test_checkerboard_by_loops():
    rng = np.random.default_rng(4)
    squares, (down, right) = rng.integers(5, 11), rng.uniform(size=2)
    found = with_checkerboard(LEVELS, np.random.default_rng(4))
    cut = 0
    for row in range(6):
        for column in range(9):
            even = (math.floor(squares * row / 6 + down) + math.floor(squares * column / 6 + right)) % 2 == 0
            cut += even
            np.testing.assert_array_equal(found[row, column], [0.5] * 3 if even else LEVELS[row, column])
    assert 10 < cut < 44


def test_each_image_has_one_of_the_three_by_its_row():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    found, kinds = unseen(pixels), []
    for row, image in enumerate(pixels):
        rng = np.random.default_rng([0, row])
        kinds.append(int(rng.integers(3)))
        levels = SHIFTS[kinds[-1]](image / 255, rng)
        np.testing.assert_array_equal(found[row], np.floor(255 * levels.clip(0, 1) + 0.5).astype(np.uint8))
    assert min(map(kinds.count, range(3))) > 5
    np.testing.assert_array_equal(unseen(pixels[:7]), found[:7])
    assert not np.array_equal(unseen(pixels, seed=1), found)


@pytest.mark.parametrize("dataset", ["digits", "characters", "patterns"])
def test_the_set_is_of_the_clean_images_and_no_shift_of_the_mean(dataset):
    clean = load_decoded(dataset, "clean", "validation", 12)
    shifted = load_decoded(dataset, "unseen", "validation", 12)
    np.testing.assert_array_equal(shifted.pixels, unseen(clean.pixels))
    assert torch.equal(shifted.labels, clean.labels)
    assert "unseen" not in DATASETS[dataset].shifts
