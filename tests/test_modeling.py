"""`AdvBNForImageClassification`: the losses, what the ascent leaves alone, branches, saving and exporting."""

import dataclasses
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from builders import images_and_labels, models_equal, tiny_convnext, tiny_resnet, tiny_vit
from tiny_models import tiny_model
from transformers import AutoModelForImageClassification, ViTImageProcessorPil

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, InputError
from advbn_hf.backbones.norms import is_norm, two_branch_norms
from advbn_hf.method.losses import Objective
from advbn_hf.method.perturbation import initial_multipliers
from advbn_hf.modeling import PlainForImageClassification

MODELS = {"resnet": tiny_resnet, "convnext": tiny_convnext, "vit": tiny_vit}
SETTINGS = {
    "all_images": AdvBNConfig(adversarial_share=1.0),
    "published": AdvBNConfig.paper(),
    "quarter": dataclasses.replace(AdvBNConfig.paper(), num_perturbations=2, attack_fraction=0.25),
    "shared_norms": AdvBNConfig(adversarial_share=1.0, auxiliary_norms=False),
}


def wrap(name="resnet", config=None):
    return AdvBNForImageClassification.from_backbone(MODELS[name](), config)


def trained(model, steps=3):
    """A few optimiser steps, so that the branches differ."""
    images, labels = images_and_labels()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        model.train()
        optimizer.zero_grad()
        model(pixel_values=images, labels=labels).loss.backward()
        optimizer.step()
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_training_step(name, setting):
    model = wrap(name, SETTINGS[setting]).train()
    images, labels = images_and_labels()
    output = model(pixel_values=images, labels=labels, measure_ascent=True)
    torch.testing.assert_close(output.loss, output.clean_loss + output.adversarial_loss)
    torch.testing.assert_close(output.clean_loss, F.cross_entropy(output.logits, labels))
    torch.testing.assert_close(output.adversarial_loss, F.cross_entropy(output.auxiliary_logits, labels))
    assert output.ascent_gain > 0
    output.loss.backward()
    for path, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), path


def test_multipliers_of_one_give_the_clean_features():
    model = wrap(config=AdvBNConfig(num_steps=0, random_start=False))
    images, labels = images_and_labels()
    recording = model.split.stem(pixel_values=images)
    assert torch.equal(model.perturb(recording, Objective(labels))[0], recording.features)


def test_ascent_statistics():
    config = AdvBNConfig(num_steps=1, step_size=0.5, random_start=False, num_perturbations=1)
    model = wrap(config=config).eval()
    images, labels = images_and_labels()
    recording = model.split.stem(pixel_values=images)
    perturbed, ascent = model.perturb(recording, Objective(labels, measure_ascent=True))
    for features, loss in ((None, "loss_before_ascent"), (perturbed, "loss_after_ascent")):
        logits = model.tail_logits(recording, features, "auxiliary")
        torch.testing.assert_close(ascent[loss], F.cross_entropy(logits, labels).detach())
    for distance in ("mean_distance", "std_distance"):  # one sign step from 1, except along channels without gradient
        assert 0.4 < ascent[distance] <= 0.5


def test_ascent_leaves_gradients_buffers_and_random_numbers_alone():
    model = wrap("vit").train()  # the tail's own dropout is off during the ascent
    images, labels = images_and_labels()
    recording = model.split.stem(pixel_values=images)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    state = torch.get_rng_state()
    modes = [module.training for module in model.modules()]
    model.perturb(recording, Objective(labels, measure_ascent=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [module.training for module in model.modules()] == modes
    assert {norm.branch for norm in two_branch_norms(model).values()} == {"clean"}


def test_ascent_leaves_running_statistics_alone():
    model = wrap("resnet").train()
    images, labels = images_and_labels()
    recording = model.split.stem(pixel_values=images)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.perturb(recording, Objective(labels))
    assert before
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_perturbation_of_an_image_does_not_depend_on_its_batch():
    model = wrap().eval()
    images, labels = images_and_labels()
    model.manual_seed(3)
    together, _ = model.perturb(model.split.stem(pixel_values=images), Objective(labels))
    model.manual_seed(3)
    alone = [
        model.perturb(model.split.stem(pixel_values=images[i : i + 2]), Objective(labels[i : i + 2]))[0]
        for i in range(0, 8, 2)
    ]
    model.manual_seed(3)
    again, _ = model.perturb(model.split.stem(pixel_values=images), Objective(labels))
    assert torch.equal(together, again)
    torch.testing.assert_close(torch.cat(alone), together)


def test_frozen_stem_stays_in_eval_mode():
    model = wrap().train()
    assert all(not module.training for root in model.split.stem_modules for module in root.modules())
    model = wrap(config=AdvBNConfig(freeze_stem=False)).train()
    assert all(module.training for module in model.modules())


def test_stem_learns_from_both_losses_when_it_is_not_frozen():
    model = wrap(config=AdvBNConfig(freeze_stem=False)).train()
    images, labels = images_and_labels()
    output = model(pixel_values=images, labels=labels)
    weight = model.split.stem_modules[0].embedder.convolution.weight
    for loss in (output.clean_loss, output.adversarial_loss):
        (gradient,) = torch.autograd.grad(loss, weight, retain_graph=True)
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", MODELS)
def test_branches_come_back_bit_for_bit(name, tmp_path):
    model = trained(wrap(name))
    images, labels = images_and_labels()
    with torch.no_grad():
        both = model(pixel_values=images, labels=labels, branch="both")
        clean = model(pixel_values=images, labels=labels)
        auxiliary = model(pixel_values=images, labels=labels, branch="auxiliary")
    assert torch.equal(both.logits, clean.logits)
    assert torch.equal(both.auxiliary_logits, auxiliary.logits)
    assert not torch.equal(clean.logits, auxiliary.logits)
    torch.testing.assert_close(auxiliary.loss, F.cross_entropy(auxiliary.logits, labels))
    assert type(model.export("clean")) is type(MODELS[name]())
    model.save_pretrained(tmp_path, processor=ViTImageProcessorPil())
    back = AdvBNForImageClassification.from_pretrained(tmp_path)
    assert models_equal(back, model)
    assert back.advbn_config == model.advbn_config
    for branch, folder in (("clean", tmp_path), ("auxiliary", tmp_path / "auxiliary")):
        assert {"config.json", "model.safetensors", "preprocessor_config.json"} <= {p.name for p in folder.iterdir()}
        plain = AutoModelForImageClassification.from_pretrained(folder)
        assert models_equal(plain, model.export(branch))


@pytest.mark.slow
def test_exported_branches_in_a_process_that_cannot_import_advbn_hf(tmp_path):
    model = trained(wrap())
    images, _ = images_and_labels()
    model.save_pretrained(tmp_path / "model")
    with torch.no_grad():
        expected = [model(pixel_values=images, branch=branch).logits for branch in ("clean", "auxiliary")]
    torch.save((images, expected), tmp_path / "expected.pt")
    code = """
import sys
sys.modules["advbn_hf"] = None
import torch
from transformers import AutoModelForImageClassification
images, (clean, auxiliary) = torch.load("expected.pt")
with torch.no_grad():
    assert torch.equal(AutoModelForImageClassification.from_pretrained("model")(images).logits, clean)
    model = AutoModelForImageClassification.from_pretrained("model", subfolder="auxiliary")
    assert torch.equal(model(images).logits, auxiliary)
"""
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env={**os.environ, **threads})


def test_export_is_independent():
    model = trained(wrap())
    exported = model.export("auxiliary")
    assert not exported.training
    assert all(parameter.requires_grad for parameter in exported.parameters())
    trained(model)
    assert not models_equal(exported, model.export("auxiliary"))


def test_saving_over_a_checkpoint_replaces_whole_files(tmp_path):
    model = wrap()
    model.save_pretrained(tmp_path)
    trained(model).save_pretrained(tmp_path)
    assert models_equal(AdvBNForImageClassification.from_pretrained(tmp_path), model)
    assert not list(tmp_path.glob(".*"))


def test_config_in_force_may_be_replaced():
    model = wrap()
    model.advbn_config = dataclasses.replace(AdvBNConfig(), epsilon=0.3)
    assert model.advbn_config.epsilon == 0.3
    assert model.advbn_config.insert_after == "resnet.embedder"
    with pytest.raises(InputError, match=r"auxiliary_norms .*True.*False"):
        model.advbn_config = AdvBNConfig(auxiliary_norms=False)
    with pytest.raises(InputError, match=r"insert_after .*resnet.embedder.*resnet.encoder.stages.0"):
        model.advbn_config = AdvBNConfig.paper()
    model.advbn_config = dataclasses.replace(AdvBNConfig.paper(), insert_after="embeddings")
    assert model.advbn_config.num_steps == 6


@pytest.mark.parametrize("branch", ["Clean", "adversarial"])
def test_a_branch_that_there_is_not_is_said_in_one_line(branch):
    model = wrap()
    images, _ = images_and_labels(2)
    for use in (lambda: model(images, branch=branch), lambda: model.export(branch)):
        with pytest.raises(InputError, match=f"branch: .*'{branch}'"):
            use()


def test_fewer_samples_than_groups_still_train():
    model = wrap(config=AdvBNConfig.paper()).train()
    images, labels = images_and_labels(3)
    assert model(pixel_values=images, labels=labels).loss.isfinite()


def test_bfloat16_autocast_trains_the_whole_tail_whether_the_ascent_is_measured_or_not():
    gradients = []
    for measure in (False, True):
        model = wrap().train()
        images, labels = images_and_labels()
        model.generator.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16):
            model(pixel_values=images, labels=labels, measure_ascent=measure).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_draws_are_the_ones_of_the_generator():
    model = wrap(config=AdvBNConfig(num_steps=0))
    images, labels = images_and_labels()
    recording = model.split.stem(pixel_values=images)
    model.generator.manual_seed(7)
    perturbed, _ = model.perturb(recording, Objective(labels))
    start = initial_multipliers(8, 8, AdvBNConfig().epsilon, torch.Generator().manual_seed(7))
    mean = recording.features.mean((2, 3), keepdim=True)
    expected = (recording.features - mean) * start[1][..., None, None] + mean * start[0][..., None, None]
    torch.testing.assert_close(perturbed, expected.relu(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_perturbations", ["per_sample", 2])
def test_a_class_token_keeps_its_values_and_the_ascent_is_over_patches_alone(num_perturbations):
    """By a plain model whose first block's output is replaced: nothing of ours computes what is expected."""
    model = wrap(
        "vit", AdvBNConfig("auto", epsilon=0.5, step_size=0.3, num_perturbations=num_perturbations, patches_only=True)
    ).eval()
    images, labels = images_and_labels()
    recording = model.split.stem(pixel_values=images)
    model.generator.manual_seed(7)
    perturbed, _ = model.perturb(recording, Objective(labels))

    features, groups = recording.features.detach(), 8 if num_perturbations == "per_sample" else 2
    patches = features[:, 1:].unflatten(0, (groups, -1))
    mean = patches.mean(dim=(1, 2), keepdim=True)

    def expected(multipliers):
        of_mean, of_deviation = multipliers[:, :, None, None]
        return torch.cat([features[:, :1], ((patches - mean) * of_deviation + mean * of_mean).flatten(0, 1)], dim=1)

    plain = model.export("auxiliary")
    start = initial_multipliers(groups, 16, 0.5, torch.Generator().manual_seed(7)).requires_grad_()
    plain.vit.layers[0].register_forward_hook(lambda *_: expected(start))
    F.cross_entropy(plain(images).logits, labels, reduction="sum").backward()
    found = (start + 0.3 * start.grad.sign()).clamp(0.5, 1.5).detach()
    torch.testing.assert_close(perturbed, expected(found), rtol=1e-4, atol=1e-5)
    assert torch.equal(perturbed[:, 0], features[:, 0])


def test_a_class_token_is_perturbed_like_the_others_unless_the_config_says_patches_only(tmp_path):
    model = wrap("vit", AdvBNConfig("auto", num_steps=0))
    model.save_pretrained(tmp_path)
    images, labels = images_and_labels()
    for one in (model, AdvBNForImageClassification.from_pretrained(tmp_path)):
        recording = one.split.stem(pixel_values=images)
        one.generator.manual_seed(7)
        start = initial_multipliers(8, 16, 2.0, torch.Generator().manual_seed(7))[:, :, None]
        mean = recording.features.mean(dim=1, keepdim=True)
        expected = (recording.features - mean) * start[1] + mean * start[0]
        torch.testing.assert_close(one.perturb(recording, Objective(labels))[0], expected, rtol=1e-4, atol=1e-5)
    model.advbn_config = dataclasses.replace(model.advbn_config, patches_only=True)
    model.save_pretrained(tmp_path)
    for one in (model, AdvBNForImageClassification.from_pretrained(tmp_path)):
        recording = one.split.stem(pixel_values=images)
        assert torch.equal(one.perturb(recording, Objective(labels))[0][:, 0], recording.features[:, 0])


def test_after_the_patches_positions_and_class_token_belong_to_the_tail():
    """Scaled channels of the patches leave them alone: they are added afterwards, and train."""
    model = wrap("vit", AdvBNConfig(num_steps=0)).train()
    images, labels = images_and_labels()
    embeddings = model.backbone.vit.embeddings
    seen = []
    embeddings.register_forward_hook(lambda _, __, output: seen.append(output))
    recording = model.split.stem(pixel_values=images)
    perturbed, _ = model.perturb(recording, Objective(labels))
    model.tail_logits(recording, perturbed, "auxiliary")
    code = embeddings.position_embeddings
    torch.testing.assert_close(seen[-1][:, 1:], perturbed + code[:, 1:])
    torch.testing.assert_close(seen[-1][:, 0], (embeddings.cls_token + code[:, :1])[:, 0].expand(8, 16))
    model(images, labels).loss.backward()
    assert embeddings.cls_token.grad is not None
    assert code.grad is not None


def test_norms_between_patches_and_blocks_have_two_branches():
    model = AdvBNForImageClassification.from_backbone(tiny_model("CLIPForImageClassification"))
    doubled = two_branch_norms(model.backbone)
    norms = {path for path, module in tiny_model("CLIPForImageClassification").named_modules() if is_norm(module)}
    assert "vision_model.pre_layrnorm" in doubled
    assert doubled.keys() == norms


def test_plain_fine_tuning_uses_clean_features_alone():
    model = PlainForImageClassification.from_backbone(tiny_resnet(), AdvBNConfig(auxiliary_norms=False)).train()
    images, labels = images_and_labels()
    output = model(pixel_values=images, labels=labels)
    assert torch.equal(output.loss, output.clean_loss)
    assert output.adversarial_loss is None
    assert not two_branch_norms(model)


def test_models_that_do_not_fit_are_said_in_one_line(tmp_path):
    with pytest.raises(InputError, match=str(tmp_path / "nothing")):
        AdvBNForImageClassification.from_backbone(tmp_path / "nothing")
    tiny_resnet().resnet.save_pretrained(tmp_path / "headless")
    with pytest.raises(InputError, match="classifier"):
        AdvBNForImageClassification.from_backbone(tmp_path / "headless")
    tiny_resnet().save_pretrained(tmp_path / "plain")
    with pytest.raises(InputError, match=r"advbn_config.json"):
        AdvBNForImageClassification.from_pretrained(tmp_path / "plain")
    model = tiny_resnet()
    model.config.problem_type = "multi_label_classification"
    with pytest.raises(InputError, match="problem_type"):
        AdvBNForImageClassification.from_backbone(model)
