"""Versions of what is installed."""

import platform
from importlib.metadata import version

PACKAGES = ("advbn_hf", "torch", "transformers", "accelerate", "datasets", "huggingface_hub")  # they decide numbers


def installed_versions(*more: str) -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers.

    Args:
        more: names of further distributions, which must be installed.

    Returns:
        Name -> version, "Python" first.

    Example:
        >>> list(installed_versions("numpy"))[:2], "numpy" in installed_versions("numpy")
        (['Python', 'advbn_hf'], True)
    """
    return {"Python": platform.python_version()} | {name: version(name) for name in (*PACKAGES, *more)}
