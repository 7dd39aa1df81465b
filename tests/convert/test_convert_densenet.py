"""The published layout of AdvBN DenseNets, against the network that it describes, written out by hand."""

import convert as recipe
import pytest
import torch
import torch.nn.functional as F
from builders import models_equal
from reference_formula import formula_tensor
from transformers import AutoModelForImageClassification
from transformers.utils import is_timm_available

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, InputError
from advbn_hf.convert.published_densenet import convert, recognises

with_timm = pytest.mark.skipif(not is_timm_available(), reason='timm is missing: pip install "advbn_hf[timm]"')

DEPTHS, GROWTH, CLASSES = (2, 1, 2, 2), 4, 7
PICTURES = formula_tensor("pixel_values", (3, 3, 64, 64))


def published(cut, depths=DEPTHS, growth=GROWTH, classes=CLASSES):
    """A state dict in the layout."""
    shapes = {}

    def norm(prefix, name, channels, branches=("clean_", "adv_")):
        for branch in branches:
            for vector in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{prefix}.{branch}{name}.{vector}"] = (channels,)
            shapes[f"{prefix}.{branch}{name}.num_batches_tracked"] = ()

    channels = 2 * growth
    shapes["feature_x.conv0.weight"] = (channels, 3, 7, 7)
    norm("feature_x", "norm0", channels, branches=("",))
    for block, depth in enumerate(depths):
        part, number = ("feature_x", block + 1) if block < cut else ("head", block + 1 - cut)
        for layer in range(depth):
            prefix = f"{part}.denseblock{number}.denselayer{layer + 1}"
            if (block, layer) != (cut, 0):
                norm(prefix, "norm1", channels)
            shapes[f"{prefix}.conv1.weight"] = (4 * growth, channels, 1, 1)
            norm(prefix, "norm2", 4 * growth)
            shapes[f"{prefix}.conv2.weight"] = (growth, 4 * growth, 3, 3)
            channels += growth
        if block + 1 < len(depths):
            norm(f"{part}.transition{number}", "norm", channels)
            shapes[f"{part}.transition{number}.conv.weight"] = (channels // 2, channels, 1, 1)
            channels //= 2
    norm("head", "norm5", channels)
    shapes |= {"head.classifier.weight": (classes, channels), "head.classifier.bias": (classes,)}
    return {name: formula_tensor(name, shape) for name, shape in shapes.items()}


def logits_of(weights, branch, cut, depths=DEPTHS):
    """What the layout's network makes of the images in eval mode; its stem runs through its clean norms."""

    def norm(features, name):
        values = [weights[f"{name}.{vector}"] for vector in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(features, *values)

    features = F.conv2d(PICTURES, weights["feature_x.conv0.weight"], stride=2, padding=3)
    features = F.max_pool2d(F.relu(norm(features, "feature_x.norm0")), 3, 2, 1)
    for block, depth in enumerate(depths):
        part, number, tag = ("feature_x", block + 1, "clean") if block < cut else ("head", block + 1 - cut, branch)
        for layer in range(depth):
            prefix = f"{part}.denseblock{number}.denselayer{layer + 1}"
            name = f"{prefix}.{tag}_norm1"
            inner = F.relu(norm(features, name) if f"{name}.weight" in weights else features)
            inner = F.conv2d(inner, weights[f"{prefix}.conv1.weight"])
            inner = F.relu(norm(inner, f"{prefix}.{tag}_norm2"))
            features = torch.cat([features, F.conv2d(inner, weights[f"{prefix}.conv2.weight"], padding=1)], dim=1)
        if block + 1 < len(depths):
            features = F.relu(norm(features, f"{part}.transition{number}.{tag}_norm"))
            features = F.avg_pool2d(F.conv2d(features, weights[f"{part}.transition{number}.conv.weight"]), 2)
    features = F.relu(norm(features, f"head.{branch}_norm5")).mean(dim=(2, 3))
    return F.linear(features, weights["head.classifier.weight"], weights["head.classifier.bias"])


@with_timm
@pytest.mark.parametrize("cut", [1, 2, 3])
@torch.no_grad()
def test_both_branches_compute_what_the_layout_describes(cut, tmp_path):
    weights = published(cut)
    before = {key: value.clone() for key, value in weights.items()}
    clean, auxiliary, config = convert(weights)
    assert all(torch.equal(value, before[key]) for key, value in weights.items())
    assert config == AdvBNConfig(
        **{**AdvBNConfig.paper().to_dict(), "insert_after": f"timm_model.features.transition{cut}"}
    )
    expected = {"clean": logits_of(weights, "clean", cut), "adv": logits_of(weights, "adv", cut)}
    torch.testing.assert_close(clean(PICTURES).logits, expected["clean"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(auxiliary(PICTURES).logits, expected["adv"], atol=1e-4, rtol=1e-4)
    assert (expected["clean"] - expected["adv"]).abs().max() > 0.1

    model = AdvBNForImageClassification.from_branches(clean, auxiliary, config).eval()
    assert not model.split.rectified
    torch.testing.assert_close(model(PICTURES, branch="both").auxiliary_logits, expected["adv"], atol=1e-4, rtol=1e-4)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path, subfolder="auxiliary")
    assert models_equal(loaded, auxiliary)


@with_timm
def test_the_recipe_says_what_it_wrote(tmp_path, monkeypatch, capsys):
    torch.save(published(1), tmp_path / "densenet.pth")
    monkeypatch.setattr("sys.argv", ["convert.py", str(tmp_path / "densenet.pth"), str(tmp_path / "out")])
    recipe.main()
    said = capsys.readouterr().out
    assert "TimmWrapperForImageClassification" in said
    assert "7 classes, perturbed after timm_model.features.transition1" in said
    assert AutoModelForImageClassification.from_pretrained(tmp_path / "out", subfolder="auxiliary").num_labels == 7


@with_timm
def test_densenet121_has_its_own_size():
    weights = published(1, depths=(6, 12, 24, 16), growth=32, classes=1000)
    clean, _, _ = convert(weights)
    assert sum(weight.numel() for weight in clean.parameters()) == 7_978_856


@with_timm
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("feature_x.norm0.bias"), r"key 'feature_x\.norm0\.bias' is missing"),
        (lambda w: w.pop("feature_x.transition1.adv_norm.weight"), "transition1.adv_norm.weight' is missing"),
        (lambda w: w.pop("head.classifier.weight"), "head.classifier.weight' is missing"),
        (lambda w: w.update({"head.extra": torch.zeros(1)}), r"key 'head\.extra' is unexpected"),
        (lambda w: w.update({"head.classifier.bias": torch.zeros(3)}), r"has shape \(3,\) and should have \(7,\)"),
        (
            lambda w: w.update({"head.classifier.weight": torch.zeros(3)}),
            r"classifier.weight' has shape \(3,\)",
        ),
        (lambda w: [w.pop(key) for key in list(w) if "feature_x.denseblock" in key], "no dense layers before the cut"),
        (lambda w: [w.pop(key) for key in list(w) if "head.denseblock" in key], "no dense layers behind the cut"),
    ],
)
def test_what_is_not_in_the_layout_is_said_in_one_line(change, message):
    weights = published(1)
    change(weights)
    with pytest.raises(InputError, match=message) as raised:
        convert(weights)
    assert "\n" not in str(raised.value)


def test_which_files_are_meant():
    assert recognises(published(1))
    assert not recognises({"head.fc.weight": torch.zeros(2, 2), "feature_x.0.weight": torch.zeros(2, 2)})
    assert not recognises({"features.denseblock1.denselayer1.norm1.weight": torch.zeros(2)})


@pytest.mark.skipif(is_timm_available(), reason="timm is there")
def test_missing_timm_is_said_in_one_line():
    with pytest.raises(InputError, match=r'^a DenseNet needs timm, by pip install "advbn_hf\[timm\]"$'):
        convert(published(1))
