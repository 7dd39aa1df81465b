"""Suites: what the YAML files may say, what each mistake is told, and released ImageNet-C folders."""

from pathlib import Path

import pytest
import yaml
from builders import save_images

from advbn_hf import InputError
from advbn_hf.evaluation.sets import Shift, load_set
from advbn_hf.evaluation.suites import SetEntry, load_suite
from advbn_hf.shifts.imagenet_c import CORRUPTIONS
from advbn_hf.shifts.released import find_corruptions, load_corruption


def suite_file(folder, content):
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("name", ["embedded", "imagenet"])
def test_shipped_suites(name):
    suite = load_suite(name)
    assert len(suite.sets) > 5
    by_name = {entry.name: entry for entry in suite.sets}
    if name == "imagenet":
        assert by_name["ImageNet-C"].title == "ImageNet-C (released)"
        assert by_name["ImageNet-C"].shift == CORRUPTIONS
        assert by_name["Stylized-ImageNet"].branch == "auxiliary"
    else:
        assert suite.mean_over == ("filters", "corruptions", "stylized", "sketch")


def test_generic_takes_its_data_set_from_the_command_line():
    with pytest.raises(InputError, match=r"generic.yaml: set 'clean': .*dataset_name"):
        load_suite("generic")
    suite = load_suite("generic", {"dataset": "me/birds", "split": "test"})
    assert {(entry.dataset, entry.split) for entry in suite.sets} == {("me/birds", "test")}
    assert {entry.title for entry in suite.sets} >= {"clean", "corruptions (ImageNet-C-style, generated)"}


def test_what_a_set_says_wins_over_command_line_and_defaults(tmp_path):
    sets = [{"name": "a"}, {"name": "b", "split": "own"}]
    path = suite_file(tmp_path, {"defaults": {"dataset": "x", "split": "default"}, "sets": sets})
    assert [entry.split for entry in load_suite(path).sets] == ["default", "own"]
    assert [entry.split for entry in load_suite(path, {"split": "given"}).sets] == ["given", "own"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"shift": "fogg"}, "set 'a': shift: .*'fogg'.*'fog'"),
        ({"shift": ["fog", 3]}, "set 'a': shift: .*3"),
        ({"shift": "fog", "severities": [1, 6]}, "set 'a': severities: .*6"),
        ({"shift": "fog", "severities": []}, "set 'a': severities: .*list"),
        ({"datset": "x"}, "set 1: .*'datset'.*'dataset'"),
        ({"branch": "both"}, "set 'a': branch: .*'both'"),
        ({"preprocessing": "crop"}, "set 'a': preprocessing: .*'crop'"),
        ({"layout": "flat"}, "set 'a': layout: .*'flat'"),
        ({"clean": "b"}, "set 'a': clean: .*'b'"),
        ({"size": 0}, "set 'a': size: .*0"),
        ({"labels": ["x"]}, "set 'a': labels: "),
        ({"name": ""}, "set '': name: "),
    ],
)
def test_mistakes_name_file_set_and_key(tmp_path, entry, message):
    path = suite_file(tmp_path, {"sets": [{"name": "a", "dataset": "embedded"} | entry]})
    with pytest.raises(InputError, match=message) as error:
        load_suite(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"sets": []}, "sets: .*list"),
        ([], "a suite: .*mapping"),
        ({"sets": [{"dataset": "x"}]}, "set 1: .*name"),
        ({"sets": ["x"]}, "set 1: .*mapping"),
        ({"sets": [{"name": "a", "dataset": "x"}] * 2}, "sets: .*'a'"),
        ({"set": []}, "a suite: .*'set'.*'sets'"),
        ({"sets": [{"name": "a", "dataset": "x"}], "mean_over": ["b"]}, "mean_over: .*'b'"),
        ({"sets": [{"name": "a", "dataset": "x"}], "defaults": {"name": "b"}}, "defaults: .*'name'"),
    ],
)
def test_mistakes_in_the_whole(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        load_suite(suite_file(tmp_path, content))


def test_some_sets_of_a_suite():
    suite = load_suite("embedded")
    assert [entry.name for entry in suite.only(["sketch", "clean"]).sets] == ["clean", "sketch"]
    assert suite.only(["clean"]).mean_over == ()
    with pytest.raises(InputError, match=r"sets: .*'sketches'.*'sketch'"):
        suite.only(["sketches"])


def released(folder, category=""):
    for corruption in ("fog", "shot_noise"):
        for severity in (1, 4):
            save_images(folder / category / corruption / str(severity), ["1", "n01440764"], per_class=2)
    return folder


@pytest.mark.parametrize("category", ["weather", ""])
def test_released_corruptions_nested_and_flat(tmp_path, category):
    folder = released(tmp_path / "c", category)
    for hidden in (".ipynb_checkpoints/1", "fog/4/.ipynb_checkpoints", "fog/4/1/.thumbnails"):
        (folder / category / hidden).mkdir(parents=True)
    (folder / category / "fog" / "4" / "1" / ".DS_Store").touch()
    assert {name: list(found) for name, found in find_corruptions(folder).items()} == {
        "fog": [1, 4],
        "shot_noise": [1, 4],
    }
    found = load_set(SetEntry("c", str(folder), layout="imagenet-c", shift="fog"))
    assert found.shifts == (Shift("fog", 1), Shift("fog", 4))
    rows = found.rows(Shift("fog", 4))
    assert rows.features["label"].names == ["1", "n01440764"]
    assert [Path(row["image"]["path"]).relative_to(folder / category).as_posix() for row in rows] == [
        "fog/4/1/0.png",
        "fog/4/1/1.png",
        "fog/4/n01440764/0.png",
        "fog/4/n01440764/1.png",
    ]


def test_released_corruptions_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match=f"set 'c': dataset: .*{tmp_path / 'no'}"):
        load_set(SetEntry("c", str(tmp_path / "no"), layout="imagenet-c"))
    with pytest.raises(InputError, match=r"dataset: .*corruptions"):
        find_corruptions(tmp_path)
    released(tmp_path / "c")
    with pytest.raises(InputError, match=r"set 'c': shift: .*'frost'.*fog, shot_noise"):
        load_set(SetEntry("c", str(tmp_path / "c"), layout="imagenet-c", shift="frost"))
    with pytest.raises(InputError, match=r"severities: .*5"):
        load_set(SetEntry("c", str(tmp_path / "c"), layout="imagenet-c", severities=(5,)))
    (tmp_path / "empty" / "n1").mkdir(parents=True)
    with pytest.raises(InputError, match=r"dataset: .*empty"):
        load_corruption(tmp_path / "empty")


def test_a_sample_is_of_all_classes_and_always_the_same(tmp_path):
    save_images(tmp_path / "validation", [f"{index:02}" for index in range(10)], per_class=10)
    first, again = (load_set(SetEntry("x", str(tmp_path)), max_samples=30).base for _ in range(2))
    assert len(first) == 30
    assert len(set(first["label"])) > 5
    assert [row["image"]["path"] for row in first] == [row["image"]["path"] for row in again]


def test_a_dataset_for_the_sets_that_name_none(tmp_path):
    dataset = {"dataset": "me/birds", "split": "test"}
    assert {entry.location["name"] for entry in load_suite("generic", dataset=dataset).sets} == {"me/birds"}
    named = {"defaults": {"split": "new"}, "sets": [{"name": "own", "dataset": "me/cats"}, {"name": "open"}]}
    own, open_set = load_suite(suite_file(tmp_path, named), dataset=dataset).sets
    assert (own.dataset, own.split, open_set.dataset, open_set.split) == ("me/cats", "new", "me/birds", "new")
    assert load_suite("embedded", dataset=dataset) == load_suite("embedded")  # every set names its own
