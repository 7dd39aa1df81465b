"""Characters and patterns: what they show, that splits are kept apart, and that they come in the usual styles."""

import numpy as np
import pytest
from comparison.data.characters import FACES, load_characters
from comparison.data.patterns import PATTERNS, load_patterns

from advbn_hf.data.embedded.rendering import STYLES
from advbn_hf.errors import InputError

LOADERS = {"characters": load_characters, "patterns": load_patterns}


def grey(dataset):
    return np.stack([np.asarray(image.convert("L"), dtype=float) for image in dataset["image"]])


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
def test_styles_splits_and_seeds(load):
    clean = load("clean", "test", 40)
    assert {(image.size, image.mode) for image in clean["image"]} == {((48, 48), "RGB")}
    for style in STYLES:
        assert load(style, "test", 40)["label"][:] == clean["label"][:]
    assert (grey(load("clean", "test", 20)) == grey(clean)[:20]).all()
    assert (grey(load("clean", "test", 40, seed=1)) != grey(clean)).any()
    with pytest.raises(InputError, match=r"style: 'sketch' .*'train'"):
        load("sketch", "train")
    with pytest.raises(InputError, match=r"split: .*'dev'"):
        load("clean", "dev")


def test_no_face_is_in_two_splits():
    faces = [face for split in FACES.values() for face in split]
    assert len(set(faces)) == len(faces) == 22


def test_letters_are_those_of_their_labels():
    # The nearest training image, pixel by pixel, is of the same letter far more often than one in 26.
    train, test = load_characters("clean", "train", 1500), load_characters("clean", "test", 150)
    one, other = (grey(part).reshape(len(part), -1) for part in (test, train))
    one, other = ((rows - rows.mean(1, keepdims=True)) / rows.std(1, keepdims=True) for rows in (one, other))
    nearest = (one @ other.T).argmax(axis=1)
    right = np.array(train["label"][:])[nearest] == np.array(test["label"][:])
    assert right.mean() > 0.7
    assert train.features["label"].names == list("ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def test_patterns_differ_between_splits_and_are_balanced():
    train, test = load_patterns("sketch", "validation", 200), load_patterns("sketch", "test", 200)
    assert np.bincount(train["label"][:]).tolist() == [20] * 10
    assert train.features["label"].names == list(PATTERNS)
    differences = np.abs(grey(train)[:, None, ::6, ::6] - grey(test)[None, :, ::6, ::6]).mean(axis=(2, 3))
    assert differences.min() > 5


@pytest.mark.parametrize(
    ("name", "ink", "ground"),
    [
        ("bricks", [(0.5, 0.5), (1.5, 1.5)], [(0.3, 0.0), (2.0, 0.5), (1.0, 1.5)]),
        ("crosses", [(0.5, 0.5), (0.2, 0.5), (0.5, 0.8)], [(0.2, 0.2), (0.0, 0.5)]),
        ("dashes", [(0.75, 0.5)], [(0.75, 0.0), (0.0, 0.5)]),
        ("grid", [(0.0, 0.4), (0.7, 1.0)], [(0.5, 0.5)]),
        ("honeycomb", [(0.5, 0.9)], [(0.0, 0.0)]),
        ("scales", [(0.0, 0.0), (1.0, 0.0)], [(0.5, 0.0), (0.5, 0.4)]),
        ("triangles", [(0.0, 0.3)], [(0.476, 0.825)]),
        ("waves", [(0.0, 0.5), (0.5, 0.15)], [(0.0, 0.0), (0.5, 0.65)]),
        ("weave", [(0.375, 0.1), (1.6, 0.375)], [(0.75, 0.1), (1.6, 0.75)]),
        ("zigzag", [(0.8, 0.5), (0.0, 0.7)], [(0.8, 0.0)]),
    ],
)
def test_where_a_pattern_has_ink(name, ink, ground):
    inside = lambda points: PATTERNS[name](*np.array(points).T)  # noqa: E731
    assert (inside(ink) > 0).all()
    assert (inside(ground) < 0).all()
