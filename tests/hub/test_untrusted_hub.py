"""Repositories and files of strangers, given to every recipe: nothing in them runs, and one line says why not."""

import importlib.util
import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import finetune
import pytest
import torch
from builders import save_digit_models, save_images
from datasets import Dataset, Features, Image, Value
from fake_hub.store import Blob, Commit, Repo
from safetensors.torch import save

RECIPES = Path(finetune.__file__).parent
SPLITS = ("train", "validation", "test")
# Runs recipes one after another, as a shell would, and prints for each its exit code and all that it said.
RUN = """
import contextlib, io, json, runpy, sys
for recipe, *arguments in json.loads(sys.argv[1]):
    sys.argv, said, code = [recipe, *arguments], io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            runpy.run_path(recipe, run_name="__main__")
        except SystemExit as left:
            code = left.code
    print(json.dumps([code, said.getvalue()]), flush=True)
"""


class Payload:
    """A pickle that leaves a folder behind when it is executed."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def pickled(path):
    """Weights that run code when they are read as a pickle."""
    buffer = io.BytesIO()
    torch.save({"classifier.1.bias": Payload(path)}, buffer)
    return buffer.getvalue()


def publish(hub, repo_id, files, kind="model"):
    """Puts a repository on the double, with names of files that nobody could commit there."""
    repo = Repo(kind, repo_id)
    blobs = {name: Blob(data, lfs=False) for name, data in files.items()}
    repo.advance("refs/heads/main", Commit(blobs, repo.refs["refs/heads/main"], "me", "evil"))
    hub.store.repos[kind, repo_id] = repo


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder with a checkpoint of both branches, `advbn`, and a set of images, `data`."""
    folder = tmp_path_factory.mktemp("sound")
    save_digit_models(folder)
    for split in ("train", "validation", "test"):
        save_images(folder / "data" / split, [str(digit) for digit in range(10)], 1)
    return folder


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def models(files, ran):
    """Checkpoints by what is wrong with them; each leaves `ran` behind if it gets its way."""
    branches, index = ("", "auxiliary/"), "model.safetensors.index.json"
    bare = {name: data for name, data in files.items() if not name.endswith(".safetensors")}
    code = f"import os\nos.mkdir({str(ran)!r})\nclass Mine: pass\n".encode()
    classes = ("AutoConfig", "AutoModelForImageClassification", "AutoImageProcessor")

    def both(name, data):
        return {f"{branch}{name}": data for branch in branches}

    def asking(name, **changes):
        asked = json.loads(files[name]) | {"auto_map": dict.fromkeys(classes, "mine.Mine")} | changes
        return files | both(name, json.dumps(asked).encode()) | both("mine.py", code)

    def shards(name):
        listed = json.dumps({"metadata": {}, "weight_map": {"classifier.1.bias": name}}).encode()
        return bare | both(index, listed) | {name: save({"classifier.1.bias": torch.zeros(10)})}

    return {
        "pickled-weights": bare | both("pytorch_model.bin", pickled(ran)),
        "raw-pickle": bare | both("pytorch_model.bin", pickle.dumps(Payload(ran))),
        "model-with-code": asking("config.json", model_type="mine"),
        "processor-with-code": asking("preprocessor_config.json", image_processor_type="Mine"),
        "lying-header": files | both("model.safetensors", struct.pack("<Q", 10**11) + b"{}"),
        "climbing-shard": shards("../../../../../../climbed.safetensors"),
        "absolute-shard": shards(f"{ran}.safetensors"),
        "backslash-shard": shards("..\\..\\climbed.safetensors"),
    }


def data_sets(data, ran):
    """Datasets likewise, each with what its line says."""
    files = contents(data)
    image = files["train/0/0.png"]
    script = f"import os\nos.mkdir({str(ran)!r})\n".encode()
    slips = {"0/0.png": image, "1/0.png": image, "../../../../climbed.png": image, f"{ran}/climbed.png": image}
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as file:
        for name, content in slips.items():
            file.writestr(name, content)
    rows = {"image": [{"bytes": image, "path": None}] * 10, "label": list(range(10))}
    parquet = io.BytesIO()
    Dataset.from_dict(rows, features=Features({"image": Image(), "label": Value("int64")})).to_parquet(parquet)
    lie = b"---\ndataset_info:\n  features:\n  - {name: image, dtype: image}\n  - name: label\n    dtype:\n"
    lie += b"      class_label: {names: {'0': only}}\n---\n"
    objects = f"---\ndataset_info: !!python/object/apply:os.mkdir [{ran}]\n---\n".encode()
    parquets = {f"data/{split}.parquet": parquet.getvalue() for split in SPLITS}
    return {
        "scripted": ({"scripted.py": script, "dataset_infos.json": b"{}"}, "me/scripted"),
        "pickled-rows": (dict.fromkeys(("train.pkl", "train.pickle"), pickle.dumps(Payload(ran))), "me/pickled-rows"),
        "lying-card": (parquets | {"README.md": lie}, "labels: 9 rows have 1, 2, 3"),
        "card-of-objects": (files | {"README.md": objects}, "me/card-of-objects"),
        "climbing-names": (files | {"train/../../../climbed.png": image}, "me/climbing-names"),
        "climbing-archive": ({f"{split}.zip": zipped.getvalue() for split in SPLITS}, "me/climbing-archive"),
    }


def hostile_files(folder, ran):
    """Jobs for a converter and for YAML files with tags that make objects."""
    folder.mkdir()
    (folder / "evil.pth.tar").write_bytes(pickled(ran))
    for name, key in (("config", "output_dir"), ("suite", "sets"), ("push", "checkpoint")):
        (folder / f"{name}.yaml").write_text(f"{key}: !!python/object/apply:os.mkdir [{ran}]\n")
    configs = [[name, folder / "config.yaml"] for name in ("finetune", "evaluate", "compare", "visualize", "demo")]
    return [
        ["convert", folder / "evil.pth.tar", folder / "converted"],
        ["evaluate", "--model", "me/any", "--suite", folder / "suite.yaml"],
        ["push_to_hub", folder / "push.yaml"],
        *configs,
    ]


@pytest.fixture
def run(hub, tmp_path):
    """Runs jobs against the double, where the answer to any question is "y"; returns code and output of each."""

    def run(jobs):
        jobs = [[str(RECIPES / f"{name}.py"), *map(str, arguments)] for name, *arguments in jobs]
        done = hub.run(
            ["-c", RUN, json.dumps(jobs)],
            env={"PYTHONPATH": str(RECIPES.parent), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            cwd=tmp_path / "work",
            input="y\n" * 1000,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    (tmp_path / "work").mkdir()
    return run


@pytest.mark.slow
def test_every_recipe_refuses_what_is_hostile(hub, run, sound, tmp_path):
    ran, out, data = tmp_path / "ran", tmp_path / "work" / "out", ["--dataset_name", sound / "data"]
    training = ["--max_steps", 1, "--use_cpu", "true", "--report_to", "none"]
    recipes = [
        ("finetune", "--model_name_or_path", [*data, "--output_dir", out, *training]),
        ("evaluate", "--model", [*data, "--output_dir", out]),
        ("visualize", "--model", [*data, "--output_dir", out]),
    ]
    if importlib.util.find_spec("gradio"):
        recipes.append(("demo", "--model", [*data, "--export_space", out]))
    jobs = []
    for name, files in models(contents(sound / "advbn"), ran).items():
        publish(hub, f"me/{name}", files)
        jobs += [(f"me/{name}", [recipe, option, f"me/{name}", *rest]) for recipe, option, rest in recipes]
    for name, (files, message) in data_sets(sound / "data", ran).items():
        publish(hub, f"me/{name}", files, "dataset")
        model = ["--model_name_or_path", sound / "advbn", "--ignore_mismatched_sizes", "true"]
        jobs.append((message, ["finetune", *model, "--dataset_name", f"me/{name}", "--output_dir", out, *training]))
    jobs += [("", job) for job in hostile_files(tmp_path / "files", ran)]

    for (message, job), (code, said) in zip(jobs, run([job for _, job in jobs]), strict=True):
        assert "Traceback" not in said, (job, said)
        assert code == 2, (job, said)
        (error,) = [line for line in said.splitlines() if "error: " in line]
        assert error.startswith("error: ")
        assert "weights_only" not in error  # nobody is told how to run it all the same
        assert message in error
    print(f"{len(jobs)} runs of recipes on what is hostile")
    assert {path.name for path in tmp_path.iterdir()} == {"files", "work"}
    assert not out.exists()
    assert not (tmp_path / "files" / "converted").exists()
    assert not [path for place in (hub.folder, *tmp_path.parents[:4]) for path in place.glob("climbed*")]
    assert not list(hub.folder.rglob("mine.py"))
