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
    with pytest.raises(InputError, match=r"generic.yaml: set 'clean': has no dataset; .* dataset_name"):
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
        ({"shift": "fogg"}, r"set 'a': shift: there is no 'fogg'; did you mean 'fog'\?"),
        ({"shift": ["fog", 3]}, "set 'a': shift: there is no 3"),
        ({"shift": "fog", "severities": [1, 6]}, "set 'a': severities: must be 1 to 5, not 6"),
        ({"shift": "fog", "severities": []}, "set 'a': severities: must be a list of numbers"),
        ({"datset": "x"}, r"set 1: unknown key 'datset'; did you mean 'dataset'\?"),
        ({"branch": "both"}, "set 'a': branch: must be clean or auxiliary, not 'both'"),
        ({"preprocessing": "crop"}, "set 'a': preprocessing: must be processor or none, not 'crop'"),
        ({"layout": "flat"}, "set 'a': layout: must be imagenet-c, not 'flat'"),
        ({"clean": "b"}, "set 'a': clean: there is no 'b'"),
        ({"size": 0}, "set 'a': size: must be a number of pixels, not 0"),
        ({"labels": ["x"]}, "set 'a': labels: must be a mapping"),
        ({"name": ""}, "set '': name: must be a text"),
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
        ({"sets": []}, "sets: must be a list of sets"),
        ([], "a suite: must be a mapping"),
        ({"sets": [{"dataset": "x"}]}, "set 1: has no name"),
        ({"sets": ["x"]}, "set 1: must be a mapping"),
        ({"sets": [{"name": "a", "dataset": "x"}] * 2}, "sets: two have the name 'a'"),
        ({"set": []}, r"a suite: unknown key 'set'; did you mean 'sets'\?"),
        ({"sets": [{"name": "a", "dataset": "x"}], "mean_over": ["b"]}, "mean_over: there is no 'b'"),
        ({"sets": [{"name": "a", "dataset": "x"}], "defaults": {"name": "b"}}, "defaults: unknown key 'name'"),
    ],
)
def test_mistakes_in_the_whole(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        load_suite(suite_file(tmp_path, content))


def test_some_sets_of_a_suite():
    suite = load_suite("embedded")
    assert [entry.name for entry in suite.only(["sketch", "clean"]).sets] == ["clean", "sketch"]
    assert suite.only(["clean"]).mean_over == ()
    with pytest.raises(InputError, match="sets: there is no 'sketches'; did you mean 'sketch'"):
        suite.only(["sketches"])


def released(folder, category=""):
    for corruption in ("fog", "shot_noise"):
        for severity in (1, 4):
            save_images(folder / category / corruption / str(severity), ["1", "n01440764"], per_class=2)
    return folder


@pytest.mark.parametrize("category", ["weather", ""])
def test_released_corruptions_nested_and_flat(tmp_path, category):
    folder = released(tmp_path / "c", category)
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
    with pytest.raises(InputError, match=f"set 'c': dataset: there is no folder {tmp_path / 'no'}"):
        load_set(SetEntry("c", str(tmp_path / "no"), layout="imagenet-c"))
    with pytest.raises(InputError, match="holds no corruptions"):
        find_corruptions(tmp_path)
    released(tmp_path / "c")
    with pytest.raises(InputError, match=r"set 'c': shift: .* has no 'frost'; it has fog, shot_noise"):
        load_set(SetEntry("c", str(tmp_path / "c"), layout="imagenet-c", shift="frost"))
    with pytest.raises(InputError, match=r"severities: .* has none of 5"):
        load_set(SetEntry("c", str(tmp_path / "c"), layout="imagenet-c", severities=(5,)))
    (tmp_path / "empty" / "n1").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no images"):
        load_corruption(tmp_path / "empty")


def test_a_sample_is_of_all_classes_and_always_the_same(tmp_path):
    save_images(tmp_path / "validation", [f"{index:02}" for index in range(10)], per_class=10)
    first, again = (load_set(SetEntry("x", str(tmp_path)), max_samples=30).base for _ in range(2))
    assert len(first) == 30
    assert len(set(first["label"])) > 5
    assert [row["image"]["path"] for row in first] == [row["image"]["path"] for row in again]
