"""Images, labels and cards of strangers through the recipes: a run that works, or one line and exit code 2."""

import json
import runpy
import sys
from pathlib import Path

import finetune
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import tiny_resnet
from datasets import ClassLabel, Features, Image, List, Value
from PIL import Image as PILImage
from test_hostile_data import CARDS, READABLE, bomb, encoded, red
from test_images import DAMAGED
from transformers import ViTImageProcessorPil

from advbn_hf.utils.cli import run

EVALUATE = Path(finetune.__file__).with_name("evaluate.py")


def on_its_side():
    """An image that its EXIF block turns."""
    exif = PILImage.Exif()
    exif[0x0112] = 6
    return encoded(red(), "JPEG", exif=exif)


GOOD = {name: data for name, (data, _) in READABLE.items()} | {"EXIF-rotated": on_its_side()}
BAD = DAMAGED | {"bomb.png": bomb(), "a line.png": encoded(red(size=(20_000, 1))), "text called.jpg": b"hello\n" * 99}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small model of two classes "a" and "b"."""
    folder = tmp_path_factory.mktemp("model")
    two = tiny_resnet(num_labels=2)
    two.config.id2label, two.config.label2id = {0: "a", 1: "b"}, {"a": 0, "b": 1}
    two.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture
def recipe(monkeypatch, capsys, model, tmp_path):
    """Trains on a dataset, or evaluates on it; returns the exit code and all that was said."""

    def recipe(name, data, *options):
        if name == "finetune":
            fast = ["--max_steps", 2, "--per_device_train_batch_size", 8, "--use_cpu", "true", "--report_to", "none"]
            arguments = ["--model_name_or_path", model, *fast, *options]
        else:
            arguments = ["--model", model, "--sets", "clean", *options]
        arguments += ["--dataset_name", data, "--output_dir", tmp_path / name]
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        try:
            run(finetune.main) if name == "finetune" else runpy.run_path(str(EVALUATE), run_name="__main__")
        except SystemExit as left:
            return left.code, "".join(capsys.readouterr())
        return 0, "".join(capsys.readouterr())

    return recipe


def the_line(said):
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    return line


def write(folder, images):
    """The same images in both classes of both splits."""
    for split in ("train", "validation"):
        for kind in ("a", "b"):
            (folder / split / kind).mkdir(parents=True)
            for name, data in images.items():
                (folder / split / kind / (name if "." in name else f"{name}.jpg")).write_bytes(data)
    return folder


@pytest.mark.parametrize("name", ["finetune", "evaluate"])
def test_odd_images_are_trained_and_evaluated_on(recipe, tmp_path, caplog, name):
    code, said = recipe(name, write(tmp_path / "data", GOOD), *(["--max_steps", 12] if name == "finetune" else []))
    assert code == 0, said
    records = json.loads((tmp_path / name / "results.json").read_text())
    assert {record["n"] for record in records} == {2 * len(GOOD)}
    seen_in_training = [message for message in caplog.messages if f"{2 * len(GOOD)} evaluation images" in message]
    assert len(seen_in_training) == (name == "finetune")


@pytest.mark.parametrize("name", ["finetune", "evaluate"])
def test_bad_images_are_all_named_and_left_out(recipe, tmp_path, caplog, name):
    data = write(tmp_path / "data", GOOD | BAD)
    code, said = recipe(name, data, "--skip_bad_images", "true", *(["--max_steps", 8] if name == "finetune" else []))
    assert code == 0, said
    print(f"{len(GOOD)} kinds of odd images, {len(BAD)} of damaged ones")
    left_out = [line for line in [*said.splitlines(), *caplog.messages] if line.startswith("left out")]
    for file in BAD:
        assert len([line for line in left_out if f"validation/a/{file}" in line]) == 1
    assert not [line for line in left_out if any(f"/{file}.jpg" in line for file in GOOD)]
    records = json.loads((tmp_path / name / "results.json").read_text())
    assert {record["n"] for record in records} == {2 * len(GOOD)}


@pytest.mark.parametrize("file", BAD)
def test_a_bad_image_stops_with_its_name(recipe, tmp_path, file):
    code, said = recipe("evaluate", write(tmp_path / "data", {file: BAD[file]}))
    assert code == 2
    assert file in the_line(said)
    assert "cannot be decoded" in the_line(said)


LABELS = {
    "strings": (["a", "b"] * 4, Value("string"), None),
    "bools": ([False, True] * 4, Value("bool"), None),
    "numbers": ([0, 1] * 4, Value("int64"), None),
    "missing strings": (["a", None, "b", "b"] * 2, Value("string"), "2 rows have -1"),
    "missing numbers": ([0, None, 1, 1] * 2, Value("int64"), "2 rows have missing"),
    "missing classes": ([0, None, 1, 1] * 2, ClassLabel(names=["a", "b"]), "2 rows have missing"),
    "negative": ([0, -7, 1, 1] * 2, Value("int64"), "2 rows have -7"),
    "huge": ([0, 2**62, 1, 1] * 2, Value("int64"), f"2 rows have {2**62}"),
    "beyond all": ([0, 2**64 - 1, 1, 1] * 2, Value("uint64"), f"2 rows have {2**64 - 1}"),
    "fractions": ([0.0, 0.5] * 4, Value("float64"), "label_column"),
    "lists": ([[0], [1]] * 4, List(Value("int64")), "label_column"),
    "too many": ([str(number) for number in range(8)], Value("string"), "has 8 classes, but"),
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("name", ["finetune", "evaluate"])
def test_labels_of_every_kind(recipe, tmp_path, name, kind):
    values, feature, message = LABELS[kind]
    images = [{"bytes": encoded(red()), "path": None}] * len(values)
    schema = Features({"image": Image(), "label": feature}).arrow_schema
    (tmp_path / "data").mkdir()
    for split in ("train", "validation"):
        pq.write_table(pa.table({"image": images, "label": values}, schema), tmp_path / "data" / f"{split}.parquet")
    code, said = recipe(name, tmp_path / "data")
    if message is None:
        # Bools are the classes False and True, which for an evaluation are none of the model's.
        assert (code, name) in ((0, name), (2, "evaluate")), said
        assert code == 0 or "'False', 'True'" in the_line(said)
    else:
        assert code == 2
        assert message in the_line(said) or name == "evaluate"
    assert "Traceback" not in said


LIES = ("too few classes", "too many classes", "classes in another order", "a number for names", "other sizes")


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_card_that_lies_about_its_classes(recipe, tmp_path, monkeypatch, lie, streaming):
    monkeypatch.chdir(tmp_path)
    data = write(tmp_path / "data", {"0": encoded(red()), "1": encoded(red())})
    info = "".join(f"  {line}\n" for line in CARDS[lie].splitlines())
    (data / "README.md").write_text(f"---\ndataset_info:\n{info}---\n")
    code, said = recipe("finetune", data, "--streaming", str(streaming).lower())
    assert code in (0, 2), said
    if code == 0:
        config = json.loads((tmp_path / "finetune" / "config.json").read_text())
        assert {"a", "b"} <= set(config["id2label"].values())
    else:
        assert the_line(said)
        assert not (tmp_path / "finetune" / "model.safetensors").exists()
    assert not (tmp_path / "ran").exists()
