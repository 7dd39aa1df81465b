"""Image folders are read as they lie, whatever their classes are called; what would be left out is named."""

import re
from pathlib import Path

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage
from transformers.utils import logging

from advbn_hf.data.loading import class_names, inspect_images, load_images
from advbn_hf.errors import InputError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    logging.warning_once.cache_clear()


STREAMING = pytest.mark.parametrize("streaming", [False, True])
IMAGE = None  # a file's content that stands for an image of a colour of its own


def folder(files, name="data") -> str:
    """Writes files by their paths: images, or texts where `files` maps paths to them."""
    for number, path in enumerate(files):
        place = Path(name) / path
        place.parent.mkdir(parents=True, exist_ok=True)
        text = files[path] if isinstance(files, dict) else IMAGE
        if text is IMAGE:
            PILImage.new("RGB", (4, 4), (number, 0, 0)).save(place, "PNG")
        else:
            place.write_text(text)
    return name


def grid(*classes, splits=("train", "test")) -> list[str]:
    return [f"{split}/{name}/{number}.png" for split in splits for name in classes for number in (1, 2)]


def read(name, split, streaming=False) -> dict[str, str]:
    """Path of each image in the dataset's folder -> name of its class."""
    rows = load_images(name, split, streaming=streaming)
    names, root = class_names(rows), Path(name).resolve()
    return {str(Path(row["image"]["path"]).relative_to(root)): names[row["label"]] for row in rows}


def by_folder(paths) -> dict[str, str]:
    return {path: path.split("/")[-2] for path in paths}


@STREAMING
@pytest.mark.parametrize(
    "classes",
    [("apple", "train"), ("test", "train", "val"), ("apple", "high-speed-train"), ("tank", "test-tube", "[a]")],
    ids=str,
)
def test_classes_with_names_of_splits(classes, streaming):
    data = folder(grid(*classes))
    for split in ("train", "test"):
        assert read(data, split, streaming) == by_folder(grid(*classes, splits=[split]))


@STREAMING
@pytest.mark.parametrize("odd", ["train", "high-speed-train", "Test"])
def test_one_of_many_classes_without_splits(odd, streaming):
    classes = [*(f"class {number}" for number in range(30)), odd]
    data = folder([f"{name}/{number}.png" for name in classes for number in (1, 2)])
    rows = read(data, "train", streaming)
    assert len(rows) == 62 and rows == by_folder(rows) and set(rows.values()) == set(classes)
    with pytest.raises(InputError, match=r"test.*train"):
        load_images(data, "test", streaming=streaming)


@STREAMING
@pytest.mark.parametrize(
    ("split", "folder_of_it", "other"),
    [
        ("train", "Train", "Test"),
        ("validation", "val", "training"),
        ("test", "pets-test", "pets-train"),
        ("test", "a/b/test", "a/b/train"),
    ],
)
def test_names_of_splits(split, folder_of_it, other, streaming):
    data = folder(grid("cat", "train", splits=[folder_of_it, other]))
    assert read(data, split, streaming) == by_folder(grid("cat", "train", splits=[folder_of_it]))


def test_one_split_alone():
    data = folder(grid("cat", "train", splits=["test"]))
    assert read(data, "test") == by_folder(grid("cat", "train", splits=["test"]))
    with pytest.raises(InputError, match=r"train.*test"):
        load_images(data, "train")


def test_parts_of_a_split_are_joined():
    files = grid("cat", "train", splits=["train_1", "train-2", "test"])
    assert read(folder(files), "train") == by_folder(file for file in files if file.startswith("train"))


@STREAMING
def test_a_class_that_is_a_link_is_read(streaming):
    data = folder(grid("cat", "dog"))
    folder(["1.png"], "elsewhere")
    (Path(data) / "train" / "emu").symlink_to(Path("elsewhere").resolve())
    (Path(data) / "train" / "emu" / "loop").symlink_to(Path(data).resolve() / "train")
    rows = read(data, "train", streaming)
    assert rows == by_folder([*grid("cat", "dog", splits=["train"]), "train/emu/1.png"])


def test_names_of_files_name_the_splits():
    files = ["cat/train_1.png", "cat/test_2.png", "dog/train_3.png", "dog/test-4.png"]
    assert read(folder(files), "test") == by_folder([files[1], files[3]])
    assert read(folder(files[1::2], "others"), "test") == by_folder(files[1::2])


def test_a_few_names_of_files_do_not(caplog):
    files = ["cat/1.png", "cat/my test.png", "dog/3.png", "dog/4.png"]
    assert read(folder(files), "train") == by_folder(files)
    assert "'data'" in caplog.text and "1 of 4" in caplog.text


@STREAMING
def test_hidden_files_are_no_images(streaming):
    hidden = [".x/y.png", "train/.ipynb_checkpoints/cat.png", "train/cat/._1.png", "__MACOSX/train/cat/1.png"]
    data = folder(grid("cat", "train") + hidden)
    for name in (".DS_Store", "Thumbs.db", "notes.txt"):
        (Path(data) / "train" / "cat" / name).write_text("none")
    assert read(data, "train", streaming) == by_folder(grid("cat", "train", splits=["train"]))


LEFT_OUT = {
    "another format": (["train/cat/3.heic"], "train/cat/3.heic"),
    "no ending": (["train/cat/n0123"], "train/cat/n0123"),
    "a class that datasets passes over": (["train/__background__/1.png"], "__background__"),
    "images beside classes": (["train/1.png"], r"train/\.\.\."),
    "a class in a class": (["train/dog/husky/1.png"], "train/dog/husky"),
}


@STREAMING
@pytest.mark.parametrize("name", LEFT_OUT)
def test_images_that_would_be_left_out(name, streaming):
    extra, message = LEFT_OUT[name]
    data = folder(grid("cat", "dog") + extra)
    with pytest.raises(InputError, match=f"'data': .*{message}") as caught:
        load_images(data, "train", streaming=streaming)
    assert "\n" not in str(caught.value)


def test_a_broken_link_is_an_image_that_is_missing():
    data = folder(grid("cat", "dog"))
    (Path(data) / "test" / "cat" / "3.png").symlink_to("nowhere.png")
    with pytest.raises(InputError, match="1 of 9 images"):
        load_images(data, "train")


UNCLEAR = {
    "a split beside a class": [*grid("cat", "dog", splits=["train"]), "plots/old/1.png"],
    "CLASS/SPLIT/file": grid("train", "test", splits=["cat", "dog"]),
    "no classes": ["train/1.png", "train/2.png", "test/3.png"],
    "two splits": grid("cat", "train", splits=["photo/train", "photo/test", "sketch/train"]),
    "half of it": [*grid("cat", "dog", splits=["a/train", "a/test"]), "b/cat/1.png"],
}


@STREAMING
@pytest.mark.parametrize("name", UNCLEAR)
def test_folders_that_can_be_read_in_two_ways(name, streaming):
    with pytest.raises(InputError, match=r"'data': .*SPLIT/CLASS/file") as caught:
        load_images(folder(UNCLEAR[name]), "train", streaming=streaming)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="SPLIT/CLASS/file"):
        inspect_images("data", "train")


def test_images_outside_the_splits_are_counted(caplog):
    data = folder([*grid("cat", "dog"), "plots/old/1.png", "plots/2.png", "logo.png"])
    assert read(data, "test") == by_folder(grid("cat", "dog", splits=["test"]))
    assert "3 of 11 images" in caplog.text


@pytest.mark.parametrize(
    ("extra", "named"), [("train/emu/1.png", "'test'.*'emu'"), ("test/emu/1.png", "'train'.*'emu'")]
)
def test_classes_that_one_split_has_alone(caplog, extra, named):
    load_images(folder([*grid("cat", "dog"), extra]), "train")
    assert len(caplog.messages) == 1
    assert re.search(named, caplog.text)


def test_an_empty_folder_is_no_class(caplog):
    data = folder(grid("cat", "dog"))
    for path in ("train/emu/.ipynb_checkpoints", "test/cat"):
        (Path(data) / path).mkdir(parents=True, exist_ok=True)
    assert class_names(load_images(data, "train")) == ["cat", "dog"]
    (message,) = caplog.messages
    assert "'train/emu'" in message


def test_metadata_in_the_folder_of_a_split_names_the_classes(caplog):
    files = {f"{split}/train/{number}.png": IMAGE for split in ("train", "test") for number in (1, 2)}
    text = "file_name,kind\ntrain/1.png,a\ntrain/2.png,b\n"
    data = folder(files | {"train/metadata.csv": text, "test/metadata.csv": text})
    assert read(data, "test") == {"test/train/1.png": "a", "test/train/2.png": "b"}
    assert caplog.messages == []


def test_images_without_a_row_of_metadata_are_counted(caplog):
    files = {f"apple/{number}.png": IMAGE for number in (1, 2)} | {f"train/{number}.png": IMAGE for number in (1, 2)}
    rows = {"apple/1.png": "sweet", "train/1.png": "fast", "train/2.png": "fast"}
    text = "file_name,kind\n" + "".join(f"{path},{kind}\n" for path, kind in rows.items())
    assert read(folder({**files, "metadata.csv": text}), "train") == rows
    assert "3 rows" in caplog.text and "4 image" in caplog.text


def test_a_card_that_names_the_files_is_followed():
    card = "---\nconfigs:\n- {config_name: default, data_files: [{split: train, path: 'test/**'}]}\n---\n"
    data = folder(dict.fromkeys(grid("cat", "train"), IMAGE) | {"README.md": card})
    assert read(data, "train") == by_folder(grid("cat", "train", splits=["test"]))


def test_a_dataset_with_configs_in_its_card_is_read_from_its_own_folder_as_it_is_now():
    card = "---\nconfigs:\n- {config_name: default, data_files: [{split: train, path: 'train/**'}]}\n---\n"
    files = {"one/data": grid("cat", "cow", splits=["train"]), "two/data": grid("dog", "fox", splits=["train"])}
    for name, paths in files.items():
        assert read(folder(dict.fromkeys(paths, IMAGE) | {"README.md": card}, name), "train") == by_folder(paths)
    folder(["train/dog/3.png"], "two/data")
    assert read("two/data", "train") == by_folder([*files["two/data"], "train/dog/3.png"])


@STREAMING
def test_the_files_of_a_folder_are_looked_for_once_for_all_its_splits(monkeypatch, streaming):
    card = "---\nconfigs:\n- config_name: default\n  data_files: [{split: train, path: 'train/**'}"
    files = dict.fromkeys(grid("cat", "dog"), IMAGE)
    folder(files, "plain")
    folder(files | {"README.md": card + ", {split: test, path: 'test/**'}]\n---\n"}, "carded")
    load, calls = datasets.load_dataset_builder, []
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *a, **b: calls.append(a) or load(*a, **b))
    for data in ("plain", "carded"):
        calls.clear()
        for split in ("train", "test"):
            assert read(data, split, streaming) == by_folder(grid("cat", "dog", splits=[split]))
            calls.append(split)
        assert calls.index("test") == calls.index("train") + 1


@STREAMING
def test_files_outside_of_the_folder_are_read_as_they_are_now(streaming):
    card = "---\nconfigs:\n- {config_name: default, data_files: [{split: train, path: '../outside/**'}]}\n---\n"
    folder({"README.md": card})
    folder(["train/cat/1.png", "train/dog/2.png"], "outside")
    assert len(list(load_images("data", "train", streaming=streaming))) == 2
    folder(["train/dog/3.png"], "outside")
    assert len(list(load_images("data", "train", streaming=streaming))) == 3
    folder(grid("cat", "dog"), "linked")
    (Path("linked/train/emu")).symlink_to(Path("outside/train/cat").resolve())
    assert len(list(load_images("linked", "train", streaming=streaming))) == 5
    folder(["train/cat/4.png"], "outside")
    assert len(list(load_images("linked", "train", streaming=streaming))) == 6


def test_classes_that_a_card_declares_stay():
    label = "{name: label, dtype: {class_label: {names: {'0': train, '1': cat}}}}"
    card = f"---\ndataset_info:\n  features: [{{name: image, dtype: image}}, {label}]\n---\n"
    data = folder(dict.fromkeys(grid("cat", "train"), IMAGE) | {"README.md": card})
    assert class_names(load_images(data, "test")) == ["train", "cat"]
    assert read(data, "test") == by_folder(grid("cat", "train", splits=["test"]))


def parquet(name, names, labels):
    Path("data").mkdir(exist_ok=True)
    features = Features({"image": Image(), "label": ClassLabel(names=names)})
    image = PILImage.new("RGB", (4, 4))
    Dataset.from_dict({"image": [image] * len(labels), "label": labels}, features=features).to_parquet(f"data/{name}")


@STREAMING
def test_parquet_files_that_number_classes_in_another_order(streaming):
    parquet("train.parquet", ["cat", "dog"], [0, 1])
    parquet("test.parquet", ["dog", "cat"], [0, 1])
    with pytest.raises(InputError, match=r"'data': test.parquet .*'label'"):
        load_images("data", "test", streaming=streaming)


def test_parquet_files_of_no_split_are_named(caplog):
    for name in ("train.parquet", "test.parquet"):
        parquet(name, ["cat", "dog"], [0, 1])
    load_images("data", "train")
    assert caplog.messages == []
    parquet("extra.parquet", ["cat", "dog"], [0, 1])
    load_images("data", "train")
    assert "extra.parquet" in caplog.text
