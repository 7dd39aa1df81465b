"""How messages say what to do: as options where a recipe runs, in Python elsewhere."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_RECIPE = "ADVBN_RECIPE"  # in the environment, so that data workers, however they are started, know it too


@contextmanager
def on_command_line() -> Iterator[None]:
    """Within the block, advice is that of a command line."""
    before = os.environ.get(_RECIPE)
    os.environ[_RECIPE] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_RECIPE, None)
        else:
            os.environ[_RECIPE] = before


def either(option: str, python: str) -> str:
    """The first where a recipe runs, else the second.

    Example:
        >>> either("--resume_from_checkpoint last", "trainer.train(resume_from_checkpoint=True)")
        'trainer.train(resume_from_checkpoint=True)'
        >>> with on_command_line():
        ...     either("--resume_from_checkpoint last", "trainer.train(resume_from_checkpoint=True)")
        '--resume_from_checkpoint last'
    """
    return option if _RECIPE in os.environ else python


def how_to_resume() -> str:
    """What resumes a run from its last complete checkpoint."""
    return either("--resume_from_checkpoint last", "trainer.train(resume_from_checkpoint=True)")
