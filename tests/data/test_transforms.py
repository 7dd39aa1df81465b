"""Transforms against the processors themselves, and the random crop against its definition."""

import math
import pickle
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.mobilevit.image_processing_pil_mobilevit import MobileViTImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from advbn_hf.data.transforms import EvaluationTransform, TrainingTransform, random_crop_box, resized, to_rgb
from advbn_hf.errors import InputError

PROCESSORS = {  # processor -> the size (height, width) it gives
    "height and width": (ViTImageProcessorPil(size={"height": 32, "width": 40}), (32, 40)),
    "shortest edge and crop": (CLIPImageProcessorPil(size={"shortest_edge": 36}, crop_size=32), (32, 32)),
    "crop_pct": (ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=0.8), (32, 32)),
    "BGR, not normalised": (MobileViTImageProcessorPil(size={"shortest_edge": 36}, crop_size=32), (32, 32)),
}


@pytest.fixture
def image() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((90, 70), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("kind", PROCESSORS)
def test_evaluation_is_the_processor_itself(kind, image):
    processor, size = PROCESSORS[kind]
    pixels = EvaluationTransform(processor)(image)
    assert pixels.shape == (3, *size) and pixels.dtype == torch.float32
    assert torch.equal(pixels, processor([image], return_tensors="pt")["pixel_values"][0])


@pytest.mark.parametrize("kind", PROCESSORS)
def test_training_gives_the_same_size_and_scale(kind):
    """Of an image of one colour every crop is alike, so both transforms must agree on every pixel."""
    processor, size = PROCESSORS[kind]
    plain = Image.new("RGB", (90, 70), (200, 100, 50))
    pixels = TrainingTransform(processor)(plain)
    assert pixels.shape == (3, *size) and pixels.dtype == torch.float32
    assert torch.equal(pixels, EvaluationTransform(processor)(plain.resize(size[::-1])))


def test_normalisation_by_hand():
    processor = ViTImageProcessorPil(
        size={"height": 8, "width": 8}, image_mean=[0.5, 0.4, 0.3], image_std=[0.1, 0.2, 0.5]
    )
    pixels = TrainingTransform(processor)(Image.new("RGB", (20, 30), (255, 0, 51)))
    torch.testing.assert_close(pixels[:, 3, 5], torch.tensor([5.0, -2.0, -0.2]))


def test_crop_is_cut_resized_and_flipped(image):
    """Against a plain crop and resize by PIL, of the box that the same random state gives."""
    processor = ViTImageProcessorPil(size={"height": 16, "width": 16}, do_normalize=False)
    flips = 0
    for seed in range(20):
        torch.manual_seed(seed)
        pixels = TrainingTransform(processor)(image)
        torch.manual_seed(seed)
        crop = image.crop(random_crop_box(*image.size)).resize((16, 16), Image.Resampling.BILINEAR)
        expected = torch.from_numpy(np.array(crop)).permute(2, 0, 1) / 255
        errors = [(pixels - way).abs().mean().item() for way in (expected, expected.flip(2))]
        assert min(errors) < 0.01 < max(errors)  # reducing_gap and the crop's border cost a little
        flips += errors[1] < errors[0]
    assert 3 <= flips <= 17


def test_crops_are_distributed_as_defined():
    torch.manual_seed(0)
    width, height = 4000, 3000
    boxes = np.array([random_crop_box(width, height) for _ in range(4000)])
    left, upper, right, lower = boxes.T
    assert left.min() >= 0 and upper.min() >= 0 and right.max() <= width and lower.max() <= height
    share = (right - left) * (lower - upper) / (width * height)
    ratio = np.log((right - left) / (lower - upper))
    assert 0.0799 <= share.min() < 0.085 and 0.95 < share.max() <= 1.0
    assert np.abs(ratio).max() <= math.log(4 / 3) + 1e-3
    # Small crops always fit, so among them both are uniform: compare a few quantiles.
    small = share < 0.5
    quantiles = [0.1, 0.25, 0.5, 0.75, 0.9]
    np.testing.assert_allclose(np.quantile(share[small], quantiles), 0.08 + 0.42 * np.array(quantiles), atol=0.02)
    expected = math.log(4 / 3) * (2 * np.array(quantiles) - 1)
    np.testing.assert_allclose(np.quantile(ratio[small], quantiles), expected, atol=0.03)
    position = left[small] / (width - (right - left)[small])
    np.testing.assert_allclose(np.quantile(position, quantiles), quantiles, atol=0.04)


@pytest.mark.parametrize(
    ("size", "box"), [((3000, 10), (1493, 0, 1506, 10)), ((10, 3000), (0, 1493, 10, 1506)), ((1, 1), (0, 0, 1, 1))]
)
def test_crop_of_extreme_images(size, box):
    torch.manual_seed(0)
    assert random_crop_box(*size) == box


def test_random_state_repeats_and_pickles(image):
    transform = TrainingTransform(PROCESSORS["crop_pct"][0])
    copy = pickle.loads(pickle.dumps(transform))
    torch.manual_seed(3)
    first, second = transform(image), transform(image)
    torch.manual_seed(3)
    assert torch.equal(copy(image), first) and not torch.equal(first, second)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16", "F"])
def test_every_mode_becomes_rgb(mode, image):
    grey = image.convert("L")
    if mode == "I;16":
        source = Image.fromarray(np.asarray(grey).astype(np.uint16) * 256)
    else:
        source = (grey if mode == "F" else image).convert(mode)
    rgb = to_rgb(source)
    assert rgb.mode == "RGB" and rgb.size == image.size
    reference = grey if mode in ("L", "LA", "I;16", "F") else image
    if mode != "1":
        difference = np.asarray(rgb).astype(int) - np.asarray(reference.convert("RGB"))
        assert np.abs(difference).mean() < (16 if mode == "P" else 1)  # a palette has few colours
    assert EvaluationTransform(PROCESSORS["crop_pct"][0])(source).shape == (3, 32, 32)


RAMP = np.arange(256).reshape(16, 16)
DEEP = {  # what a file of so many bits holds, and the 8 bits it is shown as
    "16 bits": ((RAMP * 257).astype(np.uint16), RAMP),
    "16 bits, of which few are used": ((RAMP * 2).astype(np.uint16), RAMP * 2 // 256),
    "32 bits, of which 8 are used": (RAMP.astype(np.int32), RAMP),
    "32 bits, of which 16 are used": ((RAMP * 257).astype(np.int32), RAMP),
    "32 bits": ((RAMP * 2**23).astype(np.int32), RAMP),
    "32 bits with negative values": ((RAMP * 16 - 1024).astype(np.int32), RAMP),
    "floats up to 1": ((RAMP / 255).astype(np.float32), RAMP),
    "floats up to 255": (RAMP.astype(np.float32), RAMP),
    "floats up to 65535": ((RAMP * 257).astype(np.float32), RAMP),
    "floats with negative values": ((RAMP / 1000 - 0.1).astype(np.float32), RAMP),
    "floats without end": ((RAMP * 1e30).astype(np.float32), RAMP),
    "one negative value everywhere": (np.full((16, 16), -7, np.int32), np.zeros((16, 16))),
}


@pytest.mark.parametrize(
    ("kind", "name"),
    [*(("TIFF", name) for name in DEEP), ("PNG", "16 bits"), ("PNG", "16 bits, of which few are used")],
)
def test_deep_greyscale_is_scaled(name, kind):
    values, expected = DEEP[name]
    buffer = BytesIO()
    Image.fromarray(values).save(buffer, kind)
    pixels = np.asarray(to_rgb(Image.open(buffer)))
    assert pixels.dtype == np.uint8 and pixels.shape == (16, 16, 3)
    assert np.array_equal(pixels, np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_not_finite(value):
    with pytest.raises(ValueError, match="NaN or inf"):
        to_rgb(Image.fromarray(np.array([[0.5, value]], np.float32)))


def test_exif_orientation_is_applied(image):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side: turn clockwise to view
    turned = image.copy()
    turned.info["exif"] = exif.tobytes()
    assert to_rgb(turned).size == (70, 90)
    assert np.array_equal(np.asarray(to_rgb(turned)), np.rot90(np.asarray(image), -1))
    assert np.array_equal(np.asarray(to_rgb(to_rgb(turned))), np.rot90(np.asarray(image), -1))


def test_processor_without_a_fixed_size():
    with pytest.raises(InputError, match=r"ViTImageProcessorPil.*\(3, 64, 64\) and \(3, 96, 96\)"):
        TrainingTransform(ViTImageProcessorPil(do_resize=False))


@pytest.mark.parametrize("kind", [kind for kind in PROCESSORS if kind != "height and width"])
def test_another_size_is_resized_and_cropped_in_proportion(kind, image):
    processor, _ = PROCESSORS[kind]
    doubled = resized(processor, 64)
    assert EvaluationTransform(doubled)(image).shape == (3, 64, 64)
    assert TrainingTransform(doubled)(image).shape == (3, 64, 64)
    for name in ("size", "crop_size"):
        before, after = (dict(getattr(each, name) or {}) for each in (processor, doubled))
        assert after == {side: pixels and 2 * pixels for side, pixels in before.items()}
    assert EvaluationTransform(processor)(image).shape == (3, 32, 32)  # it is a copy


def test_another_size_of_a_processor_that_makes_no_squares():
    with pytest.raises(InputError, match="image_size: "):
        resized(PROCESSORS["height and width"][0], 64)
