"""Draws images from glyphs: the style of the training set, and the two styles that share nothing with it.

Every function works on a batch of N images at once. Masks are float32 (N, 48, 48) in [0, 1], 1 where the glyph
is; images are uint8 (N, 48, 48, 3), RGB. Randomness comes only from the generator that is passed in.
"""

from functools import cache

import numpy as np
from PIL import Image
from scipy import ndimage

SIZE = 48
TEXTURES = ("stripes", "checks", "dots", "rings", "noise")

ROWS, COLUMNS = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j].astype(np.float32)  # each (48, 48), in [-1, 1]
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


def draw_masks(glyphs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Enlarges glyphs smoothly to about 38 pixels and places each with its own small rotation, scale and shift.

    Args:
        glyphs: float (N, S, S), ink in [0, 1].
        rng: rotation is uniform within 10 degrees, scale within 10 % and shift within 2.5 pixels.

    Returns:
        Masks, float32 (N, 48, 48) in [0, 1].
    """
    count, side, margin = *glyphs.shape[:2], 3  # the margin keeps the cubic filter away from the border
    padded = np.pad(glyphs.astype(np.float32), ((0, 0), (margin, margin), (margin, margin)))
    angle = np.radians(rng.uniform(-10, 10, count))
    step = side / (38 * rng.uniform(0.9, 1.1, count))  # cells of the glyph per pixel
    shift = SIZE / 2 + rng.uniform(-2.5, 2.5, (2, count))
    cosine, sine, centre = step * np.cos(angle), step * np.sin(angle), margin + side / 2
    x_offset = centre - cosine * shift[0] - sine * shift[1]
    y_offset = centre + sine * shift[0] - cosine * shift[1]
    affine = np.stack([cosine, sine, x_offset, -sine, cosine, y_offset], axis=1)
    method, cubic = Image.Transform.AFFINE, Image.Resampling.BICUBIC
    ink = np.stack(
        [
            np.asarray(Image.fromarray(glyph).transform((SIZE, SIZE), method, coefficients, cubic))
            for glyph, coefficients in zip(padded, affine.tolist(), strict=True)
        ]
    )
    ramp = np.clip((ink - 0.2) / 0.5, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)  # smoothstep: strokes of even ink with soft edges


def draw_clean(masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws the training style: light warm ink on a dark cool ground, uneven light, a noisy sensor.

    Args:
        masks: float (N, 48, 48) in [0, 1].
        rng: jitters the colours; draws texture, direction of the light and noise (standard deviation 0.02).

    Returns:
        Images, uint8 (N, 48, 48, 3).
    """
    count = len(masks)
    ink = _jittered((0.92, 0.76, 0.50), 0.05, count, rng)
    ground = _jittered((0.12, 0.19, 0.31), 0.035, count, rng)
    texture = 0.05 * smooth_noise(count, 6, rng)
    angle, strength = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.05, 0.25, count)
    slope = (strength * np.stack([np.cos(angle), np.sin(angle)])).astype(np.float32)[:, :, None, None]
    light = 1 + texture + slope[0] * COLUMNS + slope[1] * ROWS
    images = 0.02 * rng.standard_normal((*masks.shape, 3), dtype=np.float32)
    images += _blend(masks, ink, ground) * light[..., None]
    return to_uint8(images)


def draw_stylized(masks: np.ndarray, texture: str, rng: np.random.Generator) -> np.ndarray:
    """Paints glyph and ground each with the texture in two saturated colours, one light and the other dark.

    Args:
        masks: float (N, 48, 48) in [0, 1].
        texture: one of `TEXTURES`.
        rng: picks hues, which of the two is light, and scale, direction and phase of the texture.

    Returns:
        Images, uint8 (N, 48, 48, 3).
    """
    count = len(masks)
    glyph_is_light = rng.random(count) < 0.5
    layers = []
    for light in (glyph_is_light, ~glyph_is_light):
        # The lightness of light and dark never meet, so that a person can read the glyph whatever the hues.
        first = np.where(light, rng.uniform(0.75, 0.9, count), rng.uniform(0.08, 0.18, count))
        second = np.where(light, rng.uniform(0.58, 0.7, count), rng.uniform(0.22, 0.32, count))
        pattern = _pattern(texture, count, rng)
        layers.append(_blend(pattern, _hue(first, rng), _hue(second, rng)))
    return to_uint8(_blend(masks, *layers))


def draw_sketch(masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws the outline of the glyph in black on white.

    Args:
        masks: float (N, 48, 48) in [0, 1].
        rng: picks the width of the line, 1.6 to 2.8 pixels.

    Returns:
        Images, uint8 (N, 48, 48, 3).
    """
    rise_y, rise_x = np.gradient(masks, axis=(1, 2))
    # To first order a pixel is |mask - 0.5| / |gradient| away from the contour at 0.5.
    distance = np.abs(masks - 0.5) / (np.hypot(rise_x, rise_y) + 1e-3)
    half_width = rng.uniform(0.8, 1.4, (len(masks), 1, 1)).astype(np.float32)
    paper = np.clip(distance - half_width + 0.5, 0, 1)
    return np.repeat(to_uint8(paper)[..., None], 3, axis=-1)


def smooth_noise(count: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise on a grid, interpolated by cubic splines.

    Args:
        count: number of images N.
        cells: grid points along each side.
        rng: draws the values at the grid points, of standard deviation 1.

    Returns:
        Float32 (N, 48, 48).
    """
    grid = rng.standard_normal((count, cells, cells), dtype=np.float32)
    return _interpolation(cells) @ grid @ _interpolation(cells).T


def luma(images: np.ndarray) -> np.ndarray:
    """Lightness (ITU-R BT.601) of images (..., 3), as (..., 1) in the same range."""
    return (images @ _LUMA)[..., None]


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Rounds values in [0, 1] to uint8, after clipping them to that range."""
    return (np.clip(images, 0, 1) * 255 + 0.5).astype(np.uint8)


def to_float(images: np.ndarray) -> np.ndarray:
    """Uint8 images as float32 in [0, 1]."""
    return images.astype(np.float32) / 255


@cache
def _interpolation(cells: int) -> np.ndarray:
    """The (48, cells) matrix that interpolates along one side."""
    return ndimage.zoom(np.eye(cells, dtype=np.float32), (SIZE / cells, 1), order=3)


def _jittered(colour: tuple[float, float, float], width: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` colours (N, 1, 1, 3) within `width` of `colour`."""
    jitter = rng.uniform(-width, width, (count, 1, 1, 3))
    return (np.array(colour) + jitter).astype(np.float32)


def _blend(masks: np.ndarray, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """`top` where the mask is 1, `bottom` where it is 0; both broadcast to (N, 48, 48, 3)."""
    return bottom + masks[..., None] * (top - bottom)


def _hue(lightness: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colours (N, 1, 1, 3) of random hue, as saturated as their lightness (N,) allows."""
    hue = rng.uniform(0, 6, (len(lightness), 1))
    pure = np.clip(np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1).astype(np.float32)
    own, wanted = luma(pure), lightness[:, None].astype(np.float32)
    darker, lighter = pure * (wanted / own), 1 - (1 - pure) * (1 - wanted) / np.maximum(1 - own, 1e-3)
    return np.where(wanted < own, darker, lighter)[:, None, None, :]


def _pattern(texture: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """The texture, float32 (N, 48, 48) in [0, 1], with soft edges."""
    angle, period, phase_x, phase_y = rng.uniform((0, 5, 0, 0), (np.pi, 11, 2 * np.pi, 2 * np.pi), (count, 4)).T
    turns = (np.pi * SIZE / period * np.stack([np.cos(angle), np.sin(angle)])).astype(np.float32)[:, :, None, None]
    phase_x, phase_y = np.stack([phase_x, phase_y]).astype(np.float32)[:, :, None, None]
    along = turns[0] * COLUMNS + turns[1] * ROWS + phase_x
    across = turns[0] * ROWS - turns[1] * COLUMNS + phase_y
    match texture:
        case "stripes":
            wave = np.sin(along)
        case "checks":
            wave = 2 * np.sin(along) * np.sin(across)
        case "dots":
            wave = np.cos(along) + np.cos(across) - 0.5
        case "rings":
            wave = np.sin(np.hypot(along, across))
        case "noise":
            wave = smooth_noise(count, 16, rng)
    return np.clip(0.5 + 1.5 * wave, 0, 1)
