"""Patches of ten repeating patterns, in the styles of the embedded benchmark.

They differ in kind from digits and letters: a class is known by its texture all over the patch, not by one outline. So
they show what perturbing the statistics of features costs where these tell classes apart. None of the patterns is a
texture that the style "stylized" paints with.
"""

import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
from datasets import Dataset

from advbn_hf.data.embedded.rendering import Glyphs, render
from advbn_hf.errors import check_choice

_SIDE = 40
_PATCHES = {"train": 1000, "validation": 200, "test": 600}  # drawn independently of one another


def load_patterns(style: str = "clean", split: str = "train", num_images: int | None = None, seed: int = 0) -> Dataset:
    """Makes one set of patterns; see `rendering.render` for arguments, result and errors."""
    return render("patterns", _patches, style, split, num_images, seed)


@cache
def _patches(split: str) -> Glyphs:
    """Patches of a split, each with a period (8 to 13 cells), direction (within 20 degrees) and phase of its own."""
    check_choice("split", split, _PATCHES)
    rng = np.random.default_rng(zlib.crc32(f"patterns/{split}".encode()))
    count = _PATCHES[split]
    labels = np.arange(count) % len(PATTERNS)
    angle, period, phase_u, phase_v = rng.uniform((-0.35, 8, 0, 0), (0.35, 13, 2, 2), (count, 4)).T[..., None, None]
    rows, columns = np.mgrid[:_SIDE, :_SIDE]
    u = (np.cos(angle) * columns + np.sin(angle) * rows) / period + phase_u
    v = (np.cos(angle) * rows - np.sin(angle) * columns) / period + phase_v
    ink = np.empty((count, _SIDE, _SIDE), dtype=np.float32)
    for label, inside in enumerate(PATTERNS.values()):
        shown = labels == label
        ink[shown] = np.clip(0.5 + period[shown] * inside(u[shown], v[shown]), 0, 1)  # edges of one cell
    return Glyphs(ink, labels, tuple(PATTERNS))


# Each takes coordinates u, v in periods (arrays of one shape), and is positive where there is ink, by about the
# distance from the edge.


def _off(t: np.ndarray) -> np.ndarray:
    """Distance to the middle between two whole numbers: 0 there, 0.5 at whole numbers."""
    return np.abs(t % 1 - 0.5)


def _bricks(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return 0.38 - np.maximum(_off(v), 2 * _off(u / 2 + np.floor(v) / 2) - 0.5)


def _crosses(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    far, near = np.maximum(_off(u), _off(v)), np.minimum(_off(u), _off(v))
    return np.minimum(0.4 - far, 0.14 - near)


def _dashes(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.minimum(0.5 - 1.5 * _off(u / 1.5 + np.floor(v) / 2), 0.2 - _off(v))


def _grid(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(_off(u), _off(v)) - 0.36


def _honeycomb(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    waves = sum(np.cos(2 * np.pi * (np.cos(turn) * u + np.sin(turn) * v)) for turn in np.pi / 3 * np.arange(3))
    return -0.2 * (waves + 0.4)


def _scales(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return 0.12 - np.abs(np.hypot(_off(u + np.floor(v) / 2), 0.6 * (v % 1)) - 0.5)


def _triangles(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    lines = [_off(0.7 * (np.cos(turn) * u + np.sin(turn) * v)) for turn in np.pi / 3 * np.arange(3)]
    return (np.maximum.reduce(lines) - 0.4) / 0.7


def _waves(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return 0.23 - _off(v + 0.35 * np.sin(np.pi * u))


def _weave(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    across = (np.floor(u / 1.5) + np.floor(v / 1.5)) % 2 == 0
    return 0.25 - _off(np.where(across, u, v) * 4 / 3)


def _zigzag(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return 0.23 - _off(v + 1.6 * _off(u / 1.6))


PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "bricks": _bricks,
    "crosses": _crosses,
    "dashes": _dashes,
    "grid": _grid,
    "honeycomb": _honeycomb,
    "scales": _scales,
    "triangles": _triangles,
    "waves": _waves,
    "weave": _weave,
    "zigzag": _zigzag,
}
