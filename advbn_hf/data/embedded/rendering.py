"""Sets of images of any glyphs in the styles of the embedded benchmark: one to train on and five unseen ones."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PILImage
from tqdm.auto import tqdm

from ...errors import InputError, check_at_least, check_choice
from .corruptions import CORRUPTIONS, SEVERITIES, corrupt
from .filters import FILTERS, apply_filter
from .styles import SIZE, TEXTURES, draw_clean, draw_masks, draw_sketch, draw_stylized

# Style -> its (kind, severity) pairs, which every set holds in equal numbers.
_VARIANTS = {
    "clean": [("", 0)],
    "filters": [(name, 0) for name in FILTERS],
    "corruptions": [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES],
    "stylized": [(name, 0) for name in TEXTURES],
    "sketch": [("", 0)],
    "inverted": [("", 0)],
}
STYLES = tuple(_VARIANTS)
# Inversion is left out of the mean: it is a shift of another kind than style, light and quality.
MEAN_OVER = ("filters", "corruptions", "stylized", "sketch")
SPLITS = {"train": 4000, "validation": 1000, "test": 2000}  # and the usual number of images per style
_BATCH = 360  # images drawn at a time: a multiple of every number of variants, so that each batch is balanced


@dataclass(frozen=True)
class Glyphs:
    """What the images of a split show, in the order in which they show it.

    Args:
        ink: float (G, S, S) in [0, 1], 1 where the glyph is.
        labels: (G,) int, 0..K-1.
        names: names of the K classes.
    """

    ink: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]


def render(
    source: str,
    glyphs_of: Callable[[str], Glyphs],
    style: str,
    split: str,
    num_images: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Makes one set of images; nothing is downloaded.

    The same arguments give the same bytes in any process, and fewer images are the first of more. Image i of a split
    shows the same glyph in the same pose in every style.

    Args:
        source: name of the benchmark, for the progress bar.
        glyphs_of: returns the glyphs of a split; no two splits may share one.
        style: one of `STYLES`. All but "clean" are unseen: they have no training split.
        split: "train", "validation" (choose settings on it) or "test".
        num_images: how many images; by default those of `SPLITS`.
        seed: seed of poses, colours, noise and all else that is drawn at random, but not of the glyphs.

    Returns:
        A dataset with `image` (48x48 RGB), `label`, `kind` (which filter, corruption or texture; else "") and
        `severity` (1, 3 or 5 for corruptions; else 0). Kinds and severities come in equal numbers.

    Raises:
        InputError: there is no such style or split, or a number is out of range.
    """
    check_choice("style", style, STYLES)
    check_choice("split", split, SPLITS)
    if split == "train" and style != "clean":
        raise InputError(f"style: {style!r} has no split 'train'; choose 'validation' or 'test', or style 'clean'")
    check_at_least("num_images", num_images, 1)
    check_at_least("seed", seed, 0)
    total = num_images or SPLITS[split]
    glyphs = glyphs_of(split)
    rows = np.resize(np.arange(len(glyphs.ink)), total + _BATCH)  # repeats the glyphs as often as needed
    columns = {"image": [], "label": glyphs.labels[rows[:total]].tolist(), "kind": [], "severity": []}
    starts = range(0, total, _BATCH)
    for start in tqdm(starts, desc=f"{source} {style} {split}", unit="batch", delay=3, leave=False):
        # The last batch too is drawn completely, so that its images do not depend on num_images.
        images, variants = _draw(style, glyphs.ink[rows[start : start + _BATCH]], (split, start, seed))
        for image, variant in zip(images[: total - start], variants, strict=False):
            kind, severity = _VARIANTS[style][variant]
            columns["image"].append({"bytes": _png(image), "path": None})
            columns["kind"].append(kind)
            columns["severity"].append(severity)
    features = Features(
        {
            "image": Image(),
            "label": ClassLabel(names=list(glyphs.names)),
            "kind": Value("string"),
            "severity": Value("int64"),
        }
    )
    return Dataset.from_dict(columns, features=features)


def _draw(style: str, ink: np.ndarray, key: tuple[str, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draws one batch: images, uint8 (N, 48, 48, 3), and for each the index of its (kind, severity)."""
    scene, own = _generator("scene", *key), _generator(style, *key)
    # Every variant once, in random order, then all again: any first part of the set is balanced.
    rounds = np.tile(np.arange(len(_VARIANTS[style])), (len(ink) // len(_VARIANTS[style]), 1))
    variants = own.permuted(rounds, axis=1).ravel()
    source = draw_masks(ink, scene)
    if style not in ("stylized", "sketch"):
        source = draw_clean(source, scene)
    images = np.empty((len(ink), SIZE, SIZE, 3), dtype=np.uint8)
    for index, (kind, severity) in enumerate(_VARIANTS[style]):
        chosen = variants == index
        images[chosen] = _restyle(style, source[chosen], kind, severity, own)
    return images, variants


def _restyle(style: str, source: np.ndarray, kind: str, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Images in `style` from masks ("stylized", "sketch") or clean images (all others)."""
    match style:
        case "filters":
            return apply_filter(source, kind)
        case "corruptions":
            return corrupt(source, kind, severity, rng)
        case "stylized":
            return draw_stylized(source, kind, rng)
        case "sketch":
            return draw_sketch(source, rng)
        case "inverted":
            return 255 - source
        case _:
            return source


def _generator(stream: str, split: str, start: int, seed: int) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(f"{stream}/{split}/{start}".encode()), seed])


def _png(image: np.ndarray) -> bytes:
    buffer = BytesIO()
    PILImage.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
