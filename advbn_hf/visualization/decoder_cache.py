"""A trained decoder, cached in a file beside the checkpoint, which is named after all that it depends on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import BaseImageProcessor
from transformers.utils import logging

from ..errors import first_line
from ..modeling import AdvBNForImageClassification
from ..utils.files import replacing
from ..utils.fingerprint import hash_settings, hash_tensors
from .decoder import DEPTH, LEARNING_RATE, LEAST_WIDTH, WIDTH, Decoder
from .layout import MapLayout
from .pixels import PixelRange

logger = logging.get_logger(__name__)


def decoder_file(
    folder: str | Path, model: AdvBNForImageClassification, processor: BaseImageProcessor, training: Sequence[Any]
) -> Path:
    """The file of a decoder; another one for another stem, processor or training.

    The images that it was trained on count by what `training` says of them. If they change without that, the decoder
    still fits the stem, and its quality is measured at each use.

    Args:
        folder: where decoders are kept.
        model: whose stem it is for.
        processor: the model's image processor.
        training: all that the training depends on besides, as JSON values.
    """
    tensors = [tensor for module in model.split.stem_modules for tensor in module.state_dict().values()]
    stem = [model.split.insert_after, hash_tensors([*tensors, *model.split.stem_weights])]
    key = hash_settings([[WIDTH, LEAST_WIDTH, DEPTH, LEARNING_RATE], *stem, processor.to_dict(), list(training)])
    return Path(folder) / f"decoder-{key[:16]}.safetensors"


def kept_decoder(
    path: Path, model: AdvBNForImageClassification, pixels: PixelRange, train: Callable[[], Decoder]
) -> Decoder:
    """The decoder of a file, which is created if missing or damaged.

    Args:
        path: from `decoder_file`.
        model: whose stem it is for.
        pixels: of its image processor.
        train: trains the decoder.

    Returns:
        The decoder, in eval mode, on the model's device.
    """
    if path.exists():
        decoder = Decoder(MapLayout(model), pixels.size)
        try:
            decoder.load_state_dict(load_file(path))
        except (SafetensorError, RuntimeError) as error:
            logger.warning(f"{path} is damaged and rebuilt: {first_line(error)}")
        else:
            return decoder.to(model.device).eval()
    decoder = train()
    with replacing(path) as temporary:
        save_file(decoder.state_dict(), temporary)
    return decoder
