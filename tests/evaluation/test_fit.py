"""A model and an image processor that do not fit end in one line that names both, before any work."""

import pytest
import torch
from builders import save_images, tiny_resnet, tiny_vit
from PIL import Image
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessorPil

from advbn_hf import AdvBNForImageClassification, InputError, evaluate_suite
from advbn_hf.data.loading import load_images
from advbn_hf.data.transforms import TrainingTransform
from advbn_hf.evaluation.fit import check_fit
from advbn_hf.evaluation.models import EvaluatedModel
from advbn_hf.evaluation.suites import SetEntry, Suite

SQUARE = {"size": {"height": 32, "width": 32}}
CLASSES = ("0", "1", "2", "3", "4")


def evaluated(model, **settings):
    return EvaluatedModel("mine", model, ViTImageProcessorPil(**(SQUARE | settings)))


def grey_resnet():
    return ResNetForImageClassification(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], num_channels=1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Square images and others, one of each kind in every class."""
    folder = tmp_path_factory.mktemp("images")
    save_images(folder / "square" / "validation", CLASSES, per_class=2)
    save_images(folder / "mixed" / "validation", CLASSES, per_class=2)
    for path in sorted((folder / "mixed").rglob("1.png")):
        from_left = (0, 0, 20, 40)
        with Image.open(path) as image:
            image.crop(from_left).save(path)
    return folder


@pytest.fixture(scope="module")
def square(folder):
    return load_images(str(folder / "square"), "validation")


@pytest.fixture(scope="module")
def mixed(folder):
    return load_images(str(folder / "mixed"), "validation")


WRONG = {
    "one channel": (grey_resnet, {}, "num_channels 1"),
    "another size": (tiny_vit, {"size": {"height": 48, "width": 48}}, r"\(3, 48, 48\).*'mine'.*image_size, 32"),
    "no resizing": (tiny_vit, {"do_resize": False}, r"\(3, .*'mine'.*image_size, 32"),
    "one mean": (tiny_resnet, {"image_mean": [0.5], "image_std": [0.5]}, "mean"),
    "four deviations": (tiny_resnet, {"image_std": [0.5] * 4}, "std"),
    "longest_edge": (tiny_resnet, {"size": {"longest_edge": 32}}, "longest_edge"),
}


@pytest.mark.parametrize("model, settings, message", WRONG.values(), ids=WRONG)
def test_parts_that_do_not_fit(model, settings, message, square):
    for sets in ([square], []):
        with pytest.raises(InputError, match=message) as caught:
            check_fit(evaluated(model(), **settings), sets)
        assert "ViTImageProcessorPil" in str(caught.value) and "\n" not in str(caught.value)


def test_a_shorter_edge_fits_square_images_only(square, mixed):
    uncropped = evaluated(tiny_vit(), size={"shortest_edge": 32})
    check_fit(uncropped, [square], batch_size=4)
    with pytest.raises(InputError, match=r"\(3, 64, 32\)"):
        check_fit(uncropped, [square, mixed.select([1])])
    with pytest.raises(InputError, match=r"\(3, 32, 48\)"):  # of an image that anyone may upload
        check_fit(uncropped)


def test_sizes_may_differ_between_batches_alone(mixed):
    uncropped = evaluated(tiny_resnet(), size={"shortest_edge": 32})
    check_fit(uncropped, [mixed], batch_size=1)
    with pytest.raises(InputError, match="different sizes"):
        check_fit(uncropped, [mixed], batch_size=2)


def test_the_training_transform_can_be_checked_too(square):
    processor = ViTImageProcessorPil(size={"height": 48, "width": 48})
    with pytest.raises(InputError, match=r"\(3, 48, 48\)"):
        check_fit(EvaluatedModel("mine", tiny_vit(), processor), [square], 1, TrainingTransform(processor))


def test_images_that_cannot_be_decoded_are_left_to_the_run(tmp_path):
    save_images(tmp_path / "validation", CLASSES, per_class=1)
    for path in (tmp_path / "validation").rglob("*.png"):
        path.write_bytes(b"damaged")
    check_fit(evaluated(tiny_resnet()), [load_images(str(tmp_path), "validation")], batch_size=8)


@pytest.mark.parametrize("training", [False, True])
def test_a_model_stays_as_it_was(square, training):
    model = AdvBNForImageClassification.from_backbone(tiny_resnet()).train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_numbers = torch.get_rng_state()
    check_fit(evaluated(model), [square], batch_size=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_numbers) and model.training == training


def test_the_evaluation_checks_model_and_baseline(folder):
    suite = Suite((SetEntry("clean", str(folder / "square"), split="validation"),))
    fitting, other = evaluated(tiny_resnet()), evaluated(tiny_vit(), size={"height": 48, "width": 48})
    for model, baseline in ((fitting, other), (other, fitting)):
        for part in (model, baseline):
            part.model.config.id2label = dict(enumerate(CLASSES))
        with pytest.raises(InputError, match=r"\(3, 48, 48\)"):
            evaluate_suite(
                model.model,
                suite,
                processor=model.processor,
                baseline=baseline.model,
                baseline_processor=baseline.processor,
            )
