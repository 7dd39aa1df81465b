"""Twelve corruptions at three severities, after ImageNet-C (Hendrycks and Dietterich, 2019), adapted to 48 pixels.

They follow its kinds and its order of strength, but they are not its files: numbers from here compare only among
themselves.
"""

from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image
from scipy import fft, ndimage

from .styles import SIZE, smooth_noise, to_float, to_uint8

SEVERITIES = (1, 3, 5)


def corrupt(images: np.ndarray, kind: str, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Applies one corruption.

    Args:
        images: uint8 (N, 48, 48, 3).
        kind: a key of `CORRUPTIONS`.
        severity: one of `SEVERITIES`.
        rng: draws noise, directions and fog.

    Returns:
        Uint8 (N, 48, 48, 3).
    """
    function, strengths = CORRUPTIONS[kind]
    return to_uint8(function(to_float(images), strengths[SEVERITIES.index(severity)], rng))


# Each takes float32 images (N, 48, 48, 3) in [0, 1], the strength and a generator; the result may leave [0, 1].


def _gaussian_noise(images: np.ndarray, std: float, rng: np.random.Generator) -> np.ndarray:
    return images + std * rng.standard_normal(images.shape, dtype=np.float32)


def _shot_noise(images: np.ndarray, photons: float, rng: np.random.Generator) -> np.ndarray:
    return rng.poisson(images * photons) / photons


def _impulse_noise(images: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    draw = rng.random(images.shape, dtype=np.float32)
    return np.where(draw < share, draw < share / 2, images)


def _gaussian_blur(images: np.ndarray, pixels: float, rng: np.random.Generator) -> np.ndarray:
    return ndimage.gaussian_filter(images, (0, pixels, pixels, 0), mode="nearest")


def _motion_blur(images: np.ndarray, length: float, rng: np.random.Generator) -> np.ndarray:
    """Smears each image along a line of its own direction, whose Fourier transform is a sinc."""
    margin = 16  # more than half of the longest line, so that opposite borders do not mix
    padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="edge")
    angle = rng.uniform(0, np.pi, (len(images), 1, 1, 1))
    rows = fft.fftfreq(padded.shape[1])[:, None, None]
    columns = fft.rfftfreq(padded.shape[2])[None, :, None]
    response = np.sinc(length * (np.sin(angle) * rows + np.cos(angle) * columns)).astype(np.float32)
    smeared = fft.irfft2(fft.rfft2(padded, axes=(1, 2)) * response, s=padded.shape[1:3], axes=(1, 2))
    return smeared[:, margin:-margin, margin:-margin]


def _zoom_blur(images: np.ndarray, furthest: float, rng: np.random.Generator) -> np.ndarray:
    margins = [SIZE / 2 * (1 - 1 / zoom) for zoom in np.linspace(1, furthest, 8)]
    boxes = [(margin, margin, SIZE - margin, SIZE - margin) for margin in margins]
    zoomed = [_each(images, lambda p, box=box: p.resize(p.size, Image.Resampling.BILINEAR, box)) for box in boxes]
    return np.mean(zoomed, axis=0)


def _contrast(images: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    mean = images.mean(axis=(1, 2), keepdims=True)
    return mean + share * (images - mean)


def _brightness(images: np.ndarray, gain: float, rng: np.random.Generator) -> np.ndarray:
    """Adds to the value of HSV; hue and saturation stay."""
    value = np.maximum(images.max(axis=-1, keepdims=True), 1 / 255)
    return images * (np.minimum(value + gain, 1) / value)


def _saturate(images: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """Multiplies the saturation of HSV, up to 1; hue and value stay."""
    value = images.max(axis=-1, keepdims=True)
    room = value / np.maximum(value - images.min(axis=-1, keepdims=True), 1 / 255)
    return value - np.minimum(factor, room) * (value - images)


def _fog(images: np.ndarray, density: float, rng: np.random.Generator) -> np.ndarray:
    """Adds clouds (octaves of noise, each half as strong as the one before), then scales back to the old maximum."""
    clouds = sum(smooth_noise(len(images), cells, rng) * (3 / cells) for cells in (3, 6, 12, 24))
    low, high = clouds.min(axis=(1, 2), keepdims=True), clouds.max(axis=(1, 2), keepdims=True)
    peak = images.max(axis=(1, 2, 3), keepdims=True)
    return (images + density * ((clouds - low) / (high - low))[..., None]) * peak / (peak + density)


def _pixelate(images: np.ndarray, blocks: int, rng: np.random.Generator) -> np.ndarray:
    small, box, nearest = (blocks, blocks), Image.Resampling.BOX, Image.Resampling.NEAREST
    return _each(images, lambda image: image.resize(small, box).resize(image.size, nearest))


def _jpeg(images: np.ndarray, quality: int, rng: np.random.Generator) -> np.ndarray:
    def compress(image: Image.Image) -> Image.Image:
        buffer = BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return _each(images, compress)


def _each(images: np.ndarray, edit: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """Edits every image with PIL."""
    return to_float(np.stack([np.asarray(edit(Image.fromarray(image))) for image in to_uint8(images)]))


# Kind -> its function, and its strength at severity 1, 3 and 5. Noise, brightness, saturation and JPEG are as strong
# as in ImageNet-C; what is measured in pixels, contrast and fog are weaker, or they would hide a digit of 38 pixels.
CORRUPTIONS = {
    "gaussian_noise": (_gaussian_noise, (0.08, 0.18, 0.38)),
    "shot_noise": (_shot_noise, (60, 12, 3)),
    "impulse_noise": (_impulse_noise, (0.03, 0.09, 0.27)),
    "gaussian_blur": (_gaussian_blur, (1.0, 1.8, 2.8)),
    "motion_blur": (_motion_blur, (4, 8, 13)),
    "zoom_blur": (_zoom_blur, (1.1, 1.25, 1.4)),
    "contrast": (_contrast, (0.5, 0.25, 0.1)),
    "brightness": (_brightness, (0.1, 0.3, 0.5)),
    "saturate": (_saturate, (0.3, 2, 20)),
    "fog": (_fog, (0.5, 1.0, 2.0)),
    "pixelate": (_pixelate, (24, 16, 10)),
    "jpeg": (_jpeg, (25, 15, 7)),
}
