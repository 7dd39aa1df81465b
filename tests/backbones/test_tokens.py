"""Position codes, and tokens that are no patches: found by what models output."""

import pytest
import torch
from tiny_models import TinyClassifier, tiny_model
from torch import nn

from advbn_hf.backbones.split import Split


class Encoder(TinyClassifier):
    """Patches of 2 x 2 pixels and four blocks; `extended` adds what a class is named after."""

    def __init__(self, channels_first=False):
        super().__init__()
        self.channels_first = channels_first
        self.patches = nn.Conv2d(3, 4, 2, stride=2)
        self.between = nn.Identity()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv1d(4, 4, 1), nn.Tanh())
            if channels_first
            else nn.Sequential(nn.Linear(4, 4), nn.Tanh())
            for _ in range(4)
        )
        self.learned = nn.Parameter(torch.randn(2, 4))

    def extended(self, tokens):
        """Tokens (B, 64, 4)."""
        return tokens

    def forward(self, pixel_values):
        tokens = self.extended(self.patches(pixel_values).flatten(2).mT)
        tokens = self.between(tokens.mT if self.channels_first else tokens)
        for block in self.blocks:
            mixed = tokens.mean(dim=2 if self.channels_first else 1, keepdim=True)  # as attention mixes
            tokens = block(tokens) + mixed
        return self.classify(tokens if self.channels_first else tokens.mT)


class Positions(Encoder):
    def extended(self, tokens):
        return tokens + torch.linspace(0, 1, 64)[:, None]


class FirstAndLast(Encoder):
    """A class token in front and a register at the end."""

    def extended(self, tokens):
        first, last = (token.expand(len(tokens), 1, 4) for token in self.learned)
        return torch.cat([first, tokens, last], dim=1)


class MapWithPositions(TinyClassifier):
    """Maps (B, H, W, C), as in SAM: a position code is added before the blocks."""

    def __init__(self):
        super().__init__()
        self.start, self.coded = nn.Identity(), nn.Identity()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(4))
        self.code = nn.Parameter(torch.randn(16, 16, 4))

    def forward(self, pixel_values):
        features = self.coded(self.start(self.conv(pixel_values).movedim(1, -1)) + self.code)
        for block in self.blocks:
            features = block(features)
        return self.classify(features.movedim(-1, 1))


@pytest.mark.parametrize(
    ("make", "embeddings"),
    [
        (Encoder, "between"),
        (lambda: Encoder(channels_first=True), "between"),
        (Positions, "patches"),
        (FirstAndLast, "patches"),
        (lambda: FirstAndLast(channels_first=True), "patches"),
        (MapWithPositions, "start"),
    ],
)
def test_embeddings_hold_patches_alone(make, embeddings):
    split = Split(make(), "embeddings")
    assert (split.insert_after, split.other_tokens) == (embeddings, ())


def test_a_code_that_is_zero_does_nothing_and_moves_nothing():
    model = MapWithPositions()
    nn.init.zeros_(model.code)
    assert Split(model, "embeddings").insert_after == "coded"


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize("place", ["between", "blocks.0", "blocks.3"])
def test_other_tokens_are_those_that_do_not_vary_with_the_image(place, channels_first):
    assert Split(FirstAndLast(channels_first), place).other_tokens == (0, -1)
    assert Split(Positions(channels_first), place).other_tokens == ()


@pytest.mark.parametrize(
    ("name", "embeddings", "others"),
    [
        ("ViTForImageClassification", "vit.embeddings.patch_embeddings", (0,)),
        ("DeiTForImageClassificationWithTeacher", "deit.embeddings.patch_embeddings", (0, 1)),
        (
            "Dinov2WithRegistersForImageClassification",
            "dinov2_with_registers.embeddings.patch_embeddings",
            (0, 1, 2, 3, 4),
        ),
        ("CLIPForImageClassification", "vision_model.embeddings.patch_embedding", (0,)),
        ("IJepaForImageClassification", "ijepa.embeddings.patch_embeddings", ()),
        ("HieraForImageClassification", "hiera.embeddings.patch_embeddings", ()),
        # Perceiver's latents are all learned, and hold the image once attention has mixed it in.
        ("PerceiverForImageClassificationLearned", "perceiver.input_preprocessor.convnet_1x1", ()),
    ],
)
def test_tokens_of_transformers_models(name, embeddings, others):
    model = tiny_model(name)
    first, deeper = Split(model, "embeddings"), Split(model, "auto")
    assert (first.insert_after, first.other_tokens) == (embeddings, ())
    assert deeper.other_tokens == others
