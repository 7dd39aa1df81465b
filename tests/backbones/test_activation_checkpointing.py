"""Activation checkpointing: what is computed again in the backward pass is what was computed."""

import pytest
import torch
from builders import images_and_labels, models_equal, move_auxiliary_norms, rows, tiny_resnet, tiny_vit
from tiny_models import tiny_model

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, AdvBNTrainer, AdvBNTrainingArguments, InputError


def wrap(backbone=None, **settings):
    model = AdvBNForImageClassification.from_backbone(backbone or vit(), AdvBNConfig(**settings))
    model.generator.manual_seed(0)
    move_auxiliary_norms(model)
    return model.train()


def vit():
    """Dropout shows whether random numbers come again as well."""
    return tiny_vit(hidden_dropout_prob=0.1)


def gradients_of(model, **kwargs):
    images, labels = images_and_labels(4)
    torch.manual_seed(0)
    output = model(pixel_values=images, **{"labels": labels, **kwargs})
    (output.logits.square().sum() if output.loss is None else output.loss).backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize(
    "settings",
    [
        {"insert_after": "auto"},
        {"insert_after": "vit.embeddings"},
        {"insert_after": "vit.layers.2"},
        {"insert_after": "vit.layers.1.attention"},  # a checkpointed layer lies on both sides of the cut
        {"insert_after": "vit.layers.1.mlp.fc1", "freeze_stem": False},
        {"insert_after": "vit.layers.1", "freeze_stem": False},
        {"insert_after": "vit.layers.1", "auxiliary_norms": False},
    ],
)
def test_gradients_are_those_without(settings):
    expected = gradients_of(wrap(**settings))
    model = wrap(**settings)
    model.gradient_checkpointing_enable()
    torch.testing.assert_close(gradients_of(model), expected)


@pytest.mark.parametrize("branch", ["clean", "auxiliary", "both"])
def test_gradients_of_a_pass_without_labels(branch):
    expected = gradients_of(wrap(), labels=None, branch=branch)
    model = wrap()
    model.gradient_checkpointing_enable()
    torch.testing.assert_close(gradients_of(model, labels=None, branch=branch), expected)


@pytest.mark.parametrize("kwargs", [None, {"use_reentrant": True}, {"use_reentrant": False}])
def test_it_may_be_switched_on_before_wrapping(kwargs):
    expected = gradients_of(wrap())
    backbone = vit()
    backbone.gradient_checkpointing_enable(kwargs)
    functions = [layer._gradient_checkpointing_func for layer in backbone.vit.layers]
    torch.testing.assert_close(gradients_of(wrap(backbone)), expected)
    assert [layer._gradient_checkpointing_func for layer in backbone.vit.layers] == functions


def test_layers_of_the_tail_run_again_and_those_of_the_stem_do_not():
    model = wrap(insert_after="vit.layers.1", num_steps=0)
    model.gradient_checkpointing_enable()
    runs = [0, 0, 0, 0]

    def count(index):
        runs[index] += 1

    for index, layer in enumerate(model.backbone.vit.layers):
        layer.mlp.fc1.register_forward_hook(lambda *_, index=index: count(index))
    gradients_of(model)
    assert runs == [1, 1, 4, 4]  # two branches, each twice


@pytest.mark.parametrize("name", ["activation_checkpointing_disable", "gradient_checkpointing_disable"])
def test_it_may_be_switched_off_again(name):
    expected = gradients_of(wrap())
    model = wrap()
    model.activation_checkpointing_enable()
    getattr(model, name)()
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    assert not model.backbone.is_gradient_checkpointing
    torch.testing.assert_close(gradients_of(model), expected)


@pytest.mark.parametrize("settings", [{}, {"freeze_stem": False}, {"auxiliary_norms": False}])
def test_running_statistics_are_updated_once(settings):
    expected = wrap(tiny_model("PPLCNetForImageClassification"), **settings)
    model = wrap(tiny_model("PPLCNetForImageClassification"), **settings)
    model.gradient_checkpointing_enable()
    torch.testing.assert_close(gradients_of(model), gradients_of(expected))
    assert models_equal(model, expected)


def test_trainer_switches_it_on(tmp_path):
    trained = []
    for checkpointing in (False, True):
        args = AdvBNTrainingArguments(
            tmp_path,
            max_steps=2,
            gradient_checkpointing=checkpointing,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
        )
        trainer = AdvBNTrainer(wrap(), args, train_dataset=rows(8))
        trainer.train()
        assert trainer.model.backbone.is_gradient_checkpointing == checkpointing
        trained.append(dict(trainer.model.named_parameters()))
    torch.testing.assert_close(*trained)


def test_a_model_that_does_not_support_it_is_said_in_one_line():
    with pytest.raises(InputError, match="gradient_checkpointing: ResNetForImageClassification"):
        wrap(tiny_resnet()).gradient_checkpointing_enable()
