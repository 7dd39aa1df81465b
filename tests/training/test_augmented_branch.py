"""Each branch learns from its own view of an image, with augmentations that resume exactly."""

import pytest
import torch
import torch.nn.functional as F
from builders import images_and_labels, models_equal, tiny_convnext, tiny_resnet
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage
from transformers import ViTImageProcessorPil

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, AdvBNTrainer, AdvBNTrainingArguments, InputError
from advbn_hf.data.images import ImageDataset, collate
from advbn_hf.data.streaming import StreamedImageDataset
from advbn_hf.data.transforms import TrainingTransform
from advbn_hf.modeling import PlainForImageClassification

PROCESSOR = ViTImageProcessorPil(size={"height": 32, "width": 32})


def wrapped(make=tiny_convnext, **settings):
    return AdvBNForImageClassification.from_backbone(make(), AdvBNConfig(**settings)).train()


@pytest.fixture
def views():
    images, labels = images_and_labels(16)
    return images[:8], images[8:], labels[:8]


def test_the_clean_branch_sees_one_view_and_the_perturbed_one_the_other(views):
    clean, auxiliary, labels = views
    model = wrapped(adversarial_share=1.0)
    model.manual_seed(1)
    output = model(clean, labels, auxiliary_pixel_values=auxiliary)
    alone = wrapped(adversarial_share=1.0)
    alone.manual_seed(1)
    assert torch.allclose(output.auxiliary_logits, alone(auxiliary, labels).auxiliary_logits, atol=1e-5)
    assert torch.allclose(output.logits, model.export("clean")(clean).logits, atol=1e-5)
    losses = [F.cross_entropy(logits, labels) for logits in (output.logits, output.auxiliary_logits)]
    assert torch.allclose(output.loss, sum(losses))
    output.loss.backward()
    assert all(weight.grad is None for weight in model.split.stem_weights)


def test_with_a_share_each_view_gives_its_own_rows(views):
    clean, auxiliary, labels = views
    model = wrapped(adversarial_share=0.5)
    model.manual_seed(1)
    output = model(clean, labels, auxiliary_pixel_values=auxiliary)
    rows = output.adversarial_rows
    alone = wrapped(adversarial_share=1.0)
    alone.manual_seed(1)
    expected = alone(auxiliary[rows], labels[rows]).auxiliary_logits
    assert torch.allclose(output.auxiliary_logits, expected, atol=1e-5)
    assert torch.allclose(output.logits, model.export("clean")(clean[output.clean_rows]).logits, atol=1e-5)


def test_equal_views_are_one_view(views):
    clean, _, labels = views
    models = wrapped(tiny_resnet), wrapped(tiny_resnet)
    outputs = []
    for model, others in zip(models, ({}, {"auxiliary_pixel_values": clean}), strict=True):
        model.manual_seed(0)
        outputs.append(model(clean, labels, **others).loss)
    assert torch.equal(*outputs)
    assert models_equal(*models)


def test_a_plain_model_has_no_branch_for_a_second_view(views):
    clean, auxiliary, labels = views
    model = PlainForImageClassification.from_backbone(tiny_convnext(), AdvBNConfig(auxiliary_norms=False)).train()
    with pytest.raises(InputError, match="auxiliary_pixel_values"):
        model(clean, labels, auxiliary_pixel_values=auxiliary)


@pytest.fixture(scope="module")
def split():
    pixels = torch.randint(0, 256, (16, 40, 40, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b", "c"])})
    columns = {"image": [PILImage.fromarray(image.numpy()) for image in pixels], "label": [n % 3 for n in range(16)]}
    return Dataset.from_dict(columns, features=features).cast_column("image", Image(decode=False))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_run_with_two_views_resumes_bit_for_bit(split, tmp_path, streaming):
    def train(resume=None):
        transform = TrainingTransform(PROCESSOR, "prime", "auxiliary")
        if streaming:
            images = StreamedImageDataset(split.to_iterable_dataset(num_shards=2), transform, seed=1)
        else:
            images = ImageDataset(split, transform, seed=1)
        args = AdvBNTrainingArguments(
            str(tmp_path), max_steps=6, per_device_train_batch_size=4, save_steps=3, use_cpu=True, report_to="none"
        )
        torch.manual_seed(0)
        model = AdvBNForImageClassification.from_backbone(tiny_resnet(num_labels=3), AdvBNConfig())
        trainer = AdvBNTrainer(model, args, train_dataset=images, data_collator=collate)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    straight = train()
    resumed = train(str(tmp_path / "checkpoint-3"))
    assert models_equal(straight.model, resumed.model)
