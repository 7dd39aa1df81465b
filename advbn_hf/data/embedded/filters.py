"""Twelve photo filters, like those of image-sharing apps: saturation, then tone curves, then a vignette."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.interpolate import PchipInterpolator

from .styles import COLUMNS, ROWS, luma, to_float, to_uint8

Curve = tuple[int, int, int, int, int]

_CORNERS = ((ROWS**2 + COLUMNS**2) / 2)[..., None]  # 0 in the centre, 1 in the corners
_PLAIN: Curve = (0, 25, 50, 75, 100)
_STEEP: Curve = (0, 12, 50, 88, 100)


@dataclass(frozen=True)
class Filter:
    """One filter.

    Args:
        saturation: 0 is grey, 1 leaves the colours as they are.
        red, green, blue: what the tone curve makes of the inputs 0, 25, 50, 75 and 100 %, in %.
        vignette: share of the light lost in the corners; where negative, share of the way to white there.
    """

    saturation: float
    red: Curve
    green: Curve
    blue: Curve
    vignette: float = 0.0


FILTERS = {
    "mono": Filter(0.0, _PLAIN, _PLAIN, _PLAIN),
    "noir": Filter(0.0, _STEEP, _STEEP, _STEEP, vignette=0.6),
    "sepia": Filter(0.0, (10, 40, 68, 88, 100), (5, 29, 54, 77, 94), (2, 18, 38, 60, 80), vignette=0.3),
    "faded": Filter(0.6, (28, 44, 60, 73, 84), (25, 41, 57, 71, 82), (26, 42, 56, 68, 78)),
    "vivid": Filter(1.9, _STEEP, _STEEP, _STEEP),
    "lomo": Filter(1.4, _STEEP, _STEEP, (10, 25, 50, 72, 88), vignette=0.8),
    "cross_process": Filter(1.2, _STEEP, (0, 20, 58, 88, 100), (28, 40, 50, 60, 70), vignette=0.2),
    "golden": Filter(1.1, (15, 48, 75, 92, 100), (8, 32, 56, 78, 92), (0, 10, 24, 42, 60)),
    "arctic": Filter(0.7, (0, 14, 34, 56, 76), (8, 31, 54, 77, 95), (25, 50, 72, 90, 100)),
    "rose": Filter(0.8, (34, 54, 74, 90, 100), (8, 24, 44, 66, 88), (24, 42, 60, 77, 92)),
    "emerald": Filter(1.0, (0, 13, 32, 56, 80), (20, 44, 64, 82, 100), (12, 28, 44, 60, 76), vignette=0.3),
    "high_key": Filter(0.9, (20, 58, 82, 95, 100), (20, 56, 80, 94, 100), (20, 54, 78, 92, 100), vignette=-0.4),
}


def apply_filter(images: np.ndarray, name: str) -> np.ndarray:
    """Applies one filter.

    Args:
        images: uint8 (N, 48, 48, 3).
        name: a key of `FILTERS`.

    Returns:
        Uint8 (N, 48, 48, 3).
    """
    saturation, vignette = FILTERS[name].saturation, FILTERS[name].vignette
    colours = to_float(images)
    grey = luma(colours)
    levels = to_uint8(grey + saturation * (colours - grey))
    toned = _curves(name)[levels, np.arange(3)]
    corner = vignette * _CORNERS
    return to_uint8(toned * (1 - corner) if vignette >= 0 else toned - corner * (1 - toned))


@cache
def _curves(name: str) -> np.ndarray:
    """The filter's tone curves as a float32 (256, 3) table."""
    chosen = FILTERS[name]
    knots = np.stack([chosen.red, chosen.green, chosen.blue], axis=1)
    return PchipInterpolator(np.linspace(0, 1, 5), knots / 100)(np.linspace(0, 1, 256)).astype(np.float32)
