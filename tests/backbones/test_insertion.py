"""Where "embeddings" and "auto" cut, which axis holds the channels, and the table of insertion points."""

import pytest
import torch
from builders import tiny_convnext, tiny_resnet, tiny_vit
from tiny_models import TinyClassifier, tiny_model
from torch import nn
from transformers import (
    EfficientNetConfig,
    EfficientNetForImageClassification,
    RegNetConfig,
    RegNetForImageClassification,
)

from advbn_hf import InputError
from advbn_hf.backbones.insertion import InsertionPoint, insertion_points, stage_ends, to_text
from advbn_hf.backbones.split import Split
from advbn_hf.backbones.tracing import probe, probe_inputs


class Block(nn.Sequential):
    """A residual block."""

    def __init__(self, width=4):
        super().__init__(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width))

    def forward(self, features):
        return features + super().forward(features)


class OtherBlock(Block):
    """A block of another class."""


class Isotropic(TinyClassifier):
    def __init__(self, depth):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(depth))

    def forward(self, pixel_values):
        features = self.conv(pixel_values)
        for block in self.blocks:
            features = block(features)
        return self.classify(features)


class StagesByName(TinyClassifier):
    """Stages are attributes, and each is a list of blocks; the stem is a list of layers."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.layer1 = nn.Sequential(Block(), Block())
        self.layer2 = nn.Sequential(nn.MaxPool2d(2), Block(), Block(), Block())
        self.layer3 = nn.Sequential(nn.MaxPool2d(2), Block())

    def forward(self, pixel_values):
        return self.classify(self.layer3(self.layer2(self.layer1(self.pool(self.stem(self.conv(pixel_values)))))))


class StagesFromFullSize(TinyClassifier):
    """As of small images: a quarter of their side is reached by the third stage only, which is deep."""

    def __init__(self):
        super().__init__()
        self.layer1 = nn.Sequential(Block(), Block())
        self.layer2 = nn.Sequential(nn.MaxPool2d(2), Block())
        self.layer3 = nn.Sequential(nn.MaxPool2d(2), Block())

    def forward(self, pixel_values):
        return self.classify(self.layer3(self.layer2(self.layer1(self.conv(pixel_values)))))


class BlocksAndLayersInOneList(TinyClassifier):
    """As in DenseNet: convolutions and poolings stand beside the blocks, of which there are two classes."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.MaxPool2d(2), Block(), OtherBlock(), nn.MaxPool2d(2), Block()
        )

    def forward(self, pixel_values):
        return self.classify(self.features(pixel_values))


class ListsInAList(TinyClassifier):
    """The lists of the stages are never called, only the blocks in them; the last stage is the largest."""

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList(nn.ModuleList(Block() for _ in range(depth)) for depth in (2, 1, 6))
        self.pools = nn.ModuleList(nn.MaxPool2d(2) for _ in self.stages)

    def forward(self, pixel_values):
        features = self.conv(pixel_values)
        for pool, stage in zip(self.pools, self.stages, strict=True):
            features = pool(features)
            for block in stage:
                features = block(features)
        return self.classify(features)


class Recurrent(TinyClassifier):
    """The same blocks run several times."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block())

    def forward(self, pixel_values):
        features = self.conv(pixel_values)
        for _ in range(3):
            features = self.blocks(features)
        return self.classify(features)


class LargeHead(TinyClassifier):
    """As in MobileNetV3: a convolution at each end, together larger than the blocks between them."""

    def __init__(self):
        super().__init__(width=64)
        self.conv = nn.Conv2d(3, 4, 1)
        self.first = Block()
        self.second = Block()
        self.last = nn.Conv2d(4, 64, 3, stride=2)

    def forward(self, pixel_values):
        return self.classify(self.last(self.second(self.first(self.conv(pixel_values)))))


class OneLayer(TinyClassifier):
    def forward(self, pixel_values):
        return self.classify(self.conv(pixel_values))


class ChannelsLast(TinyClassifier):
    """Channels are the last axis between the blocks, and each block ends in a layer without weights."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GELU()) for _ in range(4))

    def forward(self, pixel_values):
        features = self.conv(pixel_values).movedim(1, -1)
        for block in self.blocks:
            features = block(features)
        return self.classify(features.movedim(-1, 1))


class ChannelsFirstTokens(TinyClassifier):
    """Features are (B, C, N)."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Conv1d(4, 4, 1) for _ in range(4))

    def forward(self, pixel_values):
        features = self.conv(pixel_values).flatten(2)
        for block in self.blocks:
            features = block(features)
        return self.classify(features)


def efficientnet_b0():
    """Its blocks as published; the smallest image that leaves a pixel of them."""
    config = EfficientNetConfig(image_size=32, width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280)
    return EfficientNetForImageClassification(config).eval()


def regnet_of_34_pixels():
    """Its first stage has 9 pixels: a quarter of the side, rounded up."""
    sizes = {"embedding_size": 4, "hidden_sizes": [4, 8, 8, 8], "depths": [1, 1, 1, 1], "groups_width": 4}
    return RegNetForImageClassification(RegNetConfig(image_size=34, **sizes)).eval()


@pytest.mark.parametrize(
    ("make", "embeddings", "auto"),
    [
        (tiny_resnet, "resnet.embedder", "resnet.encoder.stages.0"),
        (tiny_convnext, "convnext.embeddings", "convnext.encoder.stages.0"),
        (tiny_vit, "vit.embeddings.patch_embeddings", "vit.layers.0"),
        (lambda: Isotropic(4), "conv", "blocks.0"),
        (lambda: Isotropic(5), "conv", "blocks.1"),
        (lambda: Isotropic(12), "conv", "blocks.2"),
        (StagesByName, "pool", "layer1"),
        (BlocksAndLayersInOneList, "features.2", "features.4"),
        (ListsInAList, "pools.0", "stages.0.1"),
        (LargeHead, "conv", "first"),
        # Patches alone: a position code is added to them at once, or after a norm.
        (
            lambda: tiny_model("SiglipForImageClassification"),
            "vision_model.embeddings.patch_embedding",
            "vision_model.encoder.layers.0",
        ),
        (
            lambda: tiny_model("PvtForImageClassification"),
            "pvt.encoder.patch_embeddings.0.layer_norm",
            "pvt.encoder.block.0.1",
        ),
        (lambda: tiny_model("SwinForImageClassification"), "swin.embeddings", "swin.encoder.layers.0"),
        # A stage comes before the last four, and what comes before that has half the image's side.
        (
            lambda: tiny_model("MobileViTForImageClassification"),
            "mobilevit.encoder.layer.1",
            "mobilevit.encoder.layer.1",
        ),
        (efficientnet_b0, "efficientnet.encoder.blocks.1", "efficientnet.encoder.blocks.2"),
        (lambda: tiny_model("MobileNetV2ForImageClassification"), "mobilenet_v2.layer.0", "mobilenet_v2.layer.1"),
        (lambda: tiny_model("RegNetForImageClassification"), "regnet.encoder.stages.0", "regnet.encoder.stages.0"),
        (regnet_of_34_pixels, "regnet.encoder.stages.0", "regnet.encoder.stages.0"),
        (StagesFromFullSize, "conv", "layer1"),
        # The first stage holds the embeddings, or the stem is of the blocks' own class.
        (lambda: tiny_model("PvtV2ForImageClassification"), "pvt_v2.encoder.layers.0", "pvt_v2.encoder.layers.0"),
        (lambda: tiny_model("MobileNetV1ForImageClassification"), "mobilenet_v1.layer.2", "mobilenet_v1.layer.5"),
        # What is learned, as Perceiver's latents are, is no image's feature map.
        (
            lambda: tiny_model("PerceiverForImageClassificationLearned"),
            "perceiver.input_preprocessor.convnet_1x1",
            "perceiver.encoder.self_attends.0",
        ),
    ],
)
def test_named_places(make, embeddings, auto):
    assert [Split(make(), name).insert_after for name in ("embeddings", "auto")] == [embeddings, auto]


def test_embeddings_come_before_blocks_that_run_several_times():
    assert Split(Recurrent(), "embeddings").insert_after == "conv"


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (Recurrent, "auto", "insert_after: blocks.0 .*3 times"),
        (OneLayer, "auto", '"auto" .*stages'),
        (OneLayer, "embeddings", '"embeddings" .*stages'),
    ],
)
def test_where_a_named_place_cannot_be_found_is_said_in_one_line(make, name, message):
    with pytest.raises(InputError, match=message) as raised:
        Split(make(), name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("make", "insert_after", "axis"),
    [
        (tiny_resnet, "resnet.encoder.stages.1", 1),
        (tiny_convnext, "convnext.encoder.stages.0", 1),
        (tiny_convnext, "convnext.encoder.stages.0.layers.0.pwconv1", -1),
        (tiny_vit, "vit.layers.1", -1),
        (tiny_vit, "vit.layers.1.mlp", -1),
        # A table of 16 positions comes last, and there are 16 tokens.
        (lambda: tiny_model("SiglipForImageClassification"), "vision_model.embeddings", -1),
        (ChannelsLast, "auto", -1),
        (ChannelsFirstTokens, "auto", 1),
    ],
)
def test_channel_axis(make, insert_after, axis):
    assert Split(make(), insert_after).channel_axis == axis


@pytest.mark.parametrize("make", [tiny_resnet, tiny_vit])
def test_insertion_points_tell_shape_and_share_of_the_cost(make):
    model = make()
    points = insertion_points(model)
    shares = [point.share for point in points]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] <= 1
    by_path = {point.path: point for point in points}
    chosen = by_path[Split(model, "auto").insert_after]
    before = by_path[Split(model, "embeddings").insert_after]
    assert [(point, point.names) for point in points if point.names] == [
        (before, ("embeddings",)),
        (chosen, ("auto",)),
    ]
    assert chosen.shape == ((8, 8, 8) if make is tiny_resnet else (17, 16))
    if make is tiny_vit:  # patches, four equal blocks, and a head; a multiplication and an addition are two operations
        tokens, width, inner = 17, 16, 32
        block = 2 * (4 * tokens * width * width + 2 * tokens * tokens * width + 2 * tokens * width * inner)
        patches, head = 2 * 16 * width * 3 * 8 * 8, 2 * width * 5
        total = patches + 4 * block + head
        assert chosen.share == pytest.approx((patches + block) / total)
        assert by_path["vit.layers.2"].share == pytest.approx((patches + 3 * block) / total)


def test_points_are_listed_where_no_place_has_a_name():
    points = insertion_points(OneLayer())
    assert [(point.path, point.names) for point in points] == [("conv", ())]


def test_one_place_may_have_both_names():
    points = insertion_points(tiny_model("PvtV2ForImageClassification"))
    (named,) = (point for point in points if point.names)
    assert named.names == ("embeddings", "auto")
    assert to_text(points).count("  <- embeddings, auto\n") == 1


def test_listing_leaves_the_model_as_it_was():
    model = tiny_model("LevitForImageClassification").train()
    model.requires_grad_(True).classifier.requires_grad_(False)
    insertion_points(model)
    assert all(module.training for module in model.modules())
    assert not [path for path, module in model.named_modules() if module._forward_hooks]
    assert {weight.requires_grad for weight in model.classifier.parameters()} == {False}
    assert all(weight.grad is None for weight in model.parameters())


def test_table_of_insertion_points():
    points = [
        InsertionPoint("stem", (8, 16, 16), 0.25, ("embeddings",)),
        InsertionPoint("encoder.layers.0", (65, 8), 0.5, ("auto",)),
        InsertionPoint("encoder.layers.1", (65, 8), 1.0),
    ]
    assert to_text(points).splitlines() == [
        "module            output        share",
        "stem              8 x 16 x 16   25.0%  <- embeddings",
        "encoder.layers.0  65 x 8        50.0%  <- auto",
        "encoder.layers.1  65 x 8       100.0%",
    ]


def test_every_named_point_can_be_cut_at():
    model = StagesByName().eval()
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        whole = model(images).logits
        for point in insertion_points(model):
            split = Split(model, point.path)
            assert torch.equal(split.tail(split.stem(pixel_values=images)).logits, whole), point.path


@pytest.mark.parametrize(
    ("make", "ends"),
    [
        (tiny_resnet, [f"resnet.encoder.stages.{stage}" for stage in range(4)]),
        (ListsInAList, ["stages.0.1", "stages.1.0", "stages.2.5"]),
        (BlocksAndLayersInOneList, ["features.4", "features.6"]),
        (lambda: Isotropic(12), ["blocks.2", "blocks.5", "blocks.8", "blocks.11"]),
        (lambda: Isotropic(2), ["blocks.0", "blocks.1"]),
        (efficientnet_b0, [f"efficientnet.encoder.blocks.{block}" for block in (0, 2, 4, 10, 15)]),
    ],
)
def test_stages_end_where_the_resolution_changes_or_with_each_quarter(make, ends):
    model = make().eval()
    calls, _ = probe(model, probe_inputs(model))
    assert [call.path for call in stage_ends(model, calls)] == ends
