"""The decoder: where features lie in the image, what it learns, and whether it says when it learnt nothing."""

import pytest
import torch
from builders import rows, tiny_convnext, tiny_resnet, tiny_vit
from tiny_models import TinyClassifier
from torch import nn
from transformers import (
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTImageProcessorPil,
)

from advbn_hf import AdvBNConfig, AdvBNForImageClassification, InputError
from advbn_hf.visualization.decoder import Decoder, Quality, measure_quality, train_decoder
from advbn_hf.visualization.decoder_cache import decoder_file, kept_decoder
from advbn_hf.visualization.layout import MapLayout
from advbn_hf.visualization.pixels import PixelRange, to_images

PROCESSOR = ViTImageProcessorPil(size={"height": 32, "width": 32})
PIXELS = PixelRange(PROCESSOR)


def smooth_rows(num=64, seed=0):
    """Images (3, 32, 32) in [-1, 1] of one light spot each on a dark ground."""
    random = torch.Generator().manual_seed(seed)
    places = torch.rand(num, 2, 1, 1, generator=random) * 32
    colours = torch.rand(num, 3, 1, 1, generator=random)
    axis = torch.arange(32.0)
    distance = (axis[:, None] - places[:, 0]) ** 2 + (axis - places[:, 1]) ** 2
    spots = torch.exp(-distance / 150)[:, None]
    return [{"pixel_values": image, "labels": 0} for image in colours * spots - 0.8 * (1 - spots)]


def tiny_swin():
    torch.manual_seed(0)
    config = SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=4, image_size=32, patch_size=2)
    return SwinForImageClassification(config)


def tiny_dinov2_with_registers():
    torch.manual_seed(0)
    settings = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_register_tokens": 3}
    return Dinov2WithRegistersForImageClassification(
        Dinov2WithRegistersConfig(**settings, image_size=32, patch_size=8, intermediate_size=32)
    )


@pytest.mark.parametrize(
    ("build", "place", "channels", "grid", "leading"),
    [
        (tiny_resnet, "embeddings", 8, (8, 8), 0),
        (tiny_convnext, "embeddings", 8, (8, 8), 0),
        (tiny_swin, "embeddings", 8, (16, 16), 0),
        (tiny_vit, "embeddings", 16, (4, 4), 0),
        (tiny_vit, "auto", 16, (4, 4), 1),
        (tiny_dinov2_with_registers, "auto", 16, (4, 4), 4),
    ],
)
def test_features_are_laid_out_as_they_lie_in_the_image(build, place, channels, grid, leading):
    model = AdvBNForImageClassification.from_backbone(build(), AdvBNConfig(place)).eval()
    layout = MapLayout(model)
    assert (layout.channels, layout.grid, layout.leading) == (channels, grid, leading)
    batch = torch.stack([row["pixel_values"] for row in rows(2)])
    with torch.no_grad():
        maps = layout(model.split.stem(pixel_values=batch).features)
        assert maps.shape == (2, channels, *grid)
        drawn = Decoder(layout, (32, 40))(model.split.stem(pixel_values=batch).features)
    assert drawn.shape == (2, 3, 32, 40)
    assert drawn.min() >= 0 and drawn.max() <= 1


class Gridless(TinyClassifier):
    """Seven tokens that come from nowhere in the image."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, pixel_values):
        tokens = self.conv(pixel_values).flatten(2)[:, :, :7].movedim(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return self.classify(tokens.movedim(2, 1))


def test_tokens_on_no_grid_are_refused():
    model = AdvBNForImageClassification.from_backbone(Gridless(), AdvBNConfig(insert_after="blocks.0"))
    with pytest.raises(InputError, match=r"model: .*blocks.0 \(7 tokens\)"):
        MapLayout(model)


def test_colours_are_those_of_the_image():
    image = to_images(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)))[0]
    uneven = ViTImageProcessorPil(
        size={"height": 32, "width": 32}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.1]
    )
    pixels = PixelRange(uneven)
    inputs = uneven(image, return_tensors="pt")["pixel_values"]
    assert to_images(pixels.colours(inputs))[0].tobytes() == image.tobytes()
    torch.testing.assert_close(pixels.inputs(pixels.colours(inputs)), inputs, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_decoder_learns_to_draw_images_it_never_saw():
    model = AdvBNForImageClassification.from_backbone(tiny_resnet())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    decoder = train_decoder(model, PIXELS, smooth_rows(128), steps=60, batch_size=32)
    quality = measure_quality(model, decoder, PIXELS, smooth_rows(40, seed=1), batch_size=16)
    assert quality.images == 40
    quality.check()
    assert 0 <= quality.same_prediction <= 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    # against an independent computation, one image at a time
    psnr = []
    for row in smooth_rows(40, seed=1):
        image = row["pixel_values"][None]
        with torch.no_grad():
            drawn = decoder(model.split.stem(pixel_values=image).features)
        error = ((drawn - (image + 1) / 2) ** 2).mean()
        psnr.append(10 * torch.log10(1 / error))
    assert quality.psnr == pytest.approx(torch.stack(psnr).mean().item(), abs=1e-3)


def test_constant_features_are_drawn_as_one_colour():
    model = AdvBNForImageClassification.from_backbone(tiny_resnet(), AdvBNConfig("embeddings"))
    torch.manual_seed(0)
    decoder = Decoder(MapLayout(model), (32, 40)).eval()
    features = 5 * torch.randn(6, 8, 1, 1).expand(6, 8, 8, 8)
    with torch.no_grad():
        drawn = decoder(features)
    assert drawn.mean(dim=(2, 3)).std(dim=0).min() > 1e-3  # they differ from each other
    torch.testing.assert_close(drawn, drawn[:, :, :1, :1].expand_as(drawn), atol=1e-5, rtol=0)


def test_a_decoder_that_learnt_nothing_is_not_drawn_with():
    model = AdvBNForImageClassification.from_backbone(tiny_resnet())
    decoder = train_decoder(model, PIXELS, smooth_rows(16), steps=1, batch_size=16)
    quality = measure_quality(model, decoder, PIXELS, smooth_rows(16, seed=1), batch_size=16)
    with pytest.raises(InputError, match=r"decoder_steps: .* dB"):
        quality.check()
    with pytest.raises(InputError, match=r"5\.9 above images of one colour"):
        Quality(psnr=20.9, mean_colour_psnr=15.0, same_prediction=1.0, images=9).check()
    Quality(psnr=21.1, mean_colour_psnr=15.0, same_prediction=0.0, images=9).check()


def test_decoder_is_kept_and_found_again(tmp_path):
    model = AdvBNForImageClassification.from_backbone(tiny_resnet()).eval()
    path = decoder_file(tmp_path / "visualization", model, PROCESSOR, ["data", 5])
    trained = []

    def train():
        trained.append(train_decoder(model, PIXELS, smooth_rows(16), steps=2, batch_size=8))
        return trained[-1]

    first = kept_decoder(path, model, PIXELS, train)
    again = kept_decoder(path, model, PIXELS, train)
    assert len(trained) == 1
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    path.write_bytes(b"damaged")
    kept_decoder(path, model, PIXELS, train)
    assert len(trained) == 2

    # found by the stem, the processor and the training, whatever the tail
    other = AdvBNForImageClassification.from_backbone(tiny_resnet(seed=1))
    assert decoder_file(path.parent, other, PROCESSOR, ["data", 5]) != path
    assert decoder_file(path.parent, model, PROCESSOR, ["data", 6]) != path
    assert decoder_file(path.parent, model, ViTImageProcessorPil(do_normalize=False), ["data", 5]) != path
    torch.nn.init.zeros_(model.backbone.classifier[1].weight)
    assert decoder_file(path.parent, model, PROCESSOR, ["data", 5]) == path
