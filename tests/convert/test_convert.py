"""The published checkpoint layout against a plain functional ResNet that reads the published keys itself."""

import os
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from functional_resnet import functional_logits
from PIL import Image
from reference_formula import formula_state_dict, formula_tensor
from safetensors.torch import save_file
from transformers import AutoImageProcessor, AutoModelForImageClassification

from advbn_hf import AdvBNConfig, AdvBNForImageClassification
from advbn_hf.convert import convert_state_dict, load_checkpoint
from advbn_hf.errors import InputError

SMALL = (8, 12, 16, 20)
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def small_resnet(depth=18, cut=1, num_classes=10):
    return formula_state_dict(DEPTHS[depth], SMALL, bottleneck=depth >= 50, cut=cut, num_classes=num_classes)


@pytest.fixture
def published(tmp_path):
    """Writes a state dict the way that released files are, and returns the path."""

    def write(state_dict):
        path = tmp_path / "published.pth.tar"
        state_dict = {f"module.{key}": value for key, value in state_dict.items()}
        optimizer = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
        content = {"epoch": 20, "arch": "resnet", "state_dict": state_dict, "best_prec1": torch.tensor(77.0)}
        torch.save(content | {"optimizer": optimizer}, path)
        return path

    return write


CASES = [(depth, cut, SMALL) for depth in DEPTHS for cut in (1, 2, 3)] + [(50, 1, (64, 128, 256, 512))]


@pytest.mark.parametrize(("depth", "cut", "widths"), CASES)
def test_logits_equal_a_plain_resnet(depth, cut, widths):
    depths, bottleneck = DEPTHS[depth], depth >= 50
    state = formula_state_dict(depths, widths, bottleneck, cut, num_classes=10)
    clean, auxiliary, config = convert_state_dict(state)

    assert (tuple(clean.config.depths), clean.config.num_labels) == (depths, 10)
    assert clean.config.layer_type == ("bottleneck" if bottleneck else "basic")
    assert config.insert_after == f"resnet.encoder.stages.{cut - 1}"
    x = formula_tensor("x", (2, 3, 64, 64))
    with torch.no_grad():
        logits = {"clean": clean(x).logits, "adv": auxiliary(x).logits}
        for branch, values in logits.items():
            expected = functional_logits(state, x, branch, depths, cut)
            torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    assert not torch.allclose(logits["clean"], logits["adv"], rtol=1e-2)


def test_config_is_the_published_one_and_labels_are_numbered():
    clean, _, config = convert_state_dict(small_resnet(cut=2))
    assert config == replace(AdvBNConfig.paper(), insert_after="resnet.encoder.stages.1")
    assert clean.config.id2label[9] == "LABEL_9"


def test_id2label():
    names = {i: f"class {i}" for i in range(10)}
    clean, auxiliary, _ = convert_state_dict(small_resnet(), id2label=names)
    assert clean.config.id2label == auxiliary.config.id2label == names
    assert clean.config.label2id["class 3"] == 3
    with pytest.raises(InputError, match="0 to 9"):
        convert_state_dict(small_resnet(), id2label={1: "one"})


def test_models_own_their_tensors_in_float32():
    state = {key: v.half() if v.is_floating_point() else v for key, v in small_resnet().items()}
    clean, auxiliary, _ = convert_state_dict(state)
    for tensor in clean.state_dict().values():
        tensor.zero_()
    assert clean.dtype == auxiliary.dtype == torch.float32
    assert auxiliary.classifier[1].weight.abs().sum() > 0
    assert state["head.fc.weight"].abs().sum() > 0


def test_every_kind_of_file_reads_the_same(published, tmp_path):
    state = small_resnet()
    files = [published(state), tmp_path / "bare.pth", tmp_path / "model.safetensors"]
    torch.save(state, files[1])
    save_file(state, files[2])
    states = [load_checkpoint(file).state_dict() for file in files]
    for other in states[1:]:
        assert other.keys() == states[0].keys()
        assert all(torch.equal(other[key], states[0][key]) for key in other)


def test_round_trip_through_a_checkpoint(published, tmp_path):
    state = small_resnet(depth=50, cut=2)
    model = load_checkpoint(published(state))
    model.save_pretrained(tmp_path / "checkpoint")

    x = formula_tensor("x", (2, 3, 64, 64))
    for branch, name, where in (("clean", "clean", {}), ("auxiliary", "adv", {"subfolder": "auxiliary"})):
        plain = AutoModelForImageClassification.from_pretrained(tmp_path / "checkpoint", **where)
        with torch.no_grad():
            logits = plain(x).logits
            assert torch.equal(logits, model(pixel_values=x, branch=branch).logits)
            expected = functional_logits(state, x, name, DEPTHS[50], cut=2)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def without(key):
    return lambda state: {k: v for k, v in state.items() if k != key}


BAD_STATE_DICTS = {
    "missing_first": (without("feature_x.0.weight"), r"'feature_x\.0\.weight' is missing"),
    "missing_stem_norm": (without("feature_x.4.1.adv_bn2.bias"), r"'feature_x\.4\.1\.adv_bn2\.bias' is missing"),
    "missing_auxiliary": (without("head.layer3_0.adv_bn1.weight"), r"'head\.layer3_0\.adv_bn1\.weight' is missing"),
    "missing_classifier": (without("head.fc.bias"), r"'head\.fc\.bias' is missing"),
    "missing_stage": (lambda s: {k: v for k, v in s.items() if "layer4" not in k}, r"'head\.layer4_0.*is missing"),
    "missing_block": (lambda s: {k: v for k, v in s.items() if "layer4_0" not in k}, r"'head\.layer4_0.*is missing"),
    "no_stem": (lambda s: {k: v for k, v in s.items() if "feature_x.4" not in k}, r"'feature_x\.4\.0.*is missing"),
    "unexpected": (lambda s: s | {"head.extra": torch.ones(1)}, r"'head\.extra' is unexpected"),
    "convolution_bias": (lambda s: s | {"head.layer2_0.conv1.bias": torch.ones(12)}, "conv1.bias' is unexpected"),
    "first_stage_shortcut": (lambda s: s | {"feature_x.4.0.downsample.conv.weight": torch.ones(1)}, "is unexpected"),
    "wrong_shape": (
        lambda s: s | {"head.layer2_0.conv1.weight": torch.ones(12, 8, 1, 1)},
        r"'head\.layer2_0\.conv1\.weight' has shape \(12, 8, 1, 1\) and should have \(12, 8, 3, 3\)",
    ),
    "scalar_weight": (lambda s: s | {"head.fc.weight": torch.tensor(1.0)}, r"'head\.fc\.weight' has shape \(\)"),
    "no_tensor": (lambda s: s | {"head.fc.bias": 3}, "'head.fc.bias' holds a int"),
    "complex": (lambda s: s | {"head.fc.bias": s["head.fc.bias"] * 1j}, "'head.fc.bias' holds complex numbers"),
    "some_prefixed": (
        lambda s: without("head.fc.bias")(s) | {"module.head.fc.bias": s["head.fc.bias"]},
        r"'head\.fc\.bias' is missing",
    ),
    "other_layout": (lambda s: {"conv1.weight": torch.ones(64, 3, 7, 7)}, "its first key is 'conv1.weight'"),
    "empty": (lambda s: {}, "its first key is None, of no known layout"),
}


@pytest.mark.parametrize("name", BAD_STATE_DICTS)
def test_a_state_dict_out_of_layout_is_one_line(name, tmp_path):
    damage, message = BAD_STATE_DICTS[name]
    torch.save({"state_dict": damage(small_resnet())}, tmp_path / "bad.pth")
    with pytest.raises(InputError, match=message) as caught:
        load_checkpoint(tmp_path / "bad.pth")
    line = str(caught.value)
    assert line.startswith(f"{tmp_path / 'bad.pth'}: ")
    assert "expected the published AdvBN layout" in line
    assert "\n" not in line


class Payload:
    """A pickle that leaves a folder behind when it is executed."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    torch.save({"state_dict": small_resnet(), "arch": Payload(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match=r"evil\.pth: ") as caught:
        load_checkpoint(tmp_path / "evil.pth")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["text.pth", "text.safetensors", "empty.pth"])
def test_a_file_that_is_no_checkpoint(name, tmp_path):
    (tmp_path / name).write_text("" if name == "empty.pth" else "not a checkpoint\n")
    with pytest.raises(InputError, match=f"{name}: ") as caught:
        load_checkpoint(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_missing_file_a_folder_and_a_list(tmp_path):
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    for path, message in ((tmp_path / "none.pth", "no such file"), (tmp_path, "no such file")):
        with pytest.raises(InputError, match=message):
            load_checkpoint(path)
    with pytest.raises(InputError, match="holds a list"):
        load_checkpoint(tmp_path / "list.pth")


@pytest.fixture
def convert(monkeypatch):
    """Runs the recipe as a script in this process."""

    def run(*arguments):
        script = Path(__file__).parents[2] / "recipes" / "convert.py"
        monkeypatch.setattr("sys.argv", [str(script), *map(str, arguments)])
        runpy.run_path(str(script), run_name="__main__")

    return run


def test_recipe_writes_a_checkpoint_of_both_branches(convert, published, tmp_path, capsys):
    state, output = small_resnet(depth=34, cut=3), tmp_path / "new" / "checkpoint"
    convert(published(state), output)
    assert "resnet.encoder.stages.2" in capsys.readouterr().out
    names = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    plain = {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert names == plain | {f"auxiliary/{name}" for name in plain} | {"advbn_config.json", "README.md"}
    assert "fine-tuned" not in (output / "README.md").read_text()  # how it was trained is not known

    expected = load_checkpoint(published(state)).state_dict()
    found = AdvBNForImageClassification.from_pretrained(output).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)

    pixels = np.random.default_rng(0).integers(0, 256, (300, 420, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((358, 256), Image.Resampling.BILINEAR).crop((67, 16, 291, 240))
    by_hand = (np.asarray(image) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    for folder in (output, output / "auxiliary"):
        processed = AutoImageProcessor.from_pretrained(folder)(Image.fromarray(pixels), return_tensors="np")
        # torchvision, which processors use where it is installed, rounds some values to the next of the 256.
        np.testing.assert_allclose(processed["pixel_values"][0], by_hand.transpose(2, 0, 1), atol=1 / 255 / 0.22)


def test_recipe_refuses_bad_input_with_one_line(convert, published, tmp_path, capsys):
    used = tmp_path / "used"
    used.mkdir()
    (used / "kept.txt").write_text("mine")
    bad = tmp_path / "bad.pth"
    torch.save({"conv1.weight": torch.ones(64, 3, 7, 7)}, bad)
    for arguments, message in (
        ((published(small_resnet()), used), "OUTPUT_DIR: "),
        ((bad, tmp_path / "new"), "its first key is 'conv1.weight', of no known layout"),
        ((bad,), "required: OUTPUT_DIR"),
    ):
        with pytest.raises(SystemExit) as ended:
            convert(*arguments)
        assert ended.value.code == 2
        stderr = capsys.readouterr().err
        assert stderr.startswith("error: ")
        assert message in stderr
        assert stderr.count("\n") == 1
    assert [path.name for path in used.iterdir()] == ["kept.txt"]
    assert not (tmp_path / "new").exists()
