"""A stem's features as maps: channels first, without tokens that have no place in the image."""

import math

from torch import Tensor

from ..backbones.tracing import probe, probe_inputs
from ..errors import InputError
from ..modeling import AdvBNForImageClassification

Grid = tuple[int, int]


class MapLayout:
    """Where in the image each of a stem's features lies.

    In feature maps, the axes say so. Tokens lie on the grid of an earlier feature map with as many places, such as
    that of a patch embedding; else on a square; else on the largest earlier map with fewer places, behind class and
    register tokens.

    Its attributes: `channels`, C; `grid`, height and width of the maps for images of the model's size.

    Args:
        model: whose stem it is; it is run once on noise.

    Raises:
        InputError: if the features are tokens that do not lie on a grid.
    """

    def __init__(self, model: AdvBNForImageClassification) -> None:
        calls, _ = probe(model.backbone, probe_inputs(model.backbone))
        paths = [call.path for call in calls]
        earlier, insertion = calls[: paths.index(model.split.insert_after)], model.split.insert_after
        shape = list(calls[len(earlier)].shape)
        self.channel_axis = model.split.channel_axis
        self.channels = shape.pop(self.channel_axis)
        self.grid, self.leading = tuple(shape[1:]), 0
        if len(self.grid) == 1:
            maps = [call.shape[2:] for call in earlier if call.shape is not None and len(call.shape) == 4]
            found = _grid_of(self.grid[0], maps)
            if found is None:
                raise InputError(
                    f"model: the outputs of {insertion} ({self.grid[0]} tokens) do not lie on a grid; "
                    "take a model that is cut after another module"
                )
            self.grid, self.leading = found

    def __call__(self, features: Tensor) -> Tensor:
        """Maps (B, C, h, w) of features (B, C, H, W), (B, H, W, C) or (B, N, C)."""
        maps = features.movedim(self.channel_axis, 1)
        return maps if maps.ndim == 4 else maps[:, :, self.leading :].unflatten(2, self.grid)


def _grid_of(tokens: int, maps: list[Grid]) -> tuple[Grid, int] | None:
    """The grid of so many tokens, by the feature maps that came before, and how many tokens precede it."""
    side = math.isqrt(tokens)
    exact = [grid for grid in maps if math.prod(grid) == tokens]
    # More places than tokens before them: a smaller map is not what was made into tokens.
    smaller = [grid for grid in maps if tokens / 2 < math.prod(grid) < tokens]
    if exact:
        return tuple(exact[-1]), 0
    if side * side == tokens:
        return (side, side), 0
    if smaller:
        largest = max(smaller, key=math.prod)
        return tuple(largest), tokens - math.prod(largest)
    return None
