"""Each peer against the formula of its paper, computed independently; settings of methods."""

import copy
import math
import sys

import numpy as np
import pytest
import torch
from builders import images_and_labels, models_equal, tiny_convnext, tiny_resnet, tiny_vit
from comparison.methods import METHODS, method_called
from comparison.peers.advprop import PUBLISHED, AdvPropForImageClassification
from comparison.peers.apr import apr_s, recombine
from comparison.peers.augmix_jsd import jensen_shannon
from comparison.peers.dsu import scatter_styles
from comparison.peers.mixstyle import mix_styles
from comparison.variants import clean_gradient, momentum, two_visits
from comparison.variants.mixed_first import mix_channels
from comparison.variants.two_places import TwoDepthsForImageClassification
from comparison.views import Collator, to_input
from PIL import Image

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, InputError
from advbn_hf.data.augmentation.augmix import OPERATIONS
from advbn_hf.data.augmentation.named import augmentation_called
from advbn_hf.data.augmentation.prime import prime
from advbn_hf.data.augmentation.randconv import randconv
from advbn_hf.method.attack import starting_multipliers
from advbn_hf.method.losses import Objective
from advbn_hf.method.perturbation import ascend, perturb

BACKBONES = {"resnet": tiny_resnet, "convnext": tiny_convnext, "vit": tiny_vit}


def batch(count=4):
    pixel_values, labels = images_and_labels(count)
    return pixel_values.clamp(-1, 1), labels


@pytest.mark.parametrize("channel_axis", [1, -1])
def test_mixstyle_by_loops(channel_axis):
    torch.manual_seed(0)
    features, partners, weight = torch.randn(3, 5, 4, 4), torch.tensor([2, 0, 1]), torch.tensor([0.1, 0.5, 1.0])
    laid_out = features if channel_axis == 1 else features.movedim(1, -1)
    mixed = mix_styles(laid_out, partners, weight, channel_axis)
    mixed = mixed if channel_axis == 1 else mixed.movedim(-1, 1)
    for image in range(3):
        for channel in range(5):
            own, other = (features[i, channel].numpy() for i in (image, int(partners[image])))
            share = weight[image].item()
            std = share * own.std() + (1 - share) * other.std()
            expected = (own - own.mean()) / own.std() * std + share * own.mean() + (1 - share) * other.mean()
            np.testing.assert_allclose(mixed[image, channel].numpy(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed[2], features[2], rtol=1e-4, atol=1e-5)


def test_dsu_by_loops():
    torch.manual_seed(0)
    features, noise = torch.randn(6, 3, 4, 4) * 2 + 1, torch.randn(2, 6, 3)
    scattered = scatter_styles(features, noise, 1).numpy()
    means, stds = features.numpy().mean(axis=(2, 3)), features.numpy().std(axis=(2, 3))
    for image in range(6):
        for channel in range(3):
            beta = means[image, channel] + noise[0, image, channel].item() * means[:, channel].std()
            gamma = stds[image, channel] + noise[1, image, channel].item() * stds[:, channel].std()
            own = features[image, channel].numpy()
            expected = gamma * (own - means[image, channel]) / stds[image, channel] + beta
            np.testing.assert_allclose(scattered[image, channel], expected, rtol=1e-3, atol=1e-3)


def test_jensen_shannon_by_hand():
    sure, unsure = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.5, 0.5]])
    mixture = [0.7, 0.3]
    expected = sum(
        0.5 * p * math.log(p / m)
        for prediction in (sure, unsure)
        for p, m in zip(prediction[0].tolist(), mixture, strict=True)
    )
    assert jensen_shannon(sure.log(), unsure.log()).item() == pytest.approx(expected, rel=1e-5)
    assert jensen_shannon(sure.log(), sure.log() + 3).item() == pytest.approx(0, abs=1e-6)


def test_advprop_is_pgd_on_pixels_through_the_auxiliary_branch():
    pixel_values, labels = batch()
    model = AdvPropForImageClassification.from_backbone(tiny_resnet(), PUBLISHED).train()
    start = pixel_values + PUBLISHED.epsilon * (
        2 * torch.rand(pixel_values.shape, generator=torch.Generator().manual_seed(7)) - 1
    )
    network = model.export("auxiliary")  # in eval mode, a plain model: nothing of ours computes what is expected
    expected = torch.minimum(torch.maximum(start, pixel_values - 8 / 255), pixel_values + 8 / 255).clamp(-1, 1)
    for _ in range(5):
        expected = expected.detach().requires_grad_()
        torch.nn.functional.cross_entropy(network(expected).logits, labels).backward()
        moved = expected + 2 / 255 * expected.grad.sign()
        expected = torch.minimum(torch.maximum(moved, pixel_values - 8 / 255), pixel_values + 8 / 255).clamp(-1, 1)
    model.generator.manual_seed(7)
    attacked = model.attacked_pixels(pixel_values, Objective(labels))
    assert (attacked - expected.detach()).abs().gt(1e-5).float().mean() < 0.01
    assert (attacked - pixel_values).abs().max() <= 8 / 255 + 1e-6
    assert all(weight.grad is None for weight in model.parameters())
    output = model(pixel_values=pixel_values, labels=labels)
    torch.testing.assert_close(output.loss, output.clean_loss + output.adversarial_loss)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_the_tail_of_every_model_alone(name, backbone):
    base = BACKBONES[backbone]()
    method = METHODS[name]
    model = method.wrap(base).train()
    pixel_values, labels = batch()
    views = 3 if method.views == "image and two augmix" else 1
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
    ours = AdvBNForImageClassification.from_backbone(tiny_convnext(), AdvBNConfig()).train()
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
        epsilon=0.5, num_perturbations=4
    )
    assert method_called("mixstyle:alpha=0.3,probability=1").config.alpha == 0.3


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


@pytest.fixture
def rows():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 40, 3), dtype=np.uint8)
    return [{"pixels": image, "labels": label} for label, image in enumerate(pixels)]


@pytest.mark.parametrize("views", ["augmix", "apr_s", "prime", "randconv", "image and two augmix"])
def test_views_depend_on_their_seed_alone_and_leave_torch_s_numbers(views, rows):
    collate = Collator(views, seed=3)
    torch.manual_seed(1)
    first = [collate(rows) for _ in range(2)]
    following = torch.rand(3)
    collate = Collator(views, seed=3)
    torch.manual_seed(2)
    second = [collate(rows) for _ in range(2)]
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one["pixel_values"], other["pixel_values"])
        assert one["labels"].tolist() == [0, 1, 2, 3, 4]
    assert not torch.equal(first[0]["pixel_values"], first[1]["pixel_values"])
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), following)


def test_views_of_prime_and_randconv_by_hand(rows):
    images = [row["pixels"] for row in rows]
    rng = np.random.default_rng(3)
    expected = to_input(np.stack([prime(Image.fromarray(image), rng) for image in images]))
    assert torch.equal(Collator("prime", 3)(rows)["pixel_values"], expected)
    torch.manual_seed(int(np.random.default_rng(3).integers(2**63)))
    expected = torch.stack([randconv(values) for values in to_input(np.stack(images))])
    assert torch.equal(Collator("randconv", 3)(rows)["pixel_values"], expected)


@pytest.mark.parametrize("views", ["randaugment", "trivialaugment"])
def test_views_of_torchvision_by_hand(views, rows):
    try:
        augment, _ = augmentation_called(views)
    except InputError:
        pytest.skip('torchvision is missing: pip install "advbn_hf[augmentation]"')
    torch.manual_seed(int(np.random.default_rng(3).integers(2**63)))
    expected = np.stack([np.asarray(augment(Image.fromarray(row["pixels"]))) for row in rows])
    assert torch.equal(Collator(views, 3)(rows)["pixel_values"], to_input(expected))


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.transforms", None)
    with pytest.raises(InputError, match=r"trivialaugment needs torchvision.*advbn_hf\[augmentation\]"):
        Collator(METHODS["trivialaugment_advbn"].views, 0)


def test_amplitude_and_phase_are_recombined_by_a_sum_over_all_places():
    first, second = np.random.default_rng(0).normal(size=(2, 3, 4, 2))
    frequencies = [np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) for n in first.shape]

    def transformed(image, sign):
        matrices = frequencies if sign > 0 else [matrix.conj() / len(matrix) for matrix in frequencies]
        return np.einsum("ai,bj,ck,ijk->abc", *matrices, image)

    one, other = transformed(first, 1), transformed(second, 1)
    expected = transformed(abs(one) * other / abs(other), -1)
    assert abs(expected.imag).max() < 1e-9
    np.testing.assert_allclose(recombine(first, second), expected.real, atol=1e-9)


def test_apr_s_is_one_operation_or_two_recombined(monkeypatch):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    recombined = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        first = OPERATIONS[rng.integers(len(OPERATIONS))](image, rng)
        if rng.random() < 0.5:
            expected = np.asarray(first)
            recombined.append(False)
        else:
            second = OPERATIONS[rng.integers(len(OPERATIONS))](first, rng)
            views = [np.asarray(view) for view in (first, second)]
            pairs = [recombine(*views), recombine(*views[::-1])]
            found = apr_s(image, np.random.default_rng(seed))
            expected = min((pair.clip(0, 255) for pair in pairs), key=lambda pair: abs(pair - found).max())
            recombined.append(True)
        np.testing.assert_allclose(apr_s(image, np.random.default_rng(seed)), expected, atol=1e-3)
    assert 10 < sum(recombined) < 30


@pytest.mark.parametrize("backbone", ["resnet", "convnext"])
def test_normalization_perturbation_by_loops(backbone, monkeypatch):
    pixel_values, labels = batch()
    model = method_called("np:probability=1").wrap(BACKBONES[backbone]()).train()
    features = model.split.stem(pixel_values=pixel_values).features
    model.manual_seed(0)  # so that it draws no seed
    torch.manual_seed(5)
    torch.rand(())  # whether the batch is perturbed
    drawn = (1 + 0.75 * torch.randn(2, *features.shape[:2])).numpy()
    seen = []
    monkeypatch.setattr(
        model, "tail_logits", lambda *given, run=model.tail_logits: seen.append(given[1]) or run(*given)
    )
    torch.manual_seed(5)
    output = model(pixel_values=pixel_values, labels=labels)
    torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(output.logits, labels))
    for image in range(len(features)):
        for channel in range(features.shape[1]):
            own = features[image, channel].numpy()
            expected = (own - own.mean()) * drawn[1, image, channel] + own.mean() * drawn[0, image, channel]
            expected = np.maximum(expected, 0) if backbone == "resnet" else expected
            np.testing.assert_allclose(seen[0][image, channel].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_normalization_perturbation_leaves_half_of_the_batches():
    pixel_values, labels = batch()
    model = METHODS["np"].wrap(tiny_convnext()).train()
    plain = METHODS["plain"].wrap(tiny_convnext()).train()(pixel_values=pixel_values, labels=labels).loss
    torch.manual_seed(0)
    losses = [model(pixel_values=pixel_values, labels=labels).loss for _ in range(40)]
    assert 10 < sum(torch.allclose(loss, plain) for loss in losses) < 30


def restyled(monkeypatch, name, backbone):
    """Shapes and channel axes of the features that get other styles in one step, whatever the probability."""
    model = method_called(f"{name},probability=1").wrap(backbone).train()
    seen = []
    original = type(model).with_random_styles
    monkeypatch.setattr(
        type(model),
        "with_random_styles",
        lambda self, features, axis: seen.append((tuple(features.shape[1:]), axis)) or original(self, features, axis),
    )
    pixel_values, labels = batch()
    model(pixel_values=pixel_values, labels=labels).loss.backward()
    return model, seen


@pytest.mark.parametrize("backbone", BACKBONES)
def test_styles_are_changed_after_every_stage(backbone, monkeypatch):
    stages = []
    base = BACKBONES[backbone]()
    of = "layers" if backbone == "vit" else "stages"
    layers = [module for name, module in base.named_modules() if name.split(".")[-2:-1] == [of]]
    hooks = [layer.register_forward_hook(lambda _, __, output: stages.append(output)) for layer in layers]
    base(batch()[0])
    for hook in hooks:
        hook.remove()
    shapes = [tuple((output if torch.is_tensor(output) else output[0]).shape[1:]) for output in stages]
    assert len(shapes) == 4
    model, seen = restyled(monkeypatch, "mixstyle_places:alpha=0.3", BACKBONES[backbone]())
    assert [shape for shape, _ in seen] == shapes[:-1]
    assert not any(module._forward_hooks for module in model.backbone.modules())
    embeddings = tuple(model.split.stem(pixel_values=batch()[0]).features.shape[1:])
    _, seen = restyled(monkeypatch, "dsu_places:freeze_stem=true", BACKBONES[backbone]())
    assert [shape for shape, _ in seen] == [embeddings, *shapes]
    assert {axis for _, axis in seen} <= ({-1} if backbone == "vit" else {1})


def test_places_in_a_frozen_stem_are_left_out(monkeypatch):
    model, seen = restyled(monkeypatch, "dsu_places:insert_after=auto", tiny_resnet())
    assert len(seen) == 4
    assert list(model.places) == [f"resnet.encoder.stages.{stage}" for stage in (1, 2, 3)]
    with pytest.raises(InputError, match="insert_after"):
        method_called("mixstyle_places:insert_after=resnet.encoder.stages.2").wrap(tiny_resnet())


def test_styles_at_a_place_are_what_the_next_stage_sees(monkeypatch):
    """With a fixed change instead of a random style, the logits are those of a network changed after three stages."""
    pixel_values, labels = batch()
    model = method_called("mixstyle_places:probability=1").wrap(tiny_convnext()).train()
    monkeypatch.setattr(type(model), "with_random_styles", lambda self, features, axis: features / 2 + axis)
    found = model(pixel_values=pixel_values, labels=labels)
    plain = tiny_convnext().eval()
    for stage in plain.convnext.encoder.stages[:3]:
        stage.register_forward_hook(lambda _, __, output: output / 2 + 1)
    torch.testing.assert_close(found.logits, plain(pixel_values).logits)
