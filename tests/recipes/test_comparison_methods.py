"""Variants of AdvBN and controls do what they say; settings of methods."""

import copy

import numpy as np
import pytest
import torch
from builders import BACKBONES, batch, models_equal, tiny_convnext, tiny_resnet
from comparison.methods import METHODS, method_called
from comparison.peers.augmix_jsd import jensen_shannon
from comparison.variants import clean_gradient, momentum, two_visits
from comparison.variants.mixed_first import mix_channels
from comparison.variants.two_places import TwoDepthsForImageClassification
from comparison.views import Views

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, InputError
from advbn_hf.method.attack import starting_multipliers
from advbn_hf.method.perturbation import ascend, perturb


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_the_tail_of_every_model_alone(name, backbone):
    base = BACKBONES[backbone]()
    method = METHODS[name]
    model = method.wrap(base).train()
    pixel_values, labels = batch()
    views = 3 if method.views.name == "image and two augmix" else 1
    output = model(pixel_values=pixel_values.repeat(views, 1, 1, 1), labels=labels)
    assert output.logits.shape == (4 if output.clean_rows is None else len(output.clean_rows), 5)
    assert output.loss.isfinite()
    output.loss.backward()
    stem = {id(weight) for weight in model.split.stem_weights}
    assert all(weight.grad is None for weight in model.parameters() if id(weight) in stem)
    assert any(weight.grad is not None for weight in model.parameters())
    assert models_equal(base, BACKBONES[backbone]())  # a copy is trained


def test_controls_differ_as_they_say():
    pixel_values, labels = batch()
    plain, doubled = (
        METHODS[name].wrap(tiny_convnext()).train()(pixel_values=pixel_values, labels=labels).loss
        for name in ("plain", "plain_doubled")
    )
    torch.testing.assert_close(doubled, 2 * plain)
    for name, groups in (("random_batch", 1), ("random_4", 4), ("random_image", "per_sample")):
        config = METHODS[name].config
        assert (config.num_steps, config.random_start, config.num_perturbations) == (0, True, groups)


def test_identical_views_make_the_consistency_term_vanish():
    pixel_values, labels = batch()
    model = METHODS["augmix_jsd"].wrap(tiny_convnext()).train()
    output = model(pixel_values=pixel_values.repeat(3, 1, 1, 1), labels=labels)
    torch.testing.assert_close(output.loss, output.clean_loss, rtol=1e-4, atol=1e-6)
    mixed = model(pixel_values=torch.cat([pixel_values, -pixel_values, pixel_values.flip(0)]), labels=labels)
    predictions = mixed.logits, *(model(pixel_values=views).logits for views in (-pixel_values, pixel_values.flip(0)))
    assert mixed.loss.item() == pytest.approx((mixed.clean_loss + 12 * jensen_shannon(*predictions)).item(), rel=1e-4)


def test_consistent_branches_add_the_divergence_to_the_loss_of_advbn():
    pixel_values, labels = batch()
    config = METHODS["advbn_consistent"].config
    ours = AdvBNForImageClassification.from_backbone(tiny_convnext(), AdvBNConfig(adversarial_share=1.0)).train()
    theirs = METHODS["advbn_consistent"].wrap(tiny_convnext()).train()
    for model in (ours, theirs):
        model.generator.manual_seed(0)
    plain, consistent = (model(pixel_values=pixel_values, labels=labels) for model in (ours, theirs))
    divergence = jensen_shannon(plain.logits, plain.auxiliary_logits)
    torch.testing.assert_close(consistent.loss, plain.loss + config.consistency * divergence)


def test_random_step_leaves_the_settings_as_they_are():
    model = METHODS["advbn_random_step"].wrap(tiny_resnet()).train()
    before = copy.copy(model.advbn_config)
    pixel_values, labels = batch()
    drawn = {model(pixel_values=pixel_values, labels=labels).adversarial_loss.item() for _ in range(3)}
    assert len(drawn) == 3
    assert model.advbn_config == before


def test_momentum_moves_the_start_to_where_earlier_ascents_ended(monkeypatch):
    pixel_values, labels = batch()
    ours = METHODS["advbn"].wrap(tiny_resnet()).train()
    theirs = METHODS["advbn_momentum"].wrap(tiny_resnet()).train()
    started, ended = [], []

    def recording_ascend(loss_of, multipliers, **settings):
        started.append(multipliers)
        ended.append(ascend(loss_of, multipliers, **settings))
        return ended[-1]

    monkeypatch.setattr(momentum, "ascend", recording_ascend)
    for model in (ours, theirs):
        model.generator.manual_seed(0)
    first = [model(pixel_values=pixel_values, labels=labels).adversarial_loss for model in (ours, theirs)]
    torch.testing.assert_close(*first)  # nothing came before
    drift = 0.1 * (ended[0].mean(dim=1, keepdim=True) - 1)
    torch.testing.assert_close(theirs.drift, drift)
    assert drift.abs().max() > 0.01
    drawn = starting_multipliers(len(labels), started[0].shape[2], ours.advbn_config, ours.generator)
    theirs(pixel_values=pixel_values, labels=labels)
    torch.testing.assert_close(started[1], (drawn + drift).clamp(-1, 3))
    torch.testing.assert_close(theirs.drift, 0.9 * drift + 0.1 * (ended[1].mean(dim=1, keepdim=True) - 1))


def test_the_clean_gradient_is_that_of_the_clean_branchs_loss(monkeypatch):
    pixel_values, labels = batch()
    model = METHODS["advbn_clean_gradient"].wrap(tiny_convnext()).train()
    model.generator.manual_seed(0)
    applied = []
    monkeypatch.setattr(
        clean_gradient, "perturb", lambda *given: applied.append(given[2].detach().clone()) or perturb(*given)
    )
    output = model(pixel_values=pixel_values, labels=labels)
    found = applied[-1]

    recording = model.split.stem(pixel_values=pixel_values)
    features, groups = recording.features.detach(), torch.arange(len(labels))
    means = features.mean(dim=(2, 3))
    ones = torch.ones_like(found).requires_grad_()
    logits = model.tail_logits(recording, perturb(features, means, ones, groups, False, 1), "clean")
    (slope,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"), ones)
    model.generator.manual_seed(0)
    start = starting_multipliers(len(labels), means.shape[1], model.advbn_config, model.generator)
    torch.testing.assert_close(found, (start + slope.sign()).clamp(-1, 3))
    adversarial = model.tail_logits(recording, perturb(features, means, found, groups, False, 1), "auxiliary")
    torch.testing.assert_close(output.adversarial_loss, torch.nn.functional.cross_entropy(adversarial, labels))


def test_a_second_visit_is_the_step_from_the_start_of_the_first(monkeypatch):
    pixel_values, labels = batch(6)
    model = METHODS["advbn_two_visits"].wrap(tiny_convnext()).train()
    model.generator.manual_seed(0)
    applied = []
    monkeypatch.setattr(
        two_visits, "perturb", lambda *given: applied.append(given[2].detach().clone()) or perturb(*given)
    )

    def step(rows):
        output = model(pixel_values=pixel_values[rows], labels=labels[rows])
        (1024 * output.loss).backward()  # as in half precision: the scale does not matter
        return output

    step([0, 1, 2])
    first = applied[-1]
    start = starting_multipliers(3, first.shape[2], model.advbn_config, torch.Generator().manual_seed(0))
    torch.testing.assert_close(first, start)

    recording = model.split.stem(pixel_values=pixel_values[:3])
    features, ones = recording.features.detach(), first.clone().requires_grad_()
    perturbed = perturb(features, features.mean(dim=(2, 3)), ones, torch.arange(3), False, 1)
    logits = model.tail_logits(recording, perturbed, "auxiliary")
    torch.nn.functional.cross_entropy(logits, labels[:3]).backward()
    expected = (first + ones.grad.sign()).clamp(-1, 3)

    output = step([4, 2, 0, 5])  # other images beside them, and in another order
    second = applied[-1]
    torch.testing.assert_close(second[:, [2, 1]], expected[:, [0, 2]])
    assert not torch.equal(second[:, [2, 1]], first[:, [0, 2]])
    assert second[:, [0, 3]].min() >= -1
    recording = model.split.stem(pixel_values=pixel_values[[4, 2, 0, 5]])
    features = recording.features.detach()
    perturbed = perturb(features, features.mean(dim=(2, 3)), second, torch.arange(4), False, 1)
    auxiliary = torch.nn.functional.cross_entropy(
        model.tail_logits(recording, perturbed, "auxiliary"), labels[[4, 2, 0, 5]]
    )
    torch.testing.assert_close(output.adversarial_loss, auxiliary)

    step([0, 1, 2, 3])  # a third visit of 0 and 2 starts elsewhere, the second of 1 does not
    third = applied[-1]
    torch.testing.assert_close(third[:, 1], expected[:, 1])
    for row in (0, 2):
        assert not torch.allclose(third[:, row], first[:, row])
        assert not torch.allclose(third[:, row], expected[:, row])


def test_two_visits_cost_no_pass_and_split_batches():
    pixel_values, labels = batch(8)
    model = method_called("advbn_two_visits:adversarial_share=0.5").wrap(tiny_convnext()).train()
    passes = []
    model.backbone.classifier.register_forward_hook(lambda _, __, logits: passes.append(len(logits)))
    output = model(pixel_values=pixel_values, labels=labels)
    output.loss.backward()
    assert passes == [4, 4]
    assert len(model.visited) == len(output.adversarial_rows) == 4


@pytest.mark.parametrize(("method", "leaves"), [("advbn", True), ("advbn_in_range", False)])
def test_perturbed_features_stay_in_the_range_of_the_features(monkeypatch, method, leaves):
    pixel_values, labels = batch()
    model = METHODS[method].wrap(tiny_convnext()).train()
    own = model.split.stem(pixel_values=pixel_values).features
    tail, seen = model.split.tail, []
    monkeypatch.setattr(model.split, "tail", lambda *given: seen.append(given[1]) or tail(*given))
    model(pixel_values=pixel_values, labels=labels)
    perturbed = torch.stack([features for features in seen if features is not None])
    assert len(perturbed) == 2  # of the ascent, and of the step
    assert bool(((perturbed < own.min()) | (perturbed > own.max())).any()) == leaves
    assert not torch.equal(perturbed[-1], own)


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_a_mean_over_all_weighs_branches_by_their_images(share):
    pixel_values, labels = batch(8)
    model = method_called(f"advbn_mean_over_all:adversarial_share={share}").wrap(tiny_convnext()).train()
    output = model(pixel_values=pixel_values, labels=labels)
    clean, adversarial = (slice(None),) * 2 if share == 1 else (output.clean_rows, output.adversarial_rows)
    losses = [
        torch.nn.functional.cross_entropy(logits, labels[rows], reduction="none")
        for logits, rows in ((output.logits, clean), (output.auxiliary_logits, adversarial))
    ]
    assert len(losses[1]) == 8 * share
    torch.testing.assert_close(output.loss, torch.cat(losses).sum() / 8)


@pytest.mark.parametrize("method", ["advbn_momentum", "advbn_clean_gradient", "advbn_two_visits"])
def test_one_perturbation_an_image_refuses_settings_that_it_would_leave_out(method):
    with pytest.raises(InputError, match=f"{method}: num_perturbations .*4"):
        method_called(f"{method}:num_perturbations=4").wrap(tiny_resnet())
    with pytest.raises(InputError, match="attack_fraction"):
        method_called(f"{method}:attack_fraction=0.5")


@pytest.mark.parametrize("method", ["advbn_clean_gradient", "advbn_two_visits"])
def test_one_step_refuses_more(method):
    with pytest.raises(InputError, match=f"{method}: num_steps .*2"):
        method_called(f"{method}:num_steps=2").wrap(tiny_resnet())


def test_settings_of_a_method():
    assert method_called("advbn:epsilon=0.5,num_perturbations=4").config == AdvBNConfig(
        epsilon=0.5, num_perturbations=4, adversarial_share=1.0
    )
    assert method_called("mixstyle:alpha=0.3,probability=1").config.alpha == 0.3
    method = method_called("augmix_advbn:view_times=2,epsilon=1,view_share=0.5")
    assert (method.views, method.config.epsilon) == (Views("augmix", times=2, share=0.5), 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("advbm", "methods: .*'advbm'.*'advbn'"),
        ("advbn:epsilom=1", "methods: advbn:epsilom=1: .*'epsilom'"),
        ("advbn:epsilon=-1", "epsilon .*-1"),
        ("advbn:epsilon", "'epsilon'"),
        ("dsu:probability=2", "probability"),
        ("mixstyle:alpha=0", "alpha"),
        ("augmix_jsd:consistency=-1", "consistency"),
        ("mixstyle:alpha=high", "mixstyle:alpha=high"),
        ("prime:view_times=0", "view_times .*0"),
        ("prime:view_times=1.5", "view_times .*1.5"),
        ("prime:view_share=0", "view_share .*0"),
        ("prime:view_share=all", "prime:view_share=all"),
        ("advbn:view_share=0.5", "view_share.* augment"),
    ],
)
def test_mistakes_in_settings(text, message):
    with pytest.raises(InputError, match=message) as error:
        method_called(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("channel_axis", [1, -1])
def test_channels_are_mixed_around_their_means(channel_axis):
    torch.manual_seed(0)
    features, matrices = torch.randn(2, 3, 4, 5) + 1, torch.randn(2, 3, 3)
    laid_out = features if channel_axis == 1 else features.movedim(1, -1)
    mixed = mix_channels(laid_out, matrices, channel_axis)
    mixed = mixed if channel_axis == 1 else mixed.movedim(-1, 1)
    for image in range(2):
        flat = features[image].reshape(3, -1).numpy()
        own = flat.mean(axis=1, keepdims=True)
        expected = own + matrices[image].numpy() @ (flat - own)
        np.testing.assert_allclose(mixed[image].reshape(3, -1).numpy(), expected, rtol=1e-4, atol=1e-4)
    assert mix_channels(laid_out, torch.eye(3).expand(2, 3, 3), channel_axis).allclose(laid_out, atol=1e-6)


def test_two_depths_without_room_for_styles_are_two_plain_passes():
    """With epsilon next to 0 both perturbations leave the features as they are: the loss of each branch is plain."""
    pixel_values, labels = batch()
    config = AdvBNConfig("auto", epsilon=1e-9, step_size=1e-9)
    model = TwoDepthsForImageClassification.from_backbone(tiny_resnet(), config).train()
    assert model.deeper.insert_after == "resnet.encoder.stages.1"
    output = model(pixel_values=pixel_values, labels=labels)
    torch.testing.assert_close(output.adversarial_loss, output.clean_loss, rtol=1e-4, atol=1e-4)
    model.advbn_config = AdvBNConfig("auto")
    deeper = {name: w for name, w in model.named_parameters() if ".stages.1." in name and ".clean." not in name}
    output = model(pixel_values=pixel_values, labels=labels)
    assert (output.adversarial_loss - output.clean_loss).abs() > 1e-3
    output.adversarial_loss.backward()
    assert deeper and all(weight.grad is not None for weight in deeper.values())  # also those between both places


def test_a_second_depth_needs_stages():
    with pytest.raises(InputError, match=r"insert_after: .*resnet\.embedder"):
        method_called("advbn_two_depths:insert_after=embeddings").wrap(tiny_resnet())


def test_random_depth_is_one_of_both(monkeypatch):
    pixel_values, labels = batch()
    model = METHODS["advbn_random_depth"].wrap(tiny_resnet()).train()
    places = []
    original = AdvBNForImageClassification.perturb
    monkeypatch.setattr(
        AdvBNForImageClassification,
        "perturb",
        lambda self, *given: places.append(self.split.insert_after) or original(self, *given),
    )
    for _ in range(12):
        model(pixel_values=pixel_values, labels=labels)
    assert len(places) == 12
    assert set(places) == {"resnet.encoder.stages.0", "resnet.encoder.stages.1"}
