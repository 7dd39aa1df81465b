"""Shifts that are generated on the fly: their names, and what each does to an image or a dataset."""

import hashlib
import importlib
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from io import BytesIO
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from PIL import Image, ImageFilter, ImageOps

from ..data.imagenet import side_before_crop
from ..data.transforms import to_rgb
from ..errors import InputError, check_at_least, check_choice, first_line
from .cache import cached_images, read_image
from .imagenet_c import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES, SMALLEST_SIDE, corrupt
from .photo_filters import FILTERS, apply_filter


@dataclass(frozen=True)
class Kind:
    """What the shifts of one group have in common.

    Args:
        label: how reports call their numbers.
        severities: empty where there is only one strength.
        library: the distribution that makes them; None where this package does.
        module: the name that the library is imported by.
        extra: the extra of this package that installs the library.
    """

    label: str
    severities: tuple[int, ...] = ()
    library: str | None = None
    module: str | None = None
    extra: str | None = None


_IMAGENET_C = Kind(
    "ImageNet-C-style, generated", SEVERITIES, "imagecorruptions-imaug", "imagecorruptions", "corruptions"
)
_INSTAGRAM = Kind("Instagram-style, generated", (), "pilgram2", "pilgram2", "filters")
_PLAIN = Kind("generated")

GROUPS = {
    "corruptions": CORRUPTIONS,
    "extra_corruptions": EXTRA_CORRUPTIONS,
    "filters": FILTERS,
    "plain": ("sketch", "greyscale", "inversion"),
}
_KINDS = {"corruptions": _IMAGENET_C, "extra_corruptions": _IMAGENET_C, "filters": _INSTAGRAM, "plain": _PLAIN}
_CORRUPTIONS = CORRUPTIONS + EXTRA_CORRUPTIONS
_FORMAT = 1  # to be raised when the same arguments make other images than before
SHIFTS: dict[str, Kind] = {name: _KINDS[group] for group, names in GROUPS.items() for name in names}


def shift_names() -> list[str]:
    """The names of all shifts: 15 + 4 corruptions, then the filters, then "sketch", "greyscale" and "inversion"."""
    return list(SHIFTS)


def severities(shift: str) -> tuple[int, ...]:
    """The severities of a shift: (1, 2, 3, 4, 5) for corruptions, () for all others.

    Raises:
        InputError: there is no such shift.
    """
    return _kind(shift).severities


def shift_label(shift: str) -> str:
    """The label of numbers from a shift in reports, since its images are not the published ones.

    Returns:
        "ImageNet-C-style, generated", "Instagram-style, generated" or "generated".

    Raises:
        InputError: there is no such shift.
    """
    return _kind(shift).label


def check_shift(shift: str, severity: int | None = None) -> None:
    """Checks that a shift can be generated here.

    Args:
        shift: its name.
        severity: one of `severities(shift)`, None if that is empty.

    Raises:
        InputError: there is no such shift or severity, or its library is not installed.
    """
    kind = _kind(shift)
    if kind.severities:
        check_choice(f"severity of {shift}", severity, kind.severities)
    if not kind.severities and severity is not None:
        raise InputError(f"severity of {shift}: it has none, leave out {severity}")
    if kind.module is not None:
        try:
            importlib.import_module(kind.module)
        except ImportError as error:
            raise InputError(
                f"shift {shift!r} needs {kind.library} ({first_line(error)}): pip install advbn_hf[{kind.extra}]"
            ) from error


def shift_images(
    dataset: Dataset,
    shift: str,
    severity: int | None = None,
    *,
    seed: int = 0,
    size: int | None = None,
    num_proc: int | None = None,
) -> Dataset:
    """Replaces every image of a dataset by its shifted version.

    An image's randomness depends on the image, the shift, the severity and the seed alone: not on its row, the
    other rows or the number of processes. The images are cached under `datasets`' cache folder by the content of their
    sources; a second process that asks for the same ones waits for the first.

    Images that cannot be decoded stay as they are, for `ImageDataset` to name or leave out as in any other set.

    Args:
        dataset: a map-style set with a column "image".
        shift: one of `shift_names()`.
        severity: one of `severities(shift)`; None if it has none.
        seed: seed of all that is drawn at random, 0 or more.
        size: None: shift images as they are, stored without loss. Otherwise the protocol of ImageNet-C: shorter side
            to `size` * 256 / 224 (bilinear), the central `size` x `size` pixels, then the shift; corruptions are
            stored as JPEG of quality 85 as its authors did, other shifts without loss.
        num_proc: processes that generate; None: this one.

    Returns:
        The same rows and columns, with the features that they had.

    Raises:
        InputError: there is no such shift or severity, its library is not installed, another argument is out of
            range, there is no column "image", or an image is too small for the shift or missing on disk.
    """
    check_shift(shift, severity)
    _check_arguments(dataset, shift, seed, size, num_proc)
    library = library_of(shift)
    recipe = [_FORMAT, shift, severity, seed, size, library, library and version(library)]
    make = partial(_shift_row, shift=shift, severity=severity, seed=seed, size=size)
    desc = shift if severity is None else f"{shift} {severity}"
    images = cached_images(dataset, make, recipe, num_proc, desc).cast_column("image", dataset.features["image"])
    names = dataset.column_names
    if len(names) > 1:
        # As one table in memory: where rows were selected, concatenating would write each column to disk first.
        rest = dataset.remove_columns("image")
        rest = Dataset(rest.with_format("arrow")[:], info=rest.info)
        images = concatenate_datasets([rest, images], split=dataset.split, axis=1)
    return images.select_columns(names)


def shift_image(image: Image.Image, shift: str, severity: int | None = None, *, seed: int = 0) -> Image.Image:
    """Shifts one image. Global random state is the same afterwards.

    Args:
        image: mode RGB; at least 32 x 32 pixels for corruptions.
        shift: one of `shift_names()`, which `check_shift` has accepted.
        severity: as `check_shift` takes it.
        seed: all randomness comes from it; 0 to 2**32 - 1.

    Returns:
        An image of mode RGB and the same size.

    Raises:
        InputError: the image is too small.
    """
    if shift in FILTERS:
        return apply_filter(image, shift)
    match shift:
        case "sketch":
            return _sketch(image)
        case "greyscale":
            return ImageOps.grayscale(image).convert("RGB")
        case "inversion":
            return ImageOps.invert(image)
        case _:
            return corrupt(image, shift, severity, seed)


def library_of(shift: str) -> str | None:
    """The distribution that makes a shift, such as "pilgram2"; None where this package does.

    Raises:
        InputError: there is no such shift.
    """
    return _kind(shift).library


def _kind(shift: str) -> Kind:
    check_choice("shift", shift, SHIFTS)
    return SHIFTS[shift]


def _sketch(image: Image.Image) -> Image.Image:
    """Pencil on paper: grey divided by its own blurred surroundings ("colour dodge"), which leaves only the edges."""
    grey = ImageOps.autocontrast(ImageOps.grayscale(image))
    around = grey.filter(ImageFilter.GaussianBlur(max(1.0, min(image.size) / 80)))
    floor = 40  # or the noise of dark regions would be drawn too
    paper = (np.asarray(grey, np.float32) + floor) / (np.asarray(around, np.float32) + floor)
    # To the fourth, since a pencil line is darker than the edge that it follows.
    return Image.fromarray((255 * np.minimum(paper, 1) ** 4).astype(np.uint8)).convert("RGB")


def _check_arguments(dataset: Dataset, shift: str, seed: int, size: int | None, num_proc: int | None) -> None:
    if "image" not in dataset.column_names:
        raise InputError(
            f"dataset: has no column 'image', only {', '.join(dataset.column_names)}; load_images makes it"
        )
    if len(dataset) == 0:
        raise InputError("dataset: has no rows; choose another split")
    smallest = SMALLEST_SIDE if shift in _CORRUPTIONS else 1
    for name, value, least in (("seed", seed, 0), ("size", size, smallest), ("num_proc", num_proc, 1)):
        check_at_least(name, value, least)


def _shift_row(
    row: dict[str, Any], index: int, shift: str, severity: int | None, seed: int, size: int | None
) -> dict[str, Any]:
    name, data = read_image(row["image"], index)
    try:
        image = to_rgb(Image.open(BytesIO(data)))
        image.load()
    except MemoryError:
        raise  # the image may well be fine
    except Exception:  # damaged files raise more than a dozen types in PIL
        return {"image": {"bytes": data or None, "path": name or None}}
    if size is not None:
        image = _crop(image, size)
    try:
        shifted = shift_image(image, shift, severity, seed=_seed_of(data, f"{shift}/{severity}/{seed}"))
    except InputError as error:
        raise InputError(f"row {index} ({name}): {error}" if name else f"row {index}: {error}") from error
    buffer = BytesIO()
    if size is not None and shift in _CORRUPTIONS:
        shifted.save(buffer, "JPEG", quality=85, optimize=True)
    else:
        shifted.save(buffer, "PNG", compress_level=1)
    return {"image": {"bytes": buffer.getvalue(), "path": name or None}}


def _seed_of(data: bytes, about: str) -> int:
    """32 bits from the content of an image, so that it does not matter which set and which row it is in."""
    content = hashlib.blake2b(data, digest_size=16).digest()
    return int.from_bytes(hashlib.blake2b(content + about.encode(), digest_size=16).digest()[:4])


def _crop(image: Image.Image, size: int) -> Image.Image:
    """Shorter side to `size` * 256 / 224, then the central square; rounded like torchvision, as ImageNet-C was."""
    short = side_before_crop(size)
    scale = short / min(image.size)
    width, height = (short if side == min(image.size) else int(side * scale) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, upper = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, upper, left + size, upper + size))
