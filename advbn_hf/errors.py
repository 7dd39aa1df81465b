"""The one exception for input that a person can fix, and what its messages have in common."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """The user's input is wrong. The message is one line that names the field or file and how to fix it.

    Recipes print it as `error: <message>` and end with exit code 2; in Python it is an ordinary `ValueError`.

    Example:
        >>> from advbn_hf import AdvBNConfig
        >>> try:
        ...     AdvBNConfig(epsilon=-1)
        ... except InputError as error:
        ...     print(error)
        epsilon must be a number above 0, got -1
    """


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Checks that a value is one of those that there are.

    Args:
        name: of the field, as the person knows it.
        value: given for it.
        choices: values to choose from.

    Raises:
        InputError: it is none of them.

    Example:
        >>> check_choice("split", "tset", ["train", "test"])
        Traceback (most recent call last):
        advbn_hf.errors.InputError: split: there is no 'tset'; did you mean 'test'?
    """
    choices = list(choices)
    if value not in choices:
        raise InputError(f"{name}: there is no {value!r}; {suggestion(value, choices)}")


def check_at_least(name: str, value: float | None, least: float) -> None:
    """Checks that a number is not too small.

    Args:
        name: of the field, as the person knows it.
        value: given for it; None, where nothing is given, passes.
        least: the smallest that is possible.

    Raises:
        InputError: it is smaller, or NaN.
    """
    if value is not None and not value >= least:
        raise InputError(f"{name} must be {least} or more, got {value}")


def suggestion(value: object, choices: Iterable[object]) -> str:
    """Names the choice that was probably meant; all choices where none is close.

    Args:
        value: given, and none of the choices.
        choices: values to choose from.

    Example:
        >>> suggestion("epsilom", ["epsilon", "step_size"]), suggestion(3, [1, 2])
        ("did you mean 'epsilon'?", 'choose one of 1, 2')
    """
    names = [str(choice) for choice in choices]
    nearest = difflib.get_close_matches(str(value), names, n=1, cutoff=0.75)
    return f"did you mean {nearest[0]!r}?" if nearest else f"choose one of {', '.join(names)}"


def first_line(error: BaseException) -> str:
    """The first line of an error's text, without white space around it; the name of its type where it has no text.

    Example:
        >>> first_line(ValueError("too large\\nat line 3")), first_line(MemoryError())
        ('too large', 'MemoryError')
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip()


def one_line(error: object) -> str:
    """All of an error's text on one line without its last full stop; the name of its type where it has no text.

    Example:
        >>> one_line(ValueError("Too large\\n  at line 3."))
        'Too large at line 3'
    """
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
