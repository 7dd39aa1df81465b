"""From an icon to images: SVG without anything from outside, the lines alone, placements on grounds."""

import colorsys
import io
from dataclasses import replace
from typing import Literal
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageOps

from advbn_hf.errors import InputError, first_line

from .packages import Icon

Ground = Literal["pale", "vivid"]

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
# All that the packages hold; nothing here shows text, images or other documents.
_ELEMENTS = {
    "svg", "g", "defs", "symbol", "use", "clipPath", "mask", "linearGradient", "radialGradient", "stop", "filter",
    "path", "rect", "circle", "ellipse", "line", "polyline", "polygon",
    "feBlend", "feColorMatrix", "feComposite", "feFlood", "feGaussianBlur", "feOffset",
}  # fmt: skip
_MOST_CHARACTERS = 1_000_000  # of an icon; the largest has 400,000
_INK = ("#000", "#000000", "black")
_FINER = 1.5  # times the size of the images, that a drawing is drawn at


def draw(icon: Icon, size: int) -> Image.Image:
    """Draws an icon by resvg, without fonts.

    Args:
        icon: of a package.
        size: of the images that it is for, in pixels.

    Returns:
        The drawing, RGBA, cut to what is seen of it.

    Raises:
        InputError: it is not valid SVG, would show something from outside, or shows nothing.
    """
    root = _parse(icon)
    import resvg_py

    try:
        data = resvg_py.svg_to_bytes(
            svg_string=ElementTree.tostring(root, encoding="unicode"),
            width=round(_FINER * size),
            skip_system_fonts=True,
        )
    except ValueError as error:
        raise InputError(f"its SVG cannot be drawn ({first_line(error)})") from error
    image = Image.open(io.BytesIO(bytes(data))).convert("RGBA")
    for flip, axis in zip(
        icon.flipped, (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM), strict=True
    ):
        image = image.transpose(axis) if flip else image
    image = image.rotate(-90 * icon.turns, expand=True)
    if image.getbbox() is None:
        raise InputError("its SVG shows nothing")
    return image.crop(image.getbbox())


def line_art(icon: Icon) -> Icon:
    """The black lines and shapes of an icon alone, as in a drawing that is still to be coloured."""
    root = _parse(icon)
    for element in root.iter():
        for key in ("fill", "stroke"):
            if element.get(key, "black").lower() not in _INK:
                element.set(key, "none")
    return replace(icon, body="".join(ElementTree.tostring(element, encoding="unicode") for element in root))


def place(drawing: Image.Image, rng: np.random.Generator, size: int, ground: Ground) -> Image.Image:
    """Puts a drawing on a plain ground: turned by up to 12 degrees, on 60 to 85 % of the side, near the centre.

    Args:
        drawing: RGBA.
        rng: what chances come from.
        size: side of the image in pixels.
        ground: "pale": nearly white; "vivid": any hue, saturated, light to medium dark.

    Returns:
        The image, RGB.
    """
    drawing = ImageOps.expand(drawing, 2)  # so that straight edges stay smooth when they are turned
    drawing = drawing.rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC, expand=True)
    drawing = drawing.crop(drawing.getbbox())
    scale = rng.uniform(0.6, 0.85) * size / max(drawing.size)
    drawing = drawing.resize([max(1, round(side * scale)) for side in drawing.size], Image.Resampling.BICUBIC)
    if ground == "pale":
        colour = rng.integers(225, 256, 3)
    else:
        colour = 255 * np.array(colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.6, 1), rng.uniform(0.5, 1)))
    image = Image.new("RGBA", (size, size), (*(int(level) for level in colour), 255))
    moves = rng.uniform(-size / 16, size / 16, 2)
    corner = [
        round(np.clip((size - side) / 2 + move, 0, size - side))
        for side, move in zip(drawing.size, moves, strict=True)
    ]
    image.alpha_composite(drawing, tuple(corner))
    return image.convert("RGB")


def _parse(icon: Icon) -> ElementTree.Element:
    """The icon as an SVG document, checked to refer to nothing but itself."""
    if len(icon.body) > _MOST_CHARACTERS:
        raise InputError(f"its SVG has more than {_MOST_CHARACTERS:,} characters")
    box = " ".join(map(str, icon.box))
    body = icon.body.replace("currentColor", "black")
    try:
        root = ElementTree.fromstring(f'<svg xmlns="{_SVG}" xmlns:xlink="{_XLINK}" viewBox="{box}">{body}</svg>')
    except ElementTree.ParseError as error:
        raise InputError(f"its SVG cannot be read ({error})") from error
    for element in root.iter():
        tag = _local(element.tag)
        if tag not in _ELEMENTS:
            raise InputError(f"its SVG has the element {tag!r}, which no drawing needs")
        for key, value in element.items():
            outside = _local(key) == "href" and not value.startswith("#")
            if outside or "url(" in value.replace("url(#", "") or "\\" in value:
                raise InputError(f"its SVG refers to {value!r}, outside the drawing")
    return root


def _local(name: str) -> str:
    return name.rpartition("}")[2]
