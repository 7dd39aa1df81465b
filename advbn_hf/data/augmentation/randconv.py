"""RandConv (Xu et al., ICLR 2021): a random convolution of the image, mixed with the image itself."""

import torch
from torch import Tensor

_SIZES = (1, 3, 5, 7)


def randconv(pixel_values: Tensor) -> Tensor:
    """a conv(x) + (1 - a) x, RC_mix of the paper, with a convolution for each image instead of each batch.

    The kernel has 1, 3, 5 or 7 pixels a side and weights from N(0, 1 / (C k^2)), a is uniform in 0..1; random numbers
    come from torch's global generator.

    Args:
        pixel_values: (C, H, W), normalised: the convolution neither shifts nor scales them on average.

    Returns:
        Like `pixel_values`.

    Example:
        >>> randconv(torch.randn(3, 32, 32)).shape
        torch.Size([3, 32, 32])
    """
    channels = len(pixel_values)
    size = _SIZES[int(torch.randint(len(_SIZES), ()))]
    kernel = torch.randn(channels, channels, size, size) / (channels * size**2) ** 0.5
    share = torch.rand(())
    convolved = torch.nn.functional.conv2d(pixel_values[None], kernel, padding=size // 2)[0]
    return share * convolved + (1 - share) * pixel_values
