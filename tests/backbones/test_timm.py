"""timm's models through Transformers' wrapper, where timm is installed (conftest makes its torchvision import)."""

import json
import sys

import finetune
import numpy as np
import pytest
import torch
from builders import models_equal
from PIL import Image
from safetensors.torch import save_file
from test_architectures import (
    assert_branches_come_back,
    assert_gradients_in_the_tail_alone,
    reached_by_backward,
    train_step,
    wrap,
)
from tiny_models import settle
from transformers import AutoModelForImageClassification, TimmWrapperConfig
from transformers.utils import is_timm_available

from advbn_hf import AdvBNForImageClassification, InputError
from advbn_hf.backbones.loading import load_classifier, load_processor
from advbn_hf.backbones.norms import two_branch_norms, using_branch
from advbn_hf.backbones.split import Split
from advbn_hf.data.transforms import EvaluationTransform, TrainingTransform
from advbn_hf.utils.cli import run

with_timm = pytest.mark.skipif(not is_timm_available(), reason='timm is missing: pip install "advbn_hf[timm]"')

# Architecture: its tiny settings for 64 x 64 images, where "embeddings" and "auto" cut, whether the features of the
# former are rectified.
MODELS = {
    "densenet121": ({"growth_rate": 4, "block_config": [2, 2, 2, 2]}, "features.pool0", "features.denseblock1", True),
    "test_resnet": ({}, "maxpool", "layer1", True),
    "test_vit": ({"img_size": 64}, "patch_embed", "blocks.1", False),
    "test_convnext": ({}, "stem", "stages.0", False),
    "test_efficientnet": ({}, "blocks.1", "blocks.1", False),
}


def timm_model(architecture, settings=None, **config):
    from transformers import TimmWrapperForImageClassification

    torch.manual_seed(0)
    config = TimmWrapperConfig(architecture=architecture, model_args=settings, num_labels=5, **config)
    return TimmWrapperForImageClassification(config).eval()


def tiny_timm(architecture):
    model = timm_model(architecture, MODELS[architecture][0], image_size=64)
    settle(model)
    return model.eval()


@with_timm
@pytest.mark.parametrize("architecture", MODELS)
def test_timm_model(architecture, tmp_path):
    _, embeddings, auto, rectified = MODELS[architecture]
    assert Split(tiny_timm(architecture), "auto").insert_after == f"timm_model.{auto}"
    model = wrap(tiny_timm(architecture))
    assert model.advbn_config.insert_after == f"timm_model.{embeddings}"
    assert model.split.rectified == rectified
    output, gradients = train_step(model)
    assert output.loss.isfinite()
    assert output.ascent_gain > 0
    assert_gradients_in_the_tail_alone(model, gradients, reached_by_backward(tiny_timm(architecture)))
    assert_branches_come_back(model, tmp_path)


@with_timm
def test_densenet121_is_cut_where_it_is_published_and_before_its_first_stage():
    model = timm_model("densenet121")
    published = Split(model, "timm_model.features.transition1")
    assert not published.rectified
    images = torch.zeros(1, 3, 224, 224)
    with torch.no_grad():
        assert published.stem(pixel_values=images).features.shape == (1, 128, 28, 28)
        wrapped = AdvBNForImageClassification.from_backbone(model)
        assert wrapped.split.stem(pixel_values=images).features.shape == (1, 64, 56, 56)
    # 1 + 2 * 58 + 3 + 1 norms, of which the first lies in the stem
    assert len(two_branch_norms(wrapped)) == 121 - 1


@with_timm
def test_norms_that_activate_do_so_in_both_branches():
    model = wrap(tiny_timm("densenet121"))
    norms = two_branch_norms(model)
    assert norms
    for norm in norms.values():
        features = torch.randn(2, norm.num_features, 3, 3)
        for branch in ("clean", "auxiliary"):
            one = getattr(norm, branch)
            mean, deviation = one.running_mean[:, None, None], (one.running_var + one.eps).sqrt()[:, None, None]
            plain = (features - mean) / deviation * one.weight[:, None, None] + one.bias[:, None, None]
            with using_branch(branch):
                torch.testing.assert_close(norm(features), plain.clamp(min=0), atol=1e-5, rtol=1e-4)
            assert (plain < 0).any()


@with_timm
def test_the_size_of_images_is_timm_s_where_no_other_is_named():
    model = AdvBNForImageClassification.from_backbone(timm_model("test_vit"))  # for images of 160 x 160 alone
    assert model(torch.zeros(1, 3, 160, 160)).logits.shape == (1, 5)


@with_timm
def test_checkpointing_that_forgets_the_branch_is_refused():
    model = wrap(tiny_timm("test_vit"))
    with pytest.raises(InputError, match="gradient_checkpointing: TimmWrapperForImageClassification ") as raised:
        model.gradient_checkpointing_enable()
    assert "\n" not in str(raised.value)
    assert not model.backbone.timm_model.grad_checkpointing


@pytest.fixture
def timm_folder(tmp_path):
    """A checkpoint as timm's are on the Hub: images' size, mean and deviation stand in config.json."""
    folder = tmp_path / "model"
    model = timm_model("test_resnet")
    mean, std = [0.2, 0.4, 0.6], [0.1, 0.2, 0.3]
    model.config.pretrained_cfg = {"input_size": [3, 32, 32], "crop_pct": 0.9, "mean": mean, "std": std}
    model.save_pretrained(folder)
    return folder


@with_timm
def test_training_transform_of_a_processor_without_options(timm_folder):
    processor = load_processor(timm_folder)
    colour = (10, 200, 90)
    inputs = TrainingTransform(processor)(Image.new("RGB", (70, 50), colour))
    expected = (torch.tensor(colour) / 255 - torch.tensor([0.2, 0.4, 0.6])) / torch.tensor([0.1, 0.2, 0.3])
    torch.testing.assert_close(inputs, expected[:, None, None].expand(3, 32, 32))
    torch.testing.assert_close(inputs, EvaluationTransform(processor)(Image.new("RGB", (70, 50), colour)))


@with_timm
def test_recipe_on_a_timm_model(timm_folder, tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    for split in ("train", "validation"):
        for name in "abcde":
            (tmp_path / "data" / split / name).mkdir(parents=True)
            image = Image.fromarray(random.integers(0, 255, (40, 50, 3), dtype=np.uint8))
            image.save(tmp_path / "data" / split / name / "0.png")
    options = {"model_name_or_path": timm_folder, "dataset_name": tmp_path / "data", "output_dir": tmp_path / "run"}
    options |= {"max_steps": 1, "per_device_train_batch_size": 4, "report_to": "none", "use_cpu": "true"}
    arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    monkeypatch.setattr(sys, "argv", ["finetune.py", *arguments])
    run(finetune.main)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["label_names"] == list("abcde")
    model = AdvBNForImageClassification.from_pretrained(tmp_path / "run")
    auxiliary = AutoModelForImageClassification.from_pretrained(tmp_path / "run", subfolder="auxiliary")
    assert models_equal(model.export("auxiliary"), auxiliary)


@pytest.mark.skipif(is_timm_available(), reason="timm is there")
def test_missing_timm_is_said_in_one_line(tmp_path):
    config = {"model_type": "timm_wrapper", "architecture": "resnet18", "num_classes": 5, "label_names": list("abcde")}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"fc.bias": torch.zeros(5)}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r'it needs timm, by pip install "advbn_hf\[timm\]"$') as raised:
        load_classifier(tmp_path)
    assert "\n" not in str(raised.value)
