"""Several threads and one model: each gets what it gets alone, and inference changes nothing that the others use."""

import copy
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from builders import images_and_labels, models_equal, move_auxiliary_norms, tiny_convnext, tiny_resnet, tiny_vit
from PIL import Image
from torch import nn
from transformers import (
    AutoModelForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTImageProcessorPil,
    pipeline,
)

from advbn_hf import AdvBNConfig, AdvBNForImageClassification
from advbn_hf.method.losses import Objective

MODELS = {"resnet": tiny_resnet, "convnext": tiny_convnext, "vit": tiny_vit}
THREADS = 8


@pytest.fixture(autouse=True)
def threads_take_turns_often():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def wrap(backbone, **settings):
    model = AdvBNForImageClassification.from_backbone(backbone, AdvBNConfig(**settings))
    move_auxiliary_norms(model)
    return model.eval()


def smaller_resnet():
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=5, image_size=16
    )
    return ResNetForImageClassification(config)


def in_another_thread(function):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def requests_of(model, size):
    """Three requests for each branch, of one or two images, with the answers that they get alone."""
    asked = []
    for place, branch in enumerate(("clean", "auxiliary", "both") * 3):
        images, _ = images_and_labels(1 + place % 2, size=size, seed=place)
        asked.append((images, branch, logits_of(model, images, branch)))
    return asked


@torch.no_grad()
def logits_of(model, images, branch):
    output = model(images, branch=branch)
    return output.logits if output.auxiliary_logits is None else torch.stack([output.logits, output.auxiliary_logits])


def same(one, other):
    return torch.allclose(one, other, rtol=0, atol=1e-6)


def wrong_of(model, asked, start, count):
    """How many of so many requests of one thread get other answers than alone."""
    wrong = 0
    for turn in range(start, start + count):
        images, branch, expected = asked[turn % len(asked)]
        wrong += not same(logits_of(model, images, branch), expected)
    return wrong


@pytest.mark.parametrize(
    ("backbone", "insert_after", "size", "count"),
    [
        (smaller_resnet, "embeddings", 16, 500),
        (tiny_convnext, "auto", 32, 20),
        (tiny_vit, "vit.layers.1.attention", 32, 20),
    ],
)
def test_every_request_gets_the_answer_that_it_gets_alone(backbone, insert_after, size, count):
    model = wrap(backbone(), insert_after=insert_after)
    asked = requests_of(model, size)
    with ThreadPoolExecutor(THREADS) as pool:
        wrong = [pool.submit(wrong_of, model, asked, thread, count) for thread in range(THREADS)]
    assert [future.result() for future in wrong] == [0] * THREADS


def test_pipelines_on_both_branches_while_the_model_itself_is_asked(tmp_path):
    model = wrap(tiny_resnet())
    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    model.save_pretrained(tmp_path, processor=processor)
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "auxiliary")
    branches = [model.export("clean"), loaded]
    pipes = [pipeline("image-classification", model=branch, image_processor=processor) for branch in branches]
    random = np.random.default_rng(0)
    images = [Image.fromarray(random.integers(0, 255, (32, 32, 3), dtype=np.uint8)) for _ in range(4)]
    alone = [[pipe(image) for image in images] for pipe in pipes]
    asked = requests_of(model, 32)

    def wrong_of_pipe(place):
        return sum(pipes[place](images[turn % 4]) != alone[place][turn % 4] for turn in range(20))

    with ThreadPoolExecutor(THREADS) as pool:
        wrong = [pool.submit(wrong_of_pipe, thread % 2) for thread in range(THREADS - 2)]
        wrong += [pool.submit(wrong_of, model, asked, thread, 20) for thread in range(2)]
    assert [future.result() for future in wrong] == [0] * THREADS


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("branch", ["clean", "auxiliary", "both"])
def test_a_request_in_the_middle_of_another(name, branch, tmp_path):
    """While one thread is in the tail, another asks each branch, exports and saves."""
    model = wrap(MODELS[name]())
    images, asked = images_and_labels(2)[0], requests_of(model, 32)
    expected, exported = logits_of(model, images, branch), model.export("auxiliary")
    head = model.backbone.classifier
    seen = []

    def others():
        seen.append(wrong_of(model, asked, 0, len(asked)))
        seen.append(not models_equal(model.export("auxiliary"), exported))
        model.save_pretrained(tmp_path)

    def interrupt(module, inputs):
        if not seen:
            seen.append("begun")
            in_another_thread(others)

    handle = head.register_forward_pre_hook(interrupt)
    assert same(logits_of(model, images, branch), expected)
    handle.remove()
    assert seen == ["begun", 0, False]
    assert models_equal(AdvBNForImageClassification.from_pretrained(tmp_path), model)


def attributes_of(model):
    """What every module holds, of which nothing may change."""
    return [
        {name: dict(value) if isinstance(value, dict) else value for name, value in vars(module).items()}
        for module in model.modules()
    ]


@pytest.mark.parametrize("name", MODELS)
def test_inference_changes_no_module(name, monkeypatch):
    model = wrap(MODELS[name]())
    images, labels = images_and_labels(2)
    states, switched = [], []
    model.backbone.classifier.register_forward_pre_hook(lambda *_: states.append(attributes_of(model)))
    before = attributes_of(model)
    train = nn.Module.train
    monkeypatch.setattr(nn.Module, "train", lambda self, mode=True: switched.append(mode) or train(self, mode))
    for branch in ("clean", "auxiliary", "both"):
        logits_of(model, images, branch)
    model.perturb(model.split.stem(pixel_values=images), Objective(labels, measure_ascent=True))
    assert len(states) == 4 + 3  # two tails for both; an ascent of one step, measured
    assert all(state == before for state in [*states, attributes_of(model)])
    assert not switched


def test_a_second_thread_that_trains_is_refused_and_the_first_goes_on():
    images, labels = images_and_labels()
    disturbed, model = wrap(tiny_resnet()).train(), wrap(tiny_resnet()).train()
    errors = []

    def train(model):
        model.generator.manual_seed(0)
        return model(pixel_values=images, labels=labels).loss

    def disturb(*_):
        with pytest.raises(RuntimeError, match="another thread") as raised:
            in_another_thread(lambda: train(disturbed))
        errors.append(str(raised.value))

    handle = disturbed.backbone.classifier.register_forward_pre_hook(disturb)
    loss = train(disturbed)
    handle.remove()
    assert torch.equal(loss, train(model))
    assert errors and not any("\n" in error for error in errors)
    assert in_another_thread(lambda: train(disturbed)).isfinite()  # one after the other is no mistake


def test_a_backward_pass_in_another_thread_recomputes_in_the_branch_of_the_forward_pass():
    gradients = []
    for checkpointing in (False, True):
        model = wrap(tiny_vit(), insert_after="vit.layers.1.attention").train()
        model.generator.manual_seed(0)
        if checkpointing:
            model.activation_checkpointing_enable()
        images, labels = images_and_labels()
        loss = model(pixel_values=images, labels=labels).loss
        in_another_thread(loss.backward) if checkpointing else loss.backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_computes_with_its_own_weights(duplicate):
    model = wrap(tiny_resnet(), insert_after="auto")
    images, _ = images_and_labels()
    expected = logits_of(model, images, "both")
    other = duplicate(model)
    assert torch.equal(logits_of(other, images, "both"), expected)
    with torch.no_grad():
        for weight in other.split.stem_modules[0].parameters():
            weight += 1
    assert not torch.allclose(logits_of(other, images, "both"), expected)
    assert torch.equal(logits_of(model, images, "both"), expected)


def test_what_is_exported_holds_nothing_of_this_package():
    model = wrap(tiny_resnet())
    exported = model.export("auxiliary")
    classes = {type(value).__module__ for module in exported.modules() for value in vars(module).values()}
    assert not [name for name in classes if name.startswith("advbn_hf")]
    assert not [module for module in exported.modules() if type(module).__module__.startswith("advbn_hf")]
