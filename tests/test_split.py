"""Record and replay: the tail gives what the whole model gives, computes only itself, and says what it cannot do."""

import pytest
import torch
from builders import pictures_and_labels, tiny_convnext, tiny_resnet, tiny_vit
from torch import nn
from transformers import PreTrainedModel, ResNetConfig, ResNetModel
from transformers.modeling_outputs import ImageClassifierOutput

from advbn_hf import InputError
from advbn_hf.split import Split, candidates

MODELS = {"resnet": tiny_resnet, "convnext": tiny_convnext, "vit": tiny_vit}
AUTO = {
    "resnet": "resnet.encoder.stages.0",
    "convnext": "convnext.encoder.stages.0",
    "vit": "vit.layers.0",
}


class TinyClassifier(PreTrainedModel):
    """A base for models with one oddity each."""

    config_class = ResNetConfig
    main_input_name = "pixel_values"

    def __init__(self, **settings):
        super().__init__(ResNetConfig(num_labels=3, image_size=16, **settings))
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.block = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def classify(self, features):
        return ImageClassifierOutput(logits=self.head(features.mean((2, 3))))


class Twice(TinyClassifier):
    def forward(self, pixel_values):
        return self.classify(self.block(self.block(self.conv(pixel_values))))


class WritesIntoItsInput(TinyClassifier):
    def forward(self, pixel_values):
        features = self.conv(pixel_values)
        return self.classify(self.block(features.mul_(2).add_(1)))


class SharedActivation(TinyClassifier):
    """One module serves before and behind the insertion point."""

    def __init__(self):
        super().__init__()
        self.act = nn.Tanh()

    def forward(self, pixel_values):
        return self.classify(self.act(self.block(self.act(self.conv(pixel_values)))))


class NeedsMore(TinyClassifier):
    def forward(self, pixel_values, bool_masked_pos):
        return self.classify(self.conv(pixel_values))


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_replay_equals_the_whole_model_bit_for_bit(name):
    model = MODELS[name]().eval()
    pictures, _ = pictures_and_labels()
    whole = model(pictures).logits
    for insert_after in ["auto", *(call.path for call in candidates(model))]:
        split = Split(model, insert_after)
        assert torch.equal(split.tail(split.stem(pixel_values=pictures)).logits, whole), insert_after


@pytest.mark.parametrize("name", MODELS)
def test_auto_insertion(name):
    assert Split(MODELS[name](), "auto").insert_after == AUTO[name]


def test_rectified_features_are_found():
    assert Split(tiny_resnet()).rectified
    assert not Split(tiny_convnext()).rectified
    assert not Split(tiny_vit()).rectified


@torch.no_grad()
def test_the_stem_does_not_run_again_and_the_tail_not_at_first():
    model = tiny_resnet().eval()
    split = Split(model)
    runs = []
    for path, module in model.named_modules():
        if not list(module.children()):
            compute = module.forward
            module.forward = lambda *a, path=path, compute=compute: (runs.append(path), compute(*a))[1]
    recording = split.stem(pixel_values=pictures_and_labels()[0])
    in_stem = set(runs)
    runs.clear()
    split.tail(recording)
    assert in_stem
    assert not in_stem & set(runs)
    assert not any("stages.1" in path for path in in_stem)


@torch.no_grad()
def test_other_features_reach_the_tail_and_modules_are_left_as_they_were():
    model = tiny_resnet().eval()
    split = Split(model)
    recording = split.stem(pixel_values=pictures_and_labels()[0])
    assert not torch.equal(split.tail(recording, recording.features * 2).logits, split.tail(recording).logits)
    with pytest.raises(RuntimeError):
        split.tail(recording, recording.features[:, :3])
    assert not [path for path, module in model.named_modules() if "forward" in vars(module)]
    assert not [path for path, module in model.named_modules() if module._forward_hooks]


@torch.no_grad()
def test_rows_of_a_recording():
    model = tiny_vit().eval()
    split = Split(model, "vit.layers.1")
    recording = split.stem(pixel_values=pictures_and_labels()[0])
    index = torch.tensor([5, 2])
    torch.testing.assert_close(split.tail(recording.rows(index)).logits, split.tail(recording).logits[index])


@torch.no_grad()
def test_a_tail_that_writes_into_its_input_gets_a_copy():
    model = WritesIntoItsInput().eval()
    split = Split(model, "conv")
    pictures, _ = pictures_and_labels(size=16)
    recording = split.stem(pixel_values=pictures)
    first = split.tail(recording).logits
    assert torch.equal(split.tail(recording).logits, first)
    assert torch.equal(model(pictures).logits, first)


@torch.no_grad()
def test_a_module_shared_by_stem_and_tail_still_computes_in_the_tail():
    model = SharedActivation().eval()
    pictures, _ = pictures_and_labels(size=16)
    split = Split(model, "block")
    assert torch.equal(split.tail(split.stem(pixel_values=pictures)).logits, model(pictures).logits)


@pytest.mark.parametrize(
    ("make", "insert_after", "message"),
    [
        (tiny_resnet, "resnet.encoder.stage.0", r"no module 'resnet\.encoder\.stage\.0'.*resnet\.encoder\.stages\.0"),
        (tiny_resnet, "classifier.1", "classifier.1 gives out no feature map"),
        (tiny_vit, "vit.layers.9", "no module"),
        (Twice, "block", "block runs 2 times"),
        (Twice, "auto", "finds no sequence"),
        (NeedsMore, "conv", "NeedsMore does not run on pixel_values alone.*bool_masked_pos"),
        (lambda: ResNetModel(tiny_resnet().config), "auto", "ResNetModel returns no logits"),
    ],
)
def test_what_cannot_be_cut_is_said_in_one_line(make, insert_after, message):
    with pytest.raises(InputError, match=message) as raised:
        Split(make(), insert_after)
    assert "\n" not in str(raised.value)
