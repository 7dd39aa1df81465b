"""The one exception for input that a person can fix."""


class InputError(ValueError):
    """The user's input is wrong. The message is one line that names the field or file and how to fix it.

    Recipes print it as `error: <message>` and end with exit code 2; in Python it is an ordinary `ValueError`.
    """
