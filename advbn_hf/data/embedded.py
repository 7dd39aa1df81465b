"""The embedded benchmark: real handwriting in one training style and five unseen ones, made on the spot.

The handwriting is scikit-learn's `load_digits`: 1,797 scans of 8x8 from "Optical Recognition of Handwritten Digits" of
the UCI repository. No scan is in two splits.
"""

import zlib
from io import BytesIO

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PILImage
from sklearn.datasets import load_digits
from tqdm.auto import tqdm

from ..errors import InputError
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
# Split -> its scans (a range of the fixed permutation) and its usual number of pictures per style.
_SPLITS = {"train": (slice(0, 1000), 4000), "validation": (slice(1000, 1200), 1000), "test": (slice(1200, None), 2000)}
_BATCH = 360  # pictures drawn at a time: a multiple of every number of variants, so that each batch is balanced

FEATURES = Features(
    {
        "image": Image(),
        "label": ClassLabel(names=[str(digit) for digit in range(10)]),
        "kind": Value("string"),
        "severity": Value("int64"),
    }
)


def scan_indices(split: str) -> np.ndarray:
    """The scans of `sklearn.datasets.load_digits` that a split draws, in its order.

    Args:
        split: "train" (1000 scans), "validation" (200) or "test" (597).

    Returns:
        Row numbers of `load_digits().images`; no two splits share one.

    Raises:
        InputError: There is no such split.
    """
    _check_name("split", split, _SPLITS)
    return np.random.RandomState(0).permutation(1797)[_SPLITS[split][0]]  # RandomState: the same in every NumPy


def load_embedded(style: str = "clean", split: str = "train", num_images: int | None = None, seed: int = 0) -> Dataset:
    """Makes one set of the embedded benchmark; nothing is downloaded.

    The same arguments give the same bytes in any process, and fewer images are the first of more. Picture i of a split
    shows the same scan in the same pose in every style.

    Args:
        style: One of `STYLES`. All but "clean" are unseen: they have no training split.
        split: "train", "validation" (drawn from scans kept out of training; choose settings on it) or "test".
        num_images: How many pictures; by default 4000, 1000 and 2000 for the three splits.
        seed: Seed of poses, colours, noise and all else that is drawn at random, but not of the choice of scans.

    Returns:
        A dataset with `image` (48x48 RGB), `label` ("0" to "9"), `kind` (which filter, corruption or texture; else "")
        and `severity` (1, 3 or 5 for corruptions; else 0). Kinds and severities come in equal numbers.

    Raises:
        InputError: There is no such style or split, or a number is out of range.
    """
    _check_name("style", style, STYLES)
    _check_name("split", split, _SPLITS)
    if split == "train" and style != "clean":
        raise InputError(f"style: {style!r} has no split 'train'; choose 'validation' or 'test', or style 'clean'")
    if num_images is not None and num_images < 1:
        raise InputError(f"num_images: must be at least 1, not {num_images}")
    if seed < 0:
        raise InputError(f"seed: must be at least 0, not {seed}")
    total = num_images or _SPLITS[split][1]
    digits = load_digits()
    rows = np.resize(scan_indices(split), total + _BATCH)  # goes round the scans as often as needed
    columns = {"image": [], "label": digits.target[rows[:total]].tolist(), "kind": [], "severity": []}
    starts = range(0, total, _BATCH)
    for start in tqdm(starts, desc=f"embedded {style} {split}", unit="batch", delay=3, leave=False):
        # The last batch too is drawn whole, so that its pictures do not depend on num_images.
        scans = digits.images[rows[start : start + _BATCH]] / 16
        pictures, variants = _draw(style, scans, (split, start, seed))
        for picture, variant in zip(pictures[: total - start], variants, strict=False):
            kind, severity = _VARIANTS[style][variant]
            columns["image"].append({"bytes": _png(picture), "path": None})
            columns["kind"].append(kind)
            columns["severity"].append(severity)
    return Dataset.from_dict(columns, features=FEATURES)


def _draw(style: str, scans: np.ndarray, key: tuple[str, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draws one batch: pictures, uint8 (N, 48, 48, 3), and for each the index of its (kind, severity)."""
    scene, own = _generator("scene", *key), _generator(style, *key)
    # Every variant once, in random order, then all again: any first part of the set is balanced.
    rounds = np.tile(np.arange(len(_VARIANTS[style])), (len(scans) // len(_VARIANTS[style]), 1))
    variants = own.permuted(rounds, axis=1).ravel()
    source = draw_masks(scans, scene)
    if style not in ("stylized", "sketch"):
        source = draw_clean(source, scene)
    pictures = np.empty((len(scans), SIZE, SIZE, 3), dtype=np.uint8)
    for index, (kind, severity) in enumerate(_VARIANTS[style]):
        chosen = variants == index
        pictures[chosen] = _restyle(style, source[chosen], kind, severity, own)
    return pictures, variants


def _restyle(style: str, source: np.ndarray, kind: str, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Pictures in `style` from masks ("stylized", "sketch") or clean pictures (all others)."""
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


def _png(picture: np.ndarray) -> bytes:
    buffer = BytesIO()
    PILImage.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _check_name(field: str, name: str, known: tuple[str, ...] | dict[str, object]) -> None:
    if name not in known:
        raise InputError(f"{field}: there is no {name!r}; choose one of {', '.join(known)}")
