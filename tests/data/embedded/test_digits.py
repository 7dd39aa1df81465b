"""The embedded benchmark: what its sets hold, that they are repeatable, and that splits and styles are kept apart."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Image
from sklearn.datasets import load_digits

from advbn_hf.data.embedded.digits import STYLES, load_embedded, scan_indices
from advbn_hf.errors import InputError

VARIANTS = {"clean": 1, "filters": 12, "corruptions": 36, "stylized": 5, "sketch": 1, "inverted": 1}


@cache
def validation(style: str) -> Dataset:
    return load_embedded(style, "validation", 432)


@cache
def pixels(style: str) -> np.ndarray:
    return np.stack([np.asarray(image) for image in validation(style)["image"]]).astype(np.float32)


def digest(dataset: Dataset) -> str:
    rows = dataset.cast_column("image", Image(decode=False))
    parts = [repr((row["image"]["bytes"], row["label"], row["kind"], row["severity"])) for row in rows]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def test_splits_share_no_scan_and_use_them_all():
    parts = [set(scan_indices(split).tolist()) for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [1000, 200, 597]
    assert set.union(*parts) == set(range(1797))


@pytest.mark.parametrize(("split", "size"), [("train", 4000), ("validation", 1000), ("test", 2000)])
def test_sizes_and_labels(split, size):
    dataset = load_embedded("clean", split)
    assert len(dataset) == size
    assert dataset.features["label"].names == [str(digit) for digit in range(10)]
    labels = load_digits().target[scan_indices(split)]
    assert dataset["label"][:] == [labels[i % len(labels)] for i in range(size)]
    assert min(Counter(dataset["label"][:]).values()) > 0.07 * size


@pytest.mark.parametrize("style", STYLES)
def test_images_and_balance(style):
    dataset = validation(style)
    assert set(dataset.column_names) == {"image", "label", "kind", "severity"}
    assert {(image.size, image.mode, image.format) for image in dataset["image"]} == {((48, 48), "RGB", "PNG")}
    for part in (dataset, dataset.select(range(100))):
        counts = Counter(zip(part["kind"][:], part["severity"][:], strict=True))
        assert len(counts) == VARIANTS[style]
        assert max(counts.values()) - min(counts.values()) <= 1


def test_corruptions_are_twelve_kinds_at_three_severities():
    pairs = set(zip(validation("corruptions")["kind"][:], validation("corruptions")["severity"][:], strict=True))
    assert pairs == {(kind, severity) for kind, _ in pairs for severity in (1, 3, 5)}


def test_a_higher_severity_changes_an_image_more():
    dataset = validation("corruptions")
    change = np.abs(pixels("corruptions") - pixels("clean")).mean(axis=(1, 2, 3))
    kinds, severities = np.array(dataset["kind"][:]), np.array(dataset["severity"][:])
    for kind in set(kinds) - {"saturate"}:  # at severity 1 it takes colour away, later it adds some
        low, middle, high = (change[(kinds == kind) & (severities == severity)].mean() for severity in (1, 3, 5))
        assert 0.5 < low < middle < high, kind


def test_the_images_show_their_scans():
    # The scan enlarged block by block is an independent image of it; the pose moves it by a few pixels at most.
    scans = load_digits().images[scan_indices("validation")]
    blocks = np.kron(scans, np.ones((1, 5, 5)))
    own, other = [], []
    for i, image in enumerate(pixels("clean").mean(axis=-1)[:200, 4:44, 4:44]):
        own.append(np.corrcoef(image.ravel(), blocks[i].ravel())[0, 1])
        other.append(np.corrcoef(image.ravel(), blocks[(i + 1) % 200].ravel())[0, 1])
    assert np.mean(own) > 0.7 > 0.5 > np.mean(other)


def test_clean_is_warm_light_ink_on_a_cool_dark_ground():
    clean = pixels("clean")
    ground = clean[:, :3].mean(axis=(1, 2))
    ink = np.quantile(clean, 0.95, axis=(1, 2))
    assert (ink.mean(axis=-1) - ground.mean(axis=-1)).min() > 40
    assert (ground[:, 2] > ground[:, 0]).all() and (ink[:, 0] > ink[:, 2]).all()


def test_inverted_and_sketch_are_what_they_say():
    assert (pixels("inverted") == 255 - pixels("clean")).all()
    sketch = pixels("sketch")
    assert (sketch == sketch[..., :1]).all()  # no colour
    assert (np.median(sketch, axis=(1, 2, 3)) == 255).all()  # mostly white paper
    assert (sketch.min(axis=(1, 2, 3)) < 80).all()  # with a dark line


def test_stylized_is_readable_in_both_polarities_and_strong_colours():
    stylized, clean = pixels("stylized"), pixels("clean")
    # The same digits in the same poses: how far lightness follows the clean image, negative where the digit is dark.
    pairs = zip(stylized.mean(axis=-1), clean.mean(axis=-1), strict=True)
    likeness = np.array([np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in pairs])
    assert np.quantile(np.abs(likeness), 0.05) > 0.5
    assert 0.45 < (likeness > 0).mean() < 0.55
    assert np.ptp(stylized, axis=-1).mean() > 100  # highest minus lowest of red, green and blue


def test_styles_differ():
    for one, other in combinations(STYLES, 2):
        assert np.abs(pixels(one) - pixels(other)).mean() > 10, (one, other)


@pytest.mark.slow
def test_same_bytes_in_another_process():
    # The other process makes the sets in reverse order, and with another number of threads.
    code = (
        "from test_digits import STYLES, digest, load_embedded\n"
        "for style in reversed(STYLES):\n"
        "    print(digest(load_embedded(style, 'validation', 40, seed=3)))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "PYTHONHASHSEED": "7"}
    folder = Path(__file__).parent
    other = subprocess.check_output([sys.executable, "-c", code], text=True, env=environment, cwd=folder)
    here = [digest(load_embedded(style, "validation", 40, seed=3)) for style in STYLES]
    assert other.split() == here[::-1]


def test_seed_split_and_number_of_images():
    first = digest(validation("stylized").select(range(50)))
    assert digest(load_embedded("stylized", "validation", 50)) == first
    assert digest(load_embedded("stylized", "validation", 50, seed=1)) != first
    assert digest(load_embedded("stylized", "test", 50)) != first
    assert len(load_embedded("sketch", "validation", 1003)) == 1003  # more than by default


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"style": "cubist"}, "style: .*'cubist'.*filters"),
        ({"split": "dev"}, "split: .*'dev'.*validation"),
        ({"style": "sketch", "split": "train"}, "style: .*'sketch'.*validation"),
        ({"num_images": 0}, "num_images .*0"),
        ({"seed": -1}, "seed .*-1"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(InputError, match=message) as error:
        load_embedded(**arguments)
    assert "\n" not in str(error.value)


def test_bad_split_of_scan_indices():
    with pytest.raises(InputError, match="split"):
        scan_indices("dev")
