"""A small decoder from a stem's features back to images, its training, and how far what it draws can be trusted."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..data.images import collate
from ..errors import InputError
from ..modeling import AdvBNForImageClassification
from .layout import MapLayout
from .pixels import PixelRange

WIDTH, DEPTH = 64, 3  # channels and residual blocks: a small one, since it has to be trained in minutes on a CPU
LEAST_WIDTH = 16  # channels halve with each upsampling, down to these
LEARNING_RATE = 3e-3
# The PSNR of a reconstruction must be this many dB above that of the image's mean colour. 6 dB are a quarter of the
# squared error: three quarters of the variance within an image are recovered. Measured on the quickstart's base model
# cut after each of its stages, with decoders of 20 and of 150 steps: at 6.3 dB and more the model predicts the same
# class for 95 % and more of the reconstructions as for the images, at 5.7 dB and less for 20 to 84 %.
LEAST_GAIN = 6.0


class Decoder(nn.Module):
    """Convolutions at the resolution of the features, then bilinear upsampling by 2 with a convolution before each.

    Features that are constant over an image are drawn as one colour, whatever their values, since all pixels share
    their filters and padding repeats the border. Sub-pixel or transposed convolutions have filters of their own for
    each pixel of a cell; they agree on features of images only, and draw perturbed ones with a grid (Odena et al.,
    "Deconvolution and Checkerboard Artifacts", Distill 2016).

    Args:
        layout: of the stem's features.
        size: height and width of the images.
    """

    def __init__(self, layout: MapLayout, size: tuple[int, int]) -> None:
        super().__init__()
        self.layout, self.size = layout, size
        scale = max(math.ceil(side / places) for side, places in zip(size, layout.grid, strict=True))
        widths = [max(WIDTH >> times, LEAST_WIDTH) for times in range(math.ceil(math.log2(scale)) + 1)]
        self.layers = nn.Sequential(
            nn.BatchNorm2d(layout.channels, affine=False),  # features have any scale
            _convolution(layout.channels, WIDTH),
            *(_Residual(WIDTH) for _ in range(DEPTH)),
            *(_Upsampling(*pair) for pair in pairwise(widths)),
            _Residual(widths[-1]),
            nn.ReLU(),
            _convolution(widths[-1], 3),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Colours (B, 3, H, W) in 0..1 of features as the stem outputs them."""
        drawn = self.layers(self.layout(features.float()))
        if drawn.shape[2:] != self.size:
            drawn = F.interpolate(drawn, self.size, mode="bilinear")
        return drawn.sigmoid()


class _Residual(nn.Sequential):
    def __init__(self, width: int) -> None:
        super().__init__(nn.ReLU(), _convolution(width, width), nn.ReLU(), _convolution(width, width))

    def forward(self, maps: Tensor) -> Tensor:
        return maps + super().forward(maps)


class _Upsampling(nn.Sequential):
    def __init__(self, width: int, narrower: int) -> None:
        super().__init__(nn.ReLU(), _convolution(width, narrower), nn.Upsample(scale_factor=2, mode="bilinear"))


def _convolution(width: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(width, outputs, 3, padding=1, padding_mode="replicate")


def train_decoder(
    model: AdvBNForImageClassification,
    pixels: PixelRange,
    images: Dataset,
    *,
    steps: int,
    batch_size: int,
    num_workers: int = 0,
    seed: int = 0,
) -> Decoder:
    """Trains a decoder for a model's stem, which is not changed, on the mean squared error of colours.

    Args:
        model: whose stem it is; on the device to train on.
        pixels: of its image processor.
        images: rows `{"pixel_values", "labels"}`, as of `ImageDataset`.
        steps: of AdamW, with a one-cycle learning rate.
        batch_size: images in a step.
        num_workers: processes that decode images.
        seed: of weights and order.

    Returns:
        The decoder, in eval mode, on the model's device.

    Raises:
        InputError: if the features do not lie on a grid, or an image cannot be decoded.
    """
    model.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = Decoder(MapLayout(model), pixels.size).to(model.device)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    loader = DataLoader(
        images,
        batch_size=batch_size,
        shuffle=True,
        collate_fn=collate,
        num_workers=num_workers,
        generator=torch.Generator().manual_seed(seed),
    )
    bar = tqdm(zip(range(steps), _endless(loader), strict=False), desc="decoder", total=steps, unit="step")
    for step, batch in bar:
        pixel_values = batch["pixel_values"].to(model.device)
        with torch.no_grad():
            features = model.split.stem(pixel_values=pixel_values).features
        loss = F.mse_loss(decoder(features), pixels.colours(pixel_values))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0:  # seldom, since it waits for the device
            bar.set_postfix_str(f"{-10 * math.log10(loss.item()):.1f} dB")
    return decoder.eval()


@dataclass(frozen=True)
class Quality:
    """How close plain reconstructions are to their images.

    Args:
        psnr: peak signal-to-noise ratio of the reconstructions in dB, mean over images.
        mean_colour_psnr: the same of images of one colour, each image's mean.
        same_prediction: share of images for whose reconstruction the clean branch predicts the same class, in 0..1.
        images: how many were measured.
    """

    psnr: float
    mean_colour_psnr: float
    same_prediction: float
    images: int

    def __str__(self) -> str:
        return (
            f"plain reconstructions: PSNR {self.psnr:.1f} dB (one colour each: {self.mean_colour_psnr:.1f} dB); for "
            f"{self.same_prediction:.0%} of them the clean branch predicts the class that it predicts for the image "
            f"({self.images:,} images)"
        )

    def check(self) -> None:
        """Checks that reconstructions are good enough for what the decoder draws to mean something.

        Raises:
            InputError: with the measured figures.
        """
        gain = self.psnr - self.mean_colour_psnr
        if gain < LEAST_GAIN:
            raise InputError(
                f"decoder_steps: reconstructions are too poor to draw anything: PSNR {self.psnr:.1f} dB, {gain:.1f} "
                f"above images of one colour, where {LEAST_GAIN:g} are needed; train longer or on more images, or "
                "take a model that is cut earlier"
            )


@torch.no_grad()
def measure_quality(
    model: AdvBNForImageClassification, decoder: Decoder, pixels: PixelRange, images: Dataset, batch_size: int
) -> Quality:
    """Measures a decoder on images that it was not trained on.

    Args:
        model: whose stem the decoder is for.
        decoder: from `train_decoder`.
        pixels: of the model's image processor.
        images: rows as of `ImageDataset`.
        batch_size: images at a time.

    Raises:
        InputError: if an image cannot be decoded.
    """
    model.eval()
    totals = torch.zeros(4, dtype=torch.float64)
    loader = DataLoader(images, batch_size=batch_size, collate_fn=collate)
    for batch in tqdm(loader, desc="measuring the decoder", unit="batch", leave=False, delay=3):
        pixel_values = batch["pixel_values"].to(model.device)
        recording = model.split.stem(pixel_values=pixel_values)
        colours, drawn = pixels.colours(pixel_values), decoder(recording.features)
        of_image = model.tail_logits(recording, None, "clean").argmax(dim=1)
        of_drawn = model(pixel_values=pixels.inputs(drawn).to(pixel_values), branch="clean").logits.argmax(dim=1)
        mean_colour = colours.mean(dim=(2, 3), keepdim=True)
        sums = [_psnr(drawn, colours).sum(), _psnr(mean_colour, colours).sum(), (of_image == of_drawn).sum()]
        totals += torch.tensor([*(value.item() for value in sums), len(colours)], dtype=torch.float64)
    psnr, mean_colour_psnr, same, count = totals.tolist()
    return Quality(psnr / count, mean_colour_psnr / count, same / count, int(count))


def _psnr(drawn: Tensor, colours: Tensor) -> Tensor:
    """(B,) in dB, for a peak of 1; at most 100, also where both are equal."""
    return -10 * (drawn - colours).square().mean(dim=(1, 2, 3)).clamp(min=1e-10).log10()


def _endless(loader: DataLoader) -> Iterator[dict[str, Any]]:
    while True:
        yield from loader
