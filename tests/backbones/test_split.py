"""Record and replay: the tail equals the uncut model and computes only itself; what cannot be cut is refused."""

from typing import NamedTuple

import pytest
import torch
from builders import images_and_labels, tiny_convnext, tiny_resnet, tiny_vit
from tiny_models import TinyClassifier, tiny_model
from torch import nn
from transformers import ResNetModel

from advbn_hf import InputError
from advbn_hf.backbones.insertion import insertion_points
from advbn_hf.backbones.split import Split

MODELS = {"resnet": tiny_resnet, "convnext": tiny_convnext, "vit": tiny_vit}


class Block(TinyClassifier):
    def __init__(self):
        super().__init__()
        self.block = nn.Conv2d(4, 4, 3, padding=1)


class WritesIntoItsInput(Block):
    def forward(self, pixel_values):
        features = self.conv(pixel_values)
        return self.classify(self.block(features.mul_(2).add_(1)))


class WritesIntoTheSkip(Block):
    """The tail writes into a feature map of the stem that is not the insertion module's."""

    def forward(self, pixel_values):
        skip = self.conv(pixel_values)
        features = self.block(skip)
        return self.classify(skip.add_(features))


class WritesWithinTheStem(Block):
    """Between its modules the stem changes a feature map that the tail uses."""

    def forward(self, pixel_values):
        skip = self.conv(pixel_values)
        skip += 1
        return self.classify(self.block(skip) + skip)


class SharedActivation(Block):
    """One module serves before and behind the insertion point."""

    def __init__(self):
        super().__init__()
        self.act = nn.Tanh()

    def forward(self, pixel_values):
        return self.classify(self.act(self.block(self.act(self.conv(pixel_values)))))


class LooseWeights(Block):
    """Weights of the model itself come in on both sides of the insertion point, as embeddings of positions do."""

    def __init__(self):
        super().__init__()
        self.before = nn.Parameter(torch.ones(4, 16, 16))
        self.after = nn.Parameter(torch.ones(4, 16, 16))

    def forward(self, pixel_values):
        return self.classify(self.block(self.conv(pixel_values) * self.before) * self.after)


class Activations(Block):
    """Feature maps of every sign: never negative, nothing but zeros, and both."""

    def __init__(self):
        super().__init__()
        self.positive = nn.Softplus()
        self.zero = nn.Threshold(torch.inf, 0)

    def forward(self, pixel_values):
        features = self.conv(pixel_values)
        return self.classify(self.block(self.positive(features) + self.zero(features)))


class Features(NamedTuple):
    maps: torch.Tensor
    mask: torch.Tensor


class Named(nn.Conv2d):
    """A layer that outputs a named tuple."""

    def forward(self, features):
        return Features(super().forward(features), torch.ones(len(features)))


class NamedOutputs(Block):
    """A stem of two layers whose outputs are named tuples, which the tail reads by name and writes into."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Named(4, 4, 1), Named(4, 4, 1)

    def forward(self, pixel_values):
        first = self.first(self.conv(pixel_values))
        second = self.second(first.maps)
        return self.classify(self.block(second.maps.mul_(2) + first.maps) * second.mask[:, None, None, None])


class Twice(Block):
    def forward(self, pixel_values):
        return self.classify(self.block(self.block(self.conv(pixel_values))))


class NeedsMore(TinyClassifier):
    def forward(self, pixel_values, bool_masked_pos):
        return self.classify(self.conv(pixel_values))


class Unsteady(Block):
    """Counts its passes, so that a second one gives something else."""

    def __init__(self):
        super().__init__()
        self.passes = 0

    def forward(self, pixel_values):
        self.passes += 1
        return self.classify(self.block(self.conv(pixel_values)) * self.passes)


def attributes_of(model):
    """What every module holds."""
    return [
        {name: dict(value) if isinstance(value, dict) else value for name, value in vars(module).items()}
        for module in model.modules()
    ]


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_replay_equals_the_uncut_model_bit_for_bit(name):
    model = MODELS[name]().eval()
    images, _ = images_and_labels()
    uncut = model(images).logits
    for insert_after in ["embeddings", "auto", *(point.path for point in insertion_points(model))]:
        split = Split(model, insert_after)
        assert torch.equal(split.tail(split.stem(pixel_values=images)).logits, uncut), insert_after


def test_rectified_features_are_found():
    assert Split(tiny_resnet(), "auto").rectified
    assert not Split(tiny_convnext(), "auto").rectified
    assert not Split(tiny_vit(), "auto").rectified
    assert Split(Activations(), "positive").rectified
    assert not Split(Activations(), "zero").rectified  # zeros say nothing
    assert not Split(Activations(), "block").rectified


@torch.no_grad()
def test_the_stem_does_not_run_again_and_the_tail_not_at_first():
    model = tiny_resnet().eval()
    runs = []
    for path, module in model.named_modules():
        if not list(module.children()):
            compute = module.forward
            module.forward = lambda *a, path=path, compute=compute: (runs.append(path), compute(*a))[1]
    split = Split(model, "auto")
    runs.clear()
    recording = split.stem(pixel_values=images_and_labels()[0])
    in_stem = set(runs)
    runs.clear()
    split.tail(recording)
    assert in_stem
    assert not in_stem & set(runs)
    assert not any("stages.1" in path for path in in_stem)


@torch.no_grad()
def test_other_features_reach_the_tail_and_the_model_computes_as_before():
    model = tiny_resnet().eval()
    images, _ = images_and_labels()
    expected = model(images).logits
    split = Split(model, "auto")
    before = attributes_of(model)
    recording = split.stem(pixel_values=images)
    assert not torch.equal(split.tail(recording, recording.features * 2).logits, split.tail(recording).logits)
    with pytest.raises(RuntimeError):
        split.tail(recording, recording.features[:, :3])
    assert torch.equal(model(images).logits, expected)
    assert attributes_of(model) == before


@torch.no_grad()
def test_rows_of_a_recording():
    model = tiny_vit().eval()
    split = Split(model, "vit.layers.1")
    recording = split.stem(pixel_values=images_and_labels()[0])
    index = torch.tensor([5, 2])
    torch.testing.assert_close(split.tail(recording.rows(index)).logits, split.tail(recording).logits[index])


@torch.no_grad()
def test_rows_of_other_features():
    split = Split(tiny_vit().eval(), "vit.layers.1")
    recording = split.stem(pixel_values=images_and_labels()[0])
    other, index = recording.with_features(2 * recording.features), torch.tensor([5, 2])
    assert torch.equal(other.rows(index).features, 2 * recording.features[index])
    torch.testing.assert_close(
        split.tail(other.rows(index)).logits, split.tail(recording, 2 * recording.features).logits[index]
    )


@pytest.mark.parametrize(("make", "insert_after"), [(WritesIntoItsInput, "conv"), (WritesIntoTheSkip, "block")])
@torch.no_grad()
def test_a_tail_that_writes_into_a_feature_map_gets_a_copy(make, insert_after):
    model = make().eval()
    split = Split(model, insert_after)
    images, _ = images_and_labels(size=16)
    recording = split.stem(pixel_values=images)
    first = split.tail(recording).logits
    assert torch.equal(split.tail(recording).logits, first)
    assert torch.equal(model(images).logits, first)


@torch.no_grad()
def test_named_tuples_are_recorded_cut_into_rows_and_replayed():
    model = NamedOutputs().eval()
    split = Split(model, "second")
    images, _ = images_and_labels(size=16)
    recording = split.stem(pixel_values=images)
    assert torch.equal(split.tail(recording).logits, model(images).logits)
    index = torch.tensor([5, 2])
    torch.testing.assert_close(split.tail(recording.rows(index)).logits, model(images).logits[index])
    other = split.tail(recording, 2 * recording.features).logits
    assert not torch.allclose(other, model(images).logits)


@torch.no_grad()
def test_wrapping_leaves_nothing_behind_that_modules_keep_in_eval_mode():
    """LeViT keeps attention biases from its first pass in eval mode until it is put into train mode."""
    plain, model = (tiny_model("LevitForImageClassification") for _ in range(2))
    split = Split(model, "auto")
    for weight in plain.parameters():
        weight += 0.1 * torch.randn(weight.shape)
    model.load_state_dict(plain.state_dict())
    images, _ = images_and_labels(size=64)
    assert torch.equal(split.tail(split.stem(pixel_values=images)).logits, plain(images).logits)


@torch.no_grad()
def test_a_module_shared_by_stem_and_tail_still_computes_in_the_tail():
    model = SharedActivation().eval()
    images, _ = images_and_labels(size=16)
    split = Split(model, "block")
    assert torch.equal(split.tail(split.stem(pixel_values=images)).logits, model(images).logits)


@pytest.mark.parametrize("frozen_tail", [False, True])
def test_weights_outside_of_the_stem_s_modules_belong_to_the_stem(frozen_tail):
    model = LooseWeights()
    for module in (model.head, model.block):
        module.requires_grad_(not frozen_tail)
    model.after.requires_grad_(not frozen_tail)
    stem = {id(weight) for weight in Split(model, "block").stem_weights}
    assert {name for name, weight in model.named_parameters() if id(weight) in stem} == {
        *("before", "conv.weight", "conv.bias", "block.weight", "block.bias")
    }


@pytest.mark.parametrize(
    ("make", "insert_after", "message"),
    [
        (tiny_resnet, "resnet.encoder.stage.0", r"no module 'resnet\.encoder\.stage\.0'.*resnet\.encoder\.stages\.0"),
        (tiny_resnet, "classifier.1", "classifier.1 .*feature map"),
        (tiny_vit, "vit.layers.9", "no module"),
        (Twice, "block", "block .*2 times"),
        (NeedsMore, "conv", r"NeedsMore does not run on pixel_values \(2, 3, 16, 16\) alone.*bool_masked_pos"),
        (WritesWithinTheStem, "block", "block .*logits"),
        (Unsteady, "block", "block .*logits"),
        (lambda: ResNetModel(tiny_resnet().config), "auto", "ResNetModel .*logits"),
    ],
)
def test_what_cannot_be_cut_is_said_in_one_line(make, insert_after, message):
    with pytest.raises(InputError, match=message) as raised:
        Split(make(), insert_after)
    assert "\n" not in str(raised.value)
