"""Capital letters of the fonts that matplotlib ships, in the styles of the embedded benchmark.

Fonts are held out: validation and test show letters of faces that training never saw.
"""

from functools import cache
from pathlib import Path
from string import ascii_uppercase

import matplotlib
import numpy as np
from datasets import Dataset
from PIL import Image, ImageDraw, ImageFont

from advbn_hf.data.embedded.rendering import Glyphs, render
from advbn_hf.errors import check_choice

# Split -> its faces. Bold, oblique, upright and monospaced ones are in all three.
FACES = {
    "train": (
        "DejaVuSans",
        "DejaVuSans-Bold",
        "DejaVuSans-Oblique",
        "DejaVuSansMono",
        "DejaVuSerif",
        "DejaVuSerif-Bold",
        "DejaVuSerif-Italic",
        "STIXGeneral",
        "STIXGeneralBol",
        "STIXGeneralItalic",
        "cmr10",
        "cmss10",
    ),
    "validation": ("DejaVuSans-BoldOblique", "DejaVuSansMono-Oblique", "DejaVuSerif-BoldItalic", "cmti10"),
    "test": ("DejaVuSansMono-Bold", "DejaVuSansMono-BoldOblique", "STIXGeneralBolIta", "cmb10", "cmmi10", "cmtt10"),
}
_SIDE, _BOX = 40, 36  # cells of a glyph, and of the box that a letter fills in one direction


def load_characters(
    style: str = "clean", split: str = "train", num_images: int | None = None, seed: int = 0
) -> Dataset:
    """Makes one set of rendered characters; see `rendering.render` for arguments, result and errors."""
    return render("characters", _letters, style, split, num_images, seed)


@cache
def _letters(split: str) -> Glyphs:
    """Every letter in every face of a split, in a fixed random order."""
    check_choice("split", split, FACES)
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    fonts = [ImageFont.truetype(str(folder / f"{face}.ttf"), 4 * _BOX) for face in FACES[split]]
    ink = np.stack([_drawn(letter, font) for font in fonts for letter in ascii_uppercase])
    labels = np.tile(np.arange(len(ascii_uppercase)), len(fonts))
    order = np.random.RandomState(0).permutation(len(ink))
    return Glyphs(ink[order], labels[order], tuple(ascii_uppercase))


def _drawn(letter: str, font: ImageFont.FreeTypeFont) -> np.ndarray:
    """One letter, as large as the box allows, in the middle: float32 (40, 40)."""
    left, top, right, bottom = font.getbbox(letter)
    large = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(large).text((-left, -top), letter, fill=255, font=font)
    scale = _BOX / max(large.size)
    small = large.resize([max(round(scale * length), 1) for length in large.size], Image.Resampling.BOX)
    glyph = Image.new("L", (_SIDE, _SIDE))
    glyph.paste(small, ((_SIDE - small.width) // 2, (_SIDE - small.height) // 2))
    return np.asarray(glyph, dtype=np.float32) / 255
