"""Splits from folders of every kind, their columns and labels, and one line for each thing that can be wrong."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO

import datasets
import huggingface_hub
import numpy as np
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from PIL import Image as PILImage

from advbn_hf.data.loading import check_labels, check_same_classes, class_names, load_images
from advbn_hf.errors import InputError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def png(value: int) -> bytes:
    buffer = BytesIO()
    PILImage.new("RGB", (6, 4), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def table(label, values, **others) -> Dataset:
    """A small set with the columns "image", "target" and any others."""
    images = [{"bytes": png(index), "path": f"{index}.png"} for index in range(len(values))]
    columns = {"image": images, "target": values} | {name: column for name, (column, _) in others.items()}
    features = {"image": Image(), "target": label} | {name: feature for name, (_, feature) in others.items()}
    return Dataset.from_dict(columns, features=Features(features))


def imagefolder(folder, classes=("cat", "dog"), splits=("train", "test")):
    for split in splits:
        for number, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            for index in range(3):
                (folder / split / name / f"{index}.png").write_bytes(png(10 * number + index))
    return str(folder)


def reds(dataset) -> list[int]:
    """The colour of each image, read independently: it says which row this was."""
    values = [row["image"] for row in dataset]
    files = [BytesIO(value["bytes"]) if value["bytes"] else value["path"] for value in values]
    return [PILImage.open(file).getpixel((0, 0))[0] for file in files]


@pytest.mark.parametrize("streaming", [False, True])
def test_imagefolder(tmp_path, streaming):
    dataset = load_images(imagefolder(tmp_path / "data"), "test", streaming=streaming)
    assert dataset.column_names == ["image", "label"]
    assert dataset.features["image"] == Image(decode=False)
    assert class_names(dataset) == ["cat", "dog"]
    assert sorted(zip(reds(dataset), [row["label"] for row in dataset], strict=True)) == [
        (0, 0), (1, 0), (2, 0), (10, 1), (11, 1), (12, 1)
    ]  # fmt: skip


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["parquet", "saved", "saved_dict"])
def test_folders_of_tables(tmp_path, kind, streaming):
    data = table(ClassLabel(names=["b", "a"]), [1, 0, 1], kind=(["x", "y", "z"], Value("string")))
    if kind == "parquet":
        (tmp_path / "data").mkdir()
        data.to_parquet(tmp_path / "data" / "train-00000.parquet")
    else:
        (data if kind == "saved" else DatasetDict(train=data)).save_to_disk(tmp_path / "data")
    dataset = load_images(str(tmp_path / "data"), "train", streaming=streaming)
    assert isinstance(dataset, datasets.IterableDataset if streaming else Dataset)
    assert dataset.column_names == ["image", "label"]
    assert reds(dataset) == [0, 1, 2] and [row["label"] for row in dataset] == [1, 0, 1]
    assert class_names(dataset) == ["b", "a"]
    with pytest.raises(InputError, match=r"nope.*train"):
        load_images(str(tmp_path / "data"), "nope", streaming=streaming)


def test_embedded_style_is_the_configuration():
    dataset = load_images("embedded", "validation", config="inverted")
    assert dataset.column_names == ["image", "label"] and len(class_names(dataset)) == 10
    with pytest.raises(InputError, match="nope"):
        load_images("embedded", "validation", config="nope")


def test_slice_of_a_split(tmp_path):
    assert len(load_images(imagefolder(tmp_path / "data"), "train[:50%]")) == 3


def test_strings_have_one_number_in_every_split(tmp_path):
    parts = {"train": ["dog", "cat", None, "emu"], "test": ["emu", "emu"]}
    DatasetDict({s: table(Value("string"), v) for s, v in parts.items()}).save_to_disk(tmp_path / "data")
    train, test = (load_images(str(tmp_path / "data"), split) for split in parts)
    assert class_names(train) == class_names(test) == ["cat", "dog", "emu"]
    assert train["label"][:] == [1, 0, -1, 2] and test["label"][:] == [2, 2]
    assert reds(train) == [0, 1, 2, 3]
    with pytest.raises(InputError, match=r"1 rows .*-1"):
        check_labels(train, 3)
    with pytest.raises(InputError, match="without streaming"):
        load_images(str(tmp_path / "data"), "train", streaming=True)


CAPTIONS = [f"a drawing of {number} trains" for number in range(20)]


def captioned(folder, texts) -> str:
    """A folder of images with a text for each in its metadata."""
    folder.mkdir()
    lines = []
    for number, text in enumerate(texts):
        (folder / f"{number}.png").write_bytes(png(number))
        lines.append(json.dumps({"file_name": f"{number}.png", "text": text}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return str(folder)


@pytest.mark.parametrize("texts", [CAPTIONS, CAPTIONS + CAPTIONS[:5], CAPTIONS[:6]], ids=len)
@pytest.mark.parametrize("label_column", [None, "text"])
def test_captions_are_no_classes(tmp_path, texts, label_column):
    with pytest.raises(InputError, match=f"label_column 'text'.*{len(set(texts))} different .*{len(texts)} rows"):
        load_images(captioned(tmp_path / "data", texts), "train", label_column=label_column)


def test_texts_that_repeat_are_classes(tmp_path):
    rows = load_images(captioned(tmp_path / "data", [*CAPTIONS[:10] * 2, "a train", "a train"]), "train")
    assert len(class_names(rows)) == 11


@pytest.mark.parametrize("pair", [("Cat", "cat"), ("cat", "cat "), ("ice cream", "icecream"), ("Straße", "STRASSE")])
@pytest.mark.parametrize("kind", ["folders", "texts", "classes"])
def test_classes_that_differ_by_case_or_blanks_only(tmp_path, pair, kind):
    names = ["dog", *pair]
    if kind == "folders":
        imagefolder(tmp_path / "data", names)
    else:
        values = names * 3 if kind == "texts" else [0, 1, 2]
        feature = Value("string") if kind == "texts" else ClassLabel(names=names)
        table(feature, values).save_to_disk(tmp_path / "data")
    with pytest.raises(InputError) as caught:
        load_images(str(tmp_path / "data"), "train")
    assert all(repr(name) in str(caught.value) for name in pair) and "'dog'" not in str(caught.value)


def test_letters_in_both_cases_are_classes(tmp_path):
    assert class_names(load_images(imagefolder(tmp_path / "data", ["A", "a", "b"]), "train")) == ["A", "a", "b"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["b", "a", "c"], "order.*label 0 is 'b'"),
        (["a", "b", "c", "d"], "'d'"),
        (["a", "b"], "training split alone has 'c'"),
        (None, "names"),
    ],
    ids=str,
)
def test_splits_with_other_classes(tmp_path, names, message):
    training = ClassLabel(names=["a", "b", "c"])
    evaluation = Value("int64") if names is None else ClassLabel(names=names)
    table(training, [0, 1, 2]).save_to_disk(tmp_path / "train")
    table(evaluation, [0, 1, 1]).save_to_disk(tmp_path / "test")
    rows, others = (load_images(str(tmp_path / split), "train") for split in ("train", "test"))
    check_same_classes(rows, rows, "eval_split")
    with pytest.raises(InputError, match=f"eval_split: .*{message}") as caught:
        check_same_classes(rows, others, "eval_split")
    assert "\n" not in str(caught.value)


def test_bools_and_integers(tmp_path):
    table(Value("bool"), [True, False]).save_to_disk(tmp_path / "bools")
    table(Value("uint8"), [7, 3]).save_to_disk(tmp_path / "integers")
    bools, integers = (load_images(str(tmp_path / name), "train") for name in ("bools", "integers"))
    assert bools["label"][:] == [1, 0] and class_names(bools) == ["False", "True"]
    assert integers["label"][:] == [7, 3] and class_names(integers) is None


def test_columns_that_need_a_name(tmp_path):
    where = str(tmp_path / "data")
    columns = {"id": ([5, 6], Value("int64")), "raw": ([png(50), png(60)], Value("binary"))}
    table(Value("int64"), [1, 0], **columns).save_to_disk(where)
    with pytest.raises(InputError, match=r"label_column.*target, id"):
        load_images(where, "train")
    for streaming in (False, True):
        dataset = load_images(where, "train", image_column="raw", label_column="target", streaming=streaming)
        assert reds(dataset) == [50, 60] and [row["label"] for row in dataset] == [1, 0]
    for field, wanted in (("image_column", "id"), ("label_column", "raw"), ("label_column", "image")):
        with pytest.raises(InputError, match=f"{field} '{wanted}'"):
            load_images(where, "train", **({"label_column": "id"} | {field: wanted}))
    for field in ("image_column", "label_column"):
        with pytest.raises(InputError, match=f"{field}.*'nope'.*image, target, id, raw"):
            load_images(where, "train", **({"label_column": "id"} | {field: "nope"}))


def test_no_column_fits(tmp_path):
    Dataset.from_dict({"text": ["a"], "score": [0.5]}).save_to_disk(tmp_path / "data")
    with pytest.raises(InputError, match=r"image_column.*text, score"):
        load_images(str(tmp_path / "data"), "train")


@pytest.mark.parametrize("streaming", [False, True])
def test_empty_split(tmp_path, streaming):
    empty = table(Value("int64"), [])
    # datasets before 5.1 divides by the number of rows where it is to find the number of shards, or to write parquet.
    empty.save_to_disk(tmp_path / "saved", num_shards=1)
    (tmp_path / "parquet").mkdir()
    pyarrow.parquet.ParquetWriter(tmp_path / "parquet" / "train.parquet", empty.features.arrow_schema).close()
    for kind, message in (("saved", "is empty"), ("parquet", "is empty" if streaming else "no data")):
        with pytest.raises(InputError, match=message):
            load_images(str(tmp_path / kind), "train", streaming=streaming)


def test_what_is_not_there(tmp_path):
    folder = imagefolder(tmp_path / "data")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "train.parquet").write_bytes(b"PAR1 but not really")
    cases = [
        ((folder, "nope"), {}, "nope.*train.*test"),
        ((folder, "nope"), {"streaming": True}, "nope.*train.*test"),
        ((folder, "train"), {"config": "nope"}, "nope.*default"),
        ((str(tmp_path / "empty"), "train"), {}, "any data files"),
        ((str(tmp_path / "missing"), "train"), {}, "missing"),
        ((str(tmp_path / "broken"), "train"), {}, "(?i)parquet"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            load_images(*arguments, **options)
        assert "\n" not in str(caught.value)


def test_labels_outside_the_models(tmp_path):
    table(Value("int64"), [0, 4, -1, None, 4, 2]).save_to_disk(tmp_path / "data")
    dataset = load_images(str(tmp_path / "data"), "train")
    with pytest.raises(InputError, match=r"4 rows .*4, -1, missing .*row 1.*0\.\.2"):
        check_labels(dataset, 3)
    with pytest.raises(InputError, match=r"1 rows .*2 .*row 1"):
        check_labels(dataset.select([0, 5]), 2)
    check_labels(dataset.select([0, 5]), 3)


def test_declared_classes_of_a_stream(tmp_path):
    stream = load_images(imagefolder(tmp_path / "data"), "train", streaming=True)
    check_labels(stream, 2)
    with pytest.raises(InputError, match="2 classes"):
        check_labels(stream, 1)


def test_a_million_labels_are_checked_without_their_images():
    features = Features({"image": Image(decode=False), "label": Value("int64")})
    labels = np.arange(1_000_000) % 1000
    dataset = Dataset.from_dict({"image": [None] * len(labels), "label": labels}, features=features)
    check_labels(dataset, 1000)
    with pytest.raises(InputError, match=r"1000 rows .*999 "):
        check_labels(dataset, 999)


class _Hub(BaseHTTPRequestHandler):
    """Answers as the Hub does for a gated dataset, and for one that is not there."""

    def do_GET(self):
        gated = "me/gated" in self.path
        self.send_response(403 if gated else 404)
        self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


_ASK = """
import json, sys
from advbn_hf.data.loading import load_images
from advbn_hf.errors import InputError
messages = []
for name in sys.argv[1:]:
    try:
        load_images(name, "train")
    except InputError as error:
        messages.append(str(error))
print(json.dumps(messages))
"""


@pytest.mark.slow
def test_what_the_hub_refuses(tmp_path):
    server = HTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = os.environ | {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", _ASK, "me/gated", "me/missing"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    server.shutdown()
    gated, missing = json.loads(done.stdout.splitlines()[-1])
    assert "'me/gated'" in gated and "gated" in gated.split(";")[0] and "hf auth login" in gated
    assert "'me/missing'" in missing and "doesn't exist" in missing and "check the name" in missing
    assert "\n" not in gated + missing


def test_no_network(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"'me/missing'.*folder"):
        load_images("me/missing", "train")
