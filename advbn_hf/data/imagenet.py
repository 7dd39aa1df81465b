"""What everybody who evaluates on ImageNet (ILSVRC 2012) agrees on: its 1000 classes, and the crop."""

import json
from functools import cache
from importlib.resources import files


@cache
def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """The classes in the order of their numbers, which is the order of their synset ids.

    Returns:
        1000 pairs of synset id and name, such as ("n01440764", "tench, Tinca tinca"). The names are WordNet's lemmas,
        as in `config.id2label` of microsoft/resnet-50; both classes 134 and 517 are called "crane".
    """
    text = files(__package__).joinpath("imagenet_classes.json").read_text(encoding="utf-8")
    return tuple((synset, name) for synset, name in json.loads(text))


def side_before_crop(size: int) -> int:
    """The length, in pixels, that an image's shorter side is scaled to before its central square is cut out.

    Args:
        size: side of the square.

    Returns:
        `size` * 256 / 224, rounded.

    Example:
        >>> side_before_crop(224)
        256
    """
    return round(size * 256 / 224)
