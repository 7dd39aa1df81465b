"""Training of a model by one thread at a time."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class OneThread:
    """Refuses a second thread, where a lock would let it wait."""

    def __init__(self) -> None:
        self._threads: dict[str, int] = {}  # copied and pickled with its owner, as a lock could not be

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds the training within the block.

        Raises:
            RuntimeError: another thread holds it.
        """
        thread = threading.get_ident()
        if self._threads.setdefault("id", thread) != thread:
            raise RuntimeError("another thread is training this model; give each thread a copy.deepcopy of it")
        try:
            yield
        finally:
            self._threads.clear()
