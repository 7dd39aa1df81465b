"""RandConv against its formula."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from advbn_hf.data.augmentation.randconv import randconv


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seed", range(6))
def test_a_convolution_is_mixed_with_the_image(channels, seed):
    image = torch.randn(channels, 16, 12, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(seed)
    result = randconv(image)
    torch.manual_seed(seed)
    size = (1, 3, 5, 7)[torch.randint(4, ()).item()]
    kernel = torch.randn(channels, channels, size, size).double().numpy() / np.sqrt(channels * size * size)
    share = torch.rand(()).item()
    for out in range(channels):
        layers = zip(image.double().numpy(), kernel[out], strict=True)
        convolved = sum(ndimage.correlate(layer, weights, mode="constant") for layer, weights in layers)
        expected = share * convolved + (1 - share) * image[out].double().numpy()
        np.testing.assert_allclose(result[out], expected, atol=1e-5)


def test_all_sizes_occur_and_the_scale_stays():
    noise = torch.randn(3, 24, 24, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    scales = [randconv(noise).std().item() for _ in range(200)]
    assert 0.5 < np.mean(scales) < 1.2
