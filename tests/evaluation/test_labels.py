"""Labels of sets with a part of the model's classes, or another order."""

import random

import pytest
import torch
from torch.nn.functional import one_hot

from advbn_hf import InputError
from advbn_hf.data.imagenet import imagenet_classes
from advbn_hf.evaluation.labels import count_matches, match_labels, restrict

SYNSETS = [synset for synset, _ in imagenet_classes()]
NAMES = [name for _, name in imagenet_classes()]
SUBSET = random.Random(0).sample(range(1000), 200)  # as many as in ImageNet-A and ImageNet-R, in any order


def test_the_classes_of_imagenet():
    assert len(SYNSETS) == 1000 and sorted(set(SYNSETS)) == SYNSETS
    assert imagenet_classes()[0] == ("n01440764", "tench, Tinca tinca")
    assert imagenet_classes()[281] == ("n02123045", "tabby, tabby cat")
    assert imagenet_classes()[999] == ("n15075141", "toilet tissue, toilet paper, bathroom tissue")
    assert [index for index, name in enumerate(NAMES) if NAMES.count(name) > 1] == [134, 517]


@pytest.mark.parametrize("set_labels", [SYNSETS, NAMES], ids=["synsets", "names"])
@pytest.mark.parametrize("model_labels", [SYNSETS, NAMES], ids=["model synsets", "model names"])
def test_200_of_1000_classes(model_labels, set_labels):
    subset = [index for index in SUBSET if NAMES[index] != "crane"]  # a name that two classes have
    match = match_labels(dict(enumerate(model_labels)), [set_labels[index] for index in subset])
    assert match.indices == tuple(subset) and match.num_labels == 1000


def test_restricted_logits_give_the_sets_labels():
    """A model that knows every image, but would rather say a class that the set does not have."""
    match = match_labels(NAMES, [SYNSETS[index] for index in SUBSET])
    labels = torch.arange(200)
    logits = one_hot(torch.tensor(SUBSET), 1000).float()
    logits[:, next(index for index in range(1000) if index not in SUBSET)] = 9.0
    restricted = restrict(logits, match)
    assert restricted.shape == (200, 200) and torch.equal(restricted.argmax(-1), labels)
    assert not torch.equal(logits.argmax(-1), torch.tensor(SUBSET))


def test_the_full_set_leaves_the_logits_alone():
    match = match_labels(NAMES, SYNSETS)
    logits = torch.randn(2, 1000)
    assert match.indices == tuple(range(1000)) and restrict(logits, match) is logits


def test_the_hubs_own_spelling_of_imagenet_is_imagenet():
    """ClassLabel needs unique names, so that imagenet-1k on the Hub calls the second crane crane2."""
    hub = [f"{name}2" if index == 517 else name for index, name in enumerate(NAMES)]
    assert match_labels(NAMES, hub).indices == tuple(range(1000))
    assert match_labels(hub, SYNSETS).indices == tuple(range(1000))


@pytest.mark.parametrize(
    ("model", "wanted", "index"),
    [
        (["a cat", "a dog"], "A_Dog", 1),
        (["a cat", "a dog"], "adog", 1),
        (["Shih-Tzu", "pug"], "shih tzu", 0),
        (["tench, Tinca tinca", "pug"], "tench", 0),
        (["tench, Tinca tinca", "pug"], "Tinca_tinca", 0),
        (["tench", "pug"], "tench, Tinca tinca", 0),
        (["maillot, tank suit", "maillot"], "maillot", 1),  # the same name before one in common
        (["spiny lobster, crayfish", "crayfish, crawfish"], "crayfish", 1),  # the first name before the others
        (["C", "C ", "c"], "c", 2),
        (["n01440764", "n02123045"], "tabby cat", 1),
        (["pug", "tench, Tinca tinca"], "n01440764", 1),
        (["_", "-"], "-", 1),
    ],
)
def test_names_are_found_by_the_closest_rule(model, wanted, index):
    assert match_labels(model, [wanted]).indices == (index,)


def test_a_mapping_decides_first():
    model = ["cat", "dog", "bird"]
    match = match_labels(model, ["kitty", "cat", "tweety"], {"kitty": "cat", "cat": 1, "tweety": "bird"})
    assert match.indices == (0, 1, 2)


def test_id2label_is_read_in_the_order_of_its_numbers():
    assert match_labels({"1": "dog", "0": "cat"}, ["cat", "dog"]).indices == (0, 1)


@pytest.mark.parametrize(
    ("model", "labels", "message"),
    [
        (
            ["cat", "dog"],
            ["cat", "fish", "bird"],
            "2 .*3 .*2 .*'fish', 'bird'",
        ),
        (["crane", "crane"], ["crane"], r"'crane' \('crane', 'crane'\)"),
        (["boa, viper", "adder, viper"], ["viper"], r"'viper' \('boa, viper', 'adder, viper'\)"),
        (["tabby, cat"], ["tabby", "cat"], r"'tabby', 'cat' \('tabby, cat'\)"),
    ],
)
def test_what_does_not_fit_one_class_is_named(model, labels, message):
    with pytest.raises(InputError, match=message) as caught:
        match_labels(model, labels)
    assert "\n" not in str(caught.value) and "label mapping" in str(caught.value)


def test_every_class_without_a_match_is_named():
    strange = [f"strange {number}" for number in range(50)]
    with pytest.raises(InputError) as caught:
        match_labels(NAMES, strange)
    assert all(repr(label) in str(caught.value) for label in strange)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"fish": "cat"}, "'fish'"),
        ({"kitty": "lion"}, "'kitty' -> 'lion'"),
        ({"kitty": 2}, "'kitty' -> 2 .*0 to 1"),
        ({"kitty": -1}, "'kitty' -> -1"),
    ],
)
def test_a_wrong_mapping_is_named(mapping, message):
    with pytest.raises(InputError, match=message):
        match_labels(["cat", "dog"], ["kitty"], mapping)


def test_overlap_is_counted_without_stopping():
    assert count_matches(["cat", "dog", "crane", "crane"], ["dog", "fish", "crane"]) == 1
    assert count_matches(["cat"], ["kitty"], {"kitty": "cat"}) == 1


def test_logits_of_another_model_are_refused():
    with pytest.raises(ValueError, match=r"3 classes.*2"):
        restrict(torch.zeros(1, 3), match_labels(["cat", "dog"], ["dog"]))
