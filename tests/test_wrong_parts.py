"""Models and arguments of another kind than advbn_hf's end in one line that names them."""

import warnings

import pytest
import torch
from builders import rows, tiny_resnet, tiny_vit
from torch import nn
from trainers import ROWS, trainer_of
from transformers import TrainingArguments, ViTImageProcessorPil

from advbn_hf import AdvBNForImageClassification, AdvBNTrainer, AdvBNTrainingArguments, InputError, evaluate_suite
from advbn_hf.evaluation.models import EvaluatedModel

wrap = AdvBNForImageClassification.from_backbone
QUIET = {"report_to": "none", "use_cpu": True, "save_strategy": "no", "max_steps": 2}


def quantised():
    with warnings.catch_warnings(action="ignore"):  # torch recommends another package
        return torch.ao.quantization.quantize_dynamic(tiny_vit(), {nn.Linear}, dtype=torch.qint8)


def of_problem(problem_type):
    model = tiny_resnet()
    model.config.problem_type = problem_type
    return model


@pytest.mark.parametrize("classifier, field", [
    (lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), "backbone.* Sequential"),
    (lambda: tiny_resnet().resnet, "logits"),
    (lambda: tiny_resnet(num_labels=1), "num_labels is 1"),
    (lambda: of_problem("regression"), "problem_type is regression"),
    (quantised, "backbone.* quantised"),
])  # fmt: skip
def test_what_cannot_be_wrapped(classifier, field):
    with pytest.raises(InputError, match=field):
        wrap(classifier())


def test_a_model_that_transformers_has_quantised():
    model = tiny_resnet()
    model.is_quantized = True  # as its quantisers note
    with pytest.raises(InputError, match="quantised"):
        wrap(model)


@pytest.mark.parametrize("model, field", [
    (of_problem("multi_label_classification"), "problem_type"),
    (tiny_resnet(num_labels=1), "num_labels"),
])  # fmt: skip
def test_only_classifiers_of_one_label_are_evaluated(model, field, tmp_path):
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    with pytest.raises(InputError, match=field):
        EvaluatedModel("model", model, processor)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=field):
        evaluate_suite(tmp_path, "embedded", sets=["clean"])


def test_peft_is_told_to_adapt_the_backbone():
    peft = pytest.importorskip("peft")
    with pytest.raises(InputError, match="backbone"):
        peft.get_peft_model(wrap(tiny_vit()), peft.LoraConfig(r=2, target_modules="all-linear"))


def test_what_others_ask_for_carefully_is_just_missing():
    model = wrap(tiny_resnet())
    assert not hasattr(model, "base_model_prefix")
    assert getattr(model, "base_model_prefix", "") == ""  # as Accelerate asks under FSDP


def test_arguments_of_transformers(tmp_path):
    with pytest.raises(InputError, match=r"args.* AdvBNTrainingArguments"):
        AdvBNTrainer(wrap(tiny_resnet()), TrainingArguments(str(tmp_path), **QUIET), train_dataset=ROWS)


def test_a_classifier_that_is_not_wrapped(tmp_path):
    with pytest.raises(InputError, match=r"model.* ResNetForImageClassification"):
        AdvBNTrainer(tiny_resnet(), AdvBNTrainingArguments(str(tmp_path), **QUIET), train_dataset=ROWS)


def test_a_model_without_weights_to_train_can_only_be_evaluated(tmp_path):
    trainer = trainer_of(tmp_path, model=tiny_resnet().requires_grad_(False), data=rows(8))
    with pytest.raises(InputError, match="frozen"):
        trainer.train()
    assert "eval_clean_accuracy" in trainer.evaluate()


@pytest.mark.parametrize("option, value", [
    ("seed", -1),
    ("per_device_train_batch_size", 0),
    ("per_device_eval_batch_size", 0),
    ("gradient_accumulation_steps", 0),
    ("label_smoothing_factor", 1.5),
    ("label_smoothing_factor", float("nan")),
    ("neftune_noise_alpha", 5),
    ("use_liger_kernel", True),
])  # fmt: skip
def test_arguments_out_of_range(option, value, tmp_path):
    with pytest.raises(InputError, match=option):
        AdvBNTrainingArguments(str(tmp_path), use_cpu=True, **{option: value})
