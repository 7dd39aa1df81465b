"""What people do with a model: copies, other formats and types, odd batches, gradients by images, export by torch."""

import copy
import io
import pickle

import pytest
import torch
from builders import images_and_labels, models_equal, move_auxiliary_norms, rows, tiny_convnext, tiny_resnet, tiny_vit
from parity import arguments, wrap
from PIL import Image
from torch.optim.swa_utils import AveragedModel
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessorPil, pipeline

from advbn_hf import AdvBNTrainer, InputError

MODELS = {"resnet": tiny_resnet, "convnext": tiny_convnext, "vit": tiny_vit}
IMAGES, LABELS = images_and_labels(4)


@pytest.fixture(params=MODELS)
def model(request):
    """A model with unlike branches."""
    wrapped = wrap(MODELS[request.param]())
    move_auxiliary_norms(wrapped)
    return wrapped.eval()


def loss_of(model, images=IMAGES, labels=LABELS):
    model.train().manual_seed(7)
    return model(images, labels).loss


def saved_by_torch(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one)), saved_by_torch])
def test_a_copy_trains_as_the_model_does(duplicate, model):
    other = duplicate(model)
    assert models_equal(other, model)
    assert torch.equal(loss_of(other), loss_of(model))
    loss_of(other).backward()
    assert all(weight.grad is None for weight in model.parameters())


def test_an_average_of_weights(model):
    average = AveragedModel(model)
    average.update_parameters(model)
    torch.testing.assert_close(average(IMAGES, branch="auxiliary").logits, model(IMAGES, branch="auxiliary").logits)


def test_channels_last(model):
    expected = loss_of(copy.deepcopy(model))
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    torch.testing.assert_close(loss_of(other, IMAGES.to(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-4), (torch.bfloat16, 0.1)])
def test_weights_of_another_type(dtype, tolerance, model):
    expected = loss_of(copy.deepcopy(model))
    model.to(dtype)
    loss = loss_of(model, IMAGES.to(dtype))
    assert loss.item() == pytest.approx(expected.item(), rel=tolerance)
    loss.backward()
    assert all(weight.grad.dtype == dtype for weight in model.parameters() if weight.grad is not None)


def test_grey_images_that_are_not_square():
    torch.manual_seed(0)
    config = ResNetConfig(num_channels=1, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=5)
    model = wrap(ResNetForImageClassification(config))
    images = torch.randn(4, 1, 48, 32)
    loss_of(model, images).backward()
    assert model.eval()(images, branch="both").auxiliary_logits.shape == (4, 5)


def test_labels_that_do_not_count():
    """-100, as in Transformers: the loss is that of the other images."""
    model = wrap(tiny_convnext(), adversarial_share=1.0)
    labels = LABELS.clone()
    labels[2:] = -100
    loss = loss_of(model, IMAGES, labels)
    torch.testing.assert_close(loss, loss_of(model, IMAGES[:2], LABELS[:2]))


def test_an_image_alone():
    model = wrap(tiny_convnext(), adversarial_share=1.0).train()
    alone = [model(IMAGES[place : place + 1], LABELS[place : place + 1]) for place in range(4)]
    together = model(IMAGES, LABELS)
    torch.testing.assert_close(torch.cat([one.logits for one in alone]), together.logits)
    assert sum(one.clean_loss.item() for one in alone) / 4 == pytest.approx(together.clean_loss.item(), rel=1e-4)
    assert all(one.adversarial_loss.isfinite() for one in alone)


@pytest.mark.parametrize("branch", ["clean", "auxiliary"])
def test_gradients_by_the_images_are_those_of_what_is_exported(branch, model):
    gradients = []
    for loss in (
        lambda x: model(x, LABELS, branch=branch).loss,
        lambda x: model.export(branch)(x, labels=LABELS).loss,
    ):
        images = IMAGES.clone().requires_grad_()
        loss(images).backward()
        gradients.append(images.grad)
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().sum() > 0


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_what_is_exported_is_exported_and_traced_by_torch(model):
    plain = model.export("auxiliary")
    expected = model(IMAGES, branch="auxiliary").logits
    for again in (torch.export.export(plain, (IMAGES,)).module(), torch.jit.trace(plain, IMAGES, strict=False)):
        torch.testing.assert_close(again(IMAGES)["logits"], expected, rtol=1e-4, atol=1e-4)


def test_pipelines_from_any_folder_of_a_run(tmp_path):
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    settings = arguments(tmp_path, max_steps=1, save_strategy="steps", save_steps=1)
    trainer = AdvBNTrainer(wrap(), settings, train_dataset=rows(8), processing_class=processor)
    trainer.train()
    trainer.save_model()
    image = Image.effect_noise((32, 32), 90).convert("RGB")
    pixels = processor(image, return_tensors="pt").pixel_values
    for branch, folder in (("clean", ""), ("auxiliary", "auxiliary")):
        expected = trainer.model.eval()(pixels, branch=branch).logits.softmax(-1).max().item()
        for place in (tmp_path / folder, tmp_path / "checkpoint-1" / folder):
            found = pipeline("image-classification", str(place), device="cpu")(image)
            assert found[0]["score"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("branch", ["auxiliary", "both"])
def test_a_branch_is_not_named_in_training(branch, model):
    with pytest.raises(InputError, match="branch"):
        model.train()(IMAGES, LABELS, branch=branch)
    assert model(IMAGES, branch=branch).logits is not None
