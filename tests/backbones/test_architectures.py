"""Every image classifier of Transformers that takes images, on a tiny model of each class."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from builders import images_and_labels, models_equal, move_auxiliary_norms
from tiny_models import IMAGE_SIZE, NUM_LABELS, image_classifiers, tiny_model
from transformers import AutoModelForImageClassification, PreTrainedModel

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, InputError
from advbn_hf.backbones.activation_checkpointing import can_recompute
from advbn_hf.backbones.model_outputs import logits_of
from advbn_hf.backbones.norms import two_branch_norms
from advbn_hf.method.losses import AdvBNOutput

PICTURES, LABELS = images_and_labels(8, NUM_LABELS, IMAGE_SIZE)
SMALL_STEP = AdvBNConfig(epsilon=0.5, step_size=1e-4, num_steps=1)  # a sign step is sure to climb where it is small
CLASSES = list(image_classifiers())  # as Transformers has them, before another test registers one of its own
outcomes: dict[str, str] = {}


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_image_classifier(name: str, tmp_path: Path) -> None:
    try:
        model = wrap(tiny_model(name))
    except (ImportError, InputError) as error:
        outcomes[name] = str(error).strip().splitlines()[0]
        assert isinstance(error, ImportError) or "\n" not in str(error)
        pytest.skip(outcomes[name])

    output, gradients = train_step(model)
    assert output.loss.isfinite()
    assert output.ascent_gain > 0
    assert_gradients_in_the_tail_alone(model, gradients, reached_by_backward(tiny_model(name)))
    assert_checkpointing_gives(output, gradients, model, wrap(tiny_model(name)))

    output, half_gradients = train_step(wrap(tiny_model(name)), half_precision=True)
    assert output.loss.isfinite()
    assert half_gradients.keys() == gradients.keys()
    assert all(gradient.isfinite().all() for gradient in half_gradients.values())

    assert_branches_come_back(model, tmp_path)
    outcomes[name] = "ran"


def test_no_class_is_left_out_silently():
    if outcomes.keys() != set(CLASSES):
        pytest.skip("counts only where every class was tried")
    assert sum(outcome == "ran" for outcome in outcomes.values()) >= 41


@pytest.mark.parametrize("name", CLASSES)
def test_image_classifier_at_the_published_place(name: str) -> None:
    try:
        wrap(tiny_model(name))
    except (ImportError, InputError) as error:
        pytest.skip(str(error).strip().splitlines()[0])  # counted above
    model = wrap(tiny_model(name), insert_after="auto")
    output, gradients = train_step(model)
    assert output.loss.isfinite()
    assert output.ascent_gain > 0
    assert_gradients_in_the_tail_alone(model, gradients, reached_by_backward(tiny_model(name)))


def wrap(backbone: PreTrainedModel, **settings: str) -> AdvBNForImageClassification:
    model = AdvBNForImageClassification.from_backbone(backbone, dataclasses.replace(SMALL_STEP, **settings))
    model.generator.manual_seed(0)
    move_auxiliary_norms(model)
    return model


def train_step(
    model: AdvBNForImageClassification, half_precision: bool = False
) -> tuple[AdvBNOutput, dict[str, torch.Tensor]]:
    """The output in train mode, and the gradients that it gives by parameter name."""
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16, enabled=half_precision):
        output = model.train()(pixel_values=PICTURES, labels=LABELS, measure_ascent=True)
    output.loss.backward()
    return output, {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def reached_by_backward(backbone: PreTrainedModel) -> set[str]:
    """Names of the parameters that get a gradient where the whole model is trained plainly."""
    torch.nn.functional.cross_entropy(logits_of(backbone.train()(pixel_values=PICTURES)), LABELS).backward()
    return {name for name, weight in backbone.named_parameters() if weight.grad is not None}


def assert_gradients_in_the_tail_alone(model, gradients, reached):
    stem = {id(weight) for weight in model.split.stem_weights}
    assert not any(weight.requires_grad for weight in model.split.stem_weights)
    for name, weight in model.backbone.named_parameters():
        plain_name = name.replace(".clean.", ".").replace(".auxiliary.", ".")
        assert (f"backbone.{name}" in gradients) == (id(weight) not in stem and plain_name in reached), name
    assert stem or not [*model.split.stem_modules[-1].parameters()]  # Perceiver's Fourier features have no weights
    assert gradients
    assert two_branch_norms(model)


def assert_checkpointing_gives(output, gradients, model, checkpointed):
    """That a checkpointed model of the same weights gives the same output, gradients and running statistics."""
    if not (model.backbone.supports_gradient_checkpointing and can_recompute(model.backbone)):
        with pytest.raises(InputError, match=r"gradient_checkpointing: .* (does not support|has its own)"):
            checkpointed.gradient_checkpointing_enable()
        return
    checkpointed.gradient_checkpointing_enable()
    other_output, other_gradients = train_step(checkpointed)
    assert torch.equal(output.loss, other_output.loss)
    torch.testing.assert_close(other_gradients, gradients)
    assert models_equal(checkpointed, model)


def assert_branches_come_back(model, folder):
    with torch.no_grad():
        for weight in model.parameters():
            if weight.grad is not None:
                weight -= 0.01 * weight.grad.sign()  # whatever the scale of a tiny network's gradients
        expected = {branch: model.eval()(PICTURES, branch=branch).logits for branch in ("clean", "auxiliary")}
    assert not torch.equal(expected["clean"], expected["auxiliary"])
    model.save_pretrained(folder)
    assert models_equal(AdvBNForImageClassification.from_pretrained(folder), model)
    for branch, subfolder in (("clean", ""), ("auxiliary", "auxiliary")):
        plain = AutoModelForImageClassification.from_pretrained(folder, subfolder=subfolder)
        assert type(plain) is type(model.backbone)
        plain = copy.deepcopy(plain)  # where weights lie unaligned in a mapped file, the last bit of some sums changes
        with torch.no_grad():
            assert torch.equal(logits_of(plain(pixel_values=PICTURES)), expected[branch])
            assert torch.equal(logits_of(model.export(branch)(pixel_values=PICTURES)), expected[branch])
