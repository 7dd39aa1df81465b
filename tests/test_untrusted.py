"""Files of strangers: nothing in them runs, and one line says what is wrong."""

import json
import os
import shutil
import struct
import sys

import pytest
import torch
import yaml
from builders import tiny_resnet
from safetensors.torch import save_file
from transformers import ViTImageProcessorPil

from advbn_hf import AdvBNForImageClassification, InputError
from advbn_hf.backbones.loading import load_classifier, load_processor
from advbn_hf.convert import load_checkpoint
from advbn_hf.evaluation.runner import RunSettings, _file_name
from advbn_hf.evaluation.sets import Shift
from advbn_hf.evaluation.suites import SetEntry, load_suite
from advbn_hf.hub.contents import files_to_upload


class Payload:
    """A pickle that leaves a folder behind when it is executed."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def checkpoint(tmp_path):
    model = AdvBNForImageClassification.from_backbone(tiny_resnet())
    model.save_pretrained(tmp_path / "checkpoint", ViTImageProcessorPil(size={"height": 32, "width": 32}))
    return tmp_path / "checkpoint"


def refused(read, *arguments):
    """The one line that a call is refused with."""
    with pytest.raises(InputError) as caught:
        read(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("branch", [".", "auxiliary"])
def test_a_pickle_in_place_of_the_weights_does_not_run(checkpoint, tmp_path, branch):
    (checkpoint / branch / "model.safetensors").unlink()
    torch.save({"classifier.1.bias": Payload(tmp_path / "ran")}, checkpoint / branch / "pytorch_model.bin")
    assert str(checkpoint) in refused(AdvBNForImageClassification.from_pretrained, checkpoint)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_code_of_a_repository_is_neither_run_nor_offered(checkpoint, tmp_path, monkeypatch, file):
    asked = []
    monkeypatch.setattr("builtins.input", lambda *text: asked.append(text) or "y")
    code = f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\nclass Mine: pass\n"
    (checkpoint / "mine.py").write_text(code)
    content = json.loads((checkpoint / file).read_text())
    classes = ("AutoConfig", "AutoModelForImageClassification", "AutoImageProcessor")
    content |= {"model_type": "mine", "image_processor_type": "Mine", "auto_map": dict.fromkeys(classes, "mine.Mine")}
    (checkpoint / file).write_text(json.dumps(content))
    read = load_classifier if file == "config.json" else load_processor
    assert str(checkpoint) in refused(read, checkpoint)
    assert not asked
    assert not (tmp_path / "ran").exists()
    assert "mine" not in sys.modules


def header(tensors, length=None, data=b"\0" * 64):
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape=(4, 4), start=0, stop=64, dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


LIES = {
    "longer than the file": header({"a": tensor()}, length=10**6),
    "of 100 GB": header({"a": tensor()}, length=10**11),
    "of 2^63 bytes": header({"a": tensor()}, length=2**63),
    "of no bytes": header({"a": tensor()}, length=0),
    "offsets beyond the end": header({"a": tensor((4, 8), 0, 128)}),
    "offsets backwards": header({"a": tensor(start=64, stop=0)}),
    "offsets that overlap": header({"a": tensor(), "b": tensor()}),
    "a shape larger than its bytes": header({"a": tensor((2**31, 2**31))}),
    "a shape that overflows": header({"a": tensor((2**63, 2))}),
    "a negative shape": header({"a": tensor((-4, 4))}),
    "an unknown type": header({"a": tensor(dtype="PICKLE")}),
    "a type larger than its bytes": header({"a": tensor(dtype="F64")}),
    "a type smaller than its bytes": header({"a": tensor(dtype="U8")}),
    "nested too deeply": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "a gap": header({"a": tensor((2, 4), 32, 64)}),
}


@pytest.mark.parametrize("lie", LIES)
def test_safetensors_headers_that_lie(checkpoint, tmp_path, lie):
    (tmp_path / "x.safetensors").write_bytes(LIES[lie])
    assert "x.safetensors" in refused(load_checkpoint, tmp_path / "x.safetensors")
    for branch in (checkpoint, checkpoint / "auxiliary"):
        whole = (branch / "model.safetensors").read_bytes()
        (branch / "model.safetensors").write_bytes(LIES[lie])
        assert str(checkpoint) in refused(AdvBNForImageClassification.from_pretrained, checkpoint)
        (branch / "model.safetensors").write_bytes(whole)
    AdvBNForImageClassification.from_pretrained(checkpoint)


@pytest.mark.parametrize("spoil", ["truncated", "other shapes", "other names"])
def test_weights_that_do_not_fit(checkpoint, spoil):
    path = checkpoint / "auxiliary" / "model.safetensors"
    if spoil == "truncated":
        path.write_bytes(path.read_bytes()[:-7])
    else:
        save_file({"classifier.1.weight" if spoil == "other shapes" else "x": torch.ones(2, 2)}, path)
    assert str(checkpoint) in refused(AdvBNForImageClassification.from_pretrained, checkpoint)


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "[]", "{", '{"model_type": []}', '{"model_type": "resnet", "depths": 3}']
)
@pytest.mark.parametrize("file", ["config.json", "advbn_config.json"])
def test_configs_that_are_none(checkpoint, file, content):
    (checkpoint / file).write_text(content)
    assert str(checkpoint) in refused(AdvBNForImageClassification.from_pretrained, checkpoint)


@pytest.mark.parametrize(
    "index",
    [[], {}, {"weight_map": []}, {"weight_map": {"a": ["x"]}}, {"weight_map": {"a": "../../secret"}}, 3],
    ids=str,
)
def test_an_index_names_no_file_outside_the_folder(checkpoint, tmp_path, index):
    (tmp_path / "secret").write_text("secret")
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    assert str(checkpoint) in refused(files_to_upload, checkpoint)
    assert str(checkpoint) in refused(AdvBNForImageClassification.from_pretrained, checkpoint)


def test_tags_of_a_suite_make_no_objects(tmp_path):
    for tag in ("!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir"):
        (tmp_path / "suite.yaml").write_text(f"sets:\n  - name: {tag} [{tmp_path / 'ran'}]\n")
        assert "suite.yaml" in refused(load_suite, tmp_path / "suite.yaml")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../../up", "/etc/passwd", "..", "a" * 5000, "a/b", "ünï"])
def test_names_of_sets_stay_in_their_folder(tmp_path, name):
    path = tmp_path / _file_name(SetEntry(name, "embedded"), Shift(), [], RunSettings())
    assert path.resolve().parent == tmp_path.resolve()
    path.write_bytes(b"")


def test_a_folder_of_another_kind_is_not_a_checkpoint(checkpoint, tmp_path):
    shutil.rmtree(checkpoint / "auxiliary")
    (checkpoint / "auxiliary").write_text(yaml.safe_dump({"a": 1}))
    assert str(checkpoint) in refused(AdvBNForImageClassification.from_pretrained, checkpoint)
