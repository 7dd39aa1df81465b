"""Filters like those of Instagram, by the library pilgram2 (extra `filters`)."""

from PIL import Image

# All of pilgram2. ImageNet-Instagram (Wu et al. 2020) was made with 20 filters of Instagram itself: these are like
# them, but not the same.
FILTERS = (
    "1977",
    "aden",
    "amaro",
    "ashby",
    "brannan",
    "brooklyn",
    "charmes",
    "clarendon",
    "crema",
    "dogpatch",
    "earlybird",
    "gingham",
    "ginza",
    "hefe",
    "helena",
    "hudson",
    "inkwell",
    "juno",
    "kelvin",
    "lark",
    "lofi",
    "ludwig",
    "maven",
    "mayfair",
    "moon",
    "nashville",
    "perpetua",
    "poprocket",
    "reyes",
    "rise",
    "sierra",
    "skyline",
    "slumber",
    "stinson",
    "sutro",
    "toaster",
    "valencia",
    "walden",
    "willow",
    "xpro2",
)


def apply_filter(image: Image.Image, name: str) -> Image.Image:
    """Applies one filter.

    Args:
        image: mode RGB.
        name: one of `FILTERS`.

    Returns:
        An image of the same mode and size.

    Raises:
        ImportError: the extra `filters` is not installed.
    """
    import pilgram2

    # What is no Python name has an underscore before it.
    return getattr(pilgram2, name if name.isidentifier() else f"_{name}")(image).convert("RGB")
