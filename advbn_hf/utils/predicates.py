"""What a value read from a file or a command line is. A bool is no number."""

import sys
from typing import Any


def is_number(value: Any) -> bool:
    """Whether it is a finite int or float that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_integer(value: Any, least: int | None = None) -> bool:
    """Whether it is an int, and at least `least`.

    Example:
        >>> is_integer(3, least=1), is_integer(0, least=1), is_integer(3.0), is_integer(True)
        (True, False, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least)


def is_line(value: Any) -> bool:
    """Whether it is text of one line that shows something."""
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()
