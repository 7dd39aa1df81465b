"""The image processor that converted weights were evaluated with."""

from transformers import PreTrainedConfig
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil

_MARGIN = 32  # pixels that the shorter side has beyond the crop, as in 256 / 224

# Interpolation, mean and standard deviation of values in 0..1; by type of model where they are not ImageNet's.
_IMAGENET = (PILImageResampling.BILINEAR, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
_OTHERS = {"efficientnet": (PILImageResampling.BICUBIC, [127 / 255] * 3, [128 / 255] * 3)}


def processor_for(config: PreTrainedConfig) -> ConvNextImageProcessorPil:
    """Scales the shorter side to the model's resolution plus 32 pixels, and crops the central square.

    ResNets and DenseNets: 224 pixels, bilinear, ImageNet's mean and standard deviation, as the AdvBN authors evaluate,
    and torchvision its first weights. Hub ResNets resize bicubically; these were not evaluated so. EfficientNet-Lite:
    224 to 300 pixels, bicubic, (value - 127) / 128 of values in 0..255, as in its publication. Where a margin is odd,
    the crop may lie one pixel from torchvision's, which rounds half to even where Transformers rounds down.

    Args:
        config: of a converted model.

    Example:
        >>> from transformers import ResNetConfig
        >>> processor_for(ResNetConfig()).crop_pct
        0.875
    """
    resample, mean, std = _OTHERS.get(config.model_type, _IMAGENET)
    resolution = getattr(config, "image_size", 224)
    return ConvNextImageProcessorPil(
        size={"shortest_edge": resolution},
        crop_pct=resolution / (resolution + _MARGIN),
        resample=resample,
        image_mean=mean,
        image_std=std,
    )
