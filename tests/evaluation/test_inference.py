"""The evaluation loop against an independent computation, and predictions kept on disk."""

import pytest
import torch
from accelerate import Accelerator
from builders import save_images, tiny_resnet
from transformers import ViTImageProcessorPil

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, InputError
from advbn_hf.backbones.norms import two_branch_norms
from advbn_hf.data.images import BadImages, ImageDataset
from advbn_hf.data.loading import load_images
from advbn_hf.data.transforms import EvaluationTransform
from advbn_hf.evaluation.inference import branch_logits, predict
from advbn_hf.evaluation.labels import LabelMatch
from advbn_hf.evaluation.predictions import Predictions

CLASSES = ["ant", "bee", "cat", "dog", "eel"]
TRANSFORM = EvaluationTransform(ViTImageProcessorPil(size={"height": 32, "width": 32}))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    save_images(folder / "validation", CLASSES, per_class=5)
    return load_images(str(folder), "validation")


@pytest.fixture(scope="module")
def branched():
    model = AdvBNForImageClassification.from_backbone(tiny_resnet()).eval()
    for norm in two_branch_norms(model.backbone).values():
        torch.nn.init.normal_(norm.auxiliary.weight, 1, 0.5)
    return model


def run(model, rows, bad_images=None, **settings):
    images = ImageDataset(rows, TRANSFORM, bad_images)
    return predict(model, images, accelerator=Accelerator(), description="", **{"batch_size": 7} | settings)


def probabilities(model, rows):
    images = ImageDataset(rows, TRANSFORM)
    with torch.no_grad():
        return model(pixel_values=torch.stack([row["pixel_values"] for row in images])).logits.softmax(dim=1)


def test_both_branches_and_their_mean_as_exported(branched, rows):
    predictions = run(branched, rows)
    wanted = {name: probabilities(branched.export(name), rows) for name in ("clean", "auxiliary")}
    wanted["mean"] = (wanted["clean"] + wanted["auxiliary"]) / 2
    assert list(predictions.by_column) == ["clean", "auxiliary", "mean"]
    assert predictions.rows.tolist() == list(range(25))
    assert predictions.labels.tolist() == rows["label"]
    for name, expected in wanted.items():
        values, order = expected.sort(dim=1, descending=True)
        assert predictions.by_column[name].classes.tolist() == order.tolist()
        torch.testing.assert_close(predictions.by_column[name].confidence, values[:, 0])


def test_a_model_keeps_its_mode(branched, rows):
    modes = [module.training for module in branched.train().modules()]
    run(branched, rows)
    assert [module.training for module in branched.modules()] == modes
    branched.eval()


def test_the_stem_runs_once_for_both_branches(branched, rows):
    calls = []
    first = branched.backbone.resnet.embedder.embedder.convolution
    handle = first.register_forward_hook(lambda *_: calls.append(1))
    run(branched, rows, batch_size=25)
    handle.remove()
    assert len(calls) == 1


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_plain_model_on_a_part_of_its_classes(rows, num_workers):
    model = tiny_resnet(num_labels=8).eval()
    match = LabelMatch((7, 2, 5, 0, 3), 8)
    predictions = run(model, rows, match=match, num_workers=num_workers)
    with torch.no_grad():
        logits = model(pixel_values=torch.stack([row["pixel_values"] for row in ImageDataset(rows, TRANSFORM)])).logits
    expected = logits[:, [7, 2, 5, 0, 3]].softmax(dim=1)
    assert predictions.by_column["plain"].classes[:, 0].tolist() == expected.argmax(dim=1).tolist()
    torch.testing.assert_close(predictions.by_column["plain"].confidence, expected.max(dim=1).values)
    assert predictions.correct("plain", 5).all()
    right = [label == guess for label, guess in zip(rows["label"], expected.argmax(dim=1).tolist(), strict=True)]
    assert predictions.correct("plain").tolist() == right


def test_images_that_cannot_be_decoded(rows, tmp_path):
    images = [row["image"] for row in rows]
    for index in (3, 4, 5):
        images[index] = {"bytes": b"no image", "path": f"{index}.png"}
    broken = rows.remove_columns("image").add_column("image", images, feature=rows.features["image"])
    model = tiny_resnet()
    with pytest.raises(InputError, match=r"row 3 \(3.png\)"):
        run(model, broken, batch_size=3)
    log = BadImages(tmp_path / "bad.jsonl")
    predictions = run(model, broken, log, batch_size=3)  # the second batch is empty
    assert predictions.rows.tolist() == [0, 1, 2, *range(6, 25)]
    assert log.summary() == [f"validation row {index} ({index}.png)" for index in (3, 4, 5)]
    with pytest.raises(InputError, match="decoded"):
        run(model, broken.select([3, 4]), log)


def test_predictions_on_disk(branched, rows, tmp_path):
    predictions = run(branched, rows)
    predictions.save(tmp_path / "x.safetensors")
    loaded = Predictions.load(tmp_path / "x.safetensors")
    assert list(loaded.by_column) == list(predictions.by_column)
    assert torch.equal(loaded.rows, predictions.rows) and torch.equal(loaded.labels, predictions.labels)
    for name, top in predictions.by_column.items():
        assert torch.equal(loaded.by_column[name].classes, top.classes)
        assert torch.equal(loaded.by_column[name].confidence, top.confidence)
    assert Predictions.load(tmp_path / "other.safetensors") is None
    (tmp_path / "x.safetensors").write_bytes(b"broken off")
    assert Predictions.load(tmp_path / "x.safetensors") is None


@torch.no_grad()
def test_logits_of_every_branch_that_there_is(branched):
    images = torch.rand(3, 3, 32, 32)
    logits = branch_logits(branched, images)
    assert list(logits) == ["clean", "auxiliary"]
    for branch, values in logits.items():
        torch.testing.assert_close(values, branched.export(branch)(pixel_values=images).logits)
    one = AdvBNForImageClassification.from_backbone(tiny_resnet(), AdvBNConfig(auxiliary_norms=False)).eval()
    for model in (one, one.export()):
        assert torch.equal(branch_logits(model, images)["plain"], one(pixel_values=images).logits)
        assert len(branch_logits(model, images)) == 1
