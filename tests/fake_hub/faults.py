"""Requests that go wrong on purpose."""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal


@dataclass
class Fault:
    """What goes wrong, with which requests, and how often.

    Args:
        method: HTTP method, e.g. `"POST"`.
        path: regular expression, searched in the request's path and query.
        status: reply with this status, and do nothing else.
        headers: sent along with `status`, e.g. `{"Retry-After": "0"}` or `{"X-Error-Code": "GatedRepo"}`.
        cut: close the connection in the middle of the `"request"`, which then has no effect, or in the middle of the
            `"reply"`, after the request has taken effect.
        delay: seconds to wait before anything else; alone, a slow but correct reply.
        times: number of requests that fail; None: all.
    """

    method: str
    path: str
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: Literal["request", "reply"] | None = None
    delay: float = 0.0
    times: int | None = 1

    def __post_init__(self) -> None:
        if not (self.status or self.cut or self.delay):
            raise ValueError("a Fault needs a status, a cut or a delay")

    def matches(self, method: str, path: str) -> bool:
        """Whether the fault is still due and meant for this request."""
        return self.times != 0 and method == self.method and re.search(self.path, path) is not None


class Faults:
    """Faults that are still to happen, in the order they were added."""

    def __init__(self) -> None:
        self._queue: list[Fault | Callable[[str, str], Fault | None]] = []
        self._lock = threading.Lock()

    def add(self, *faults: Fault | Callable[[str, str], Fault | None]) -> None:
        """Queue faults.

        Args:
            faults: each a `Fault`, or a function of a request's method and path that returns one or None.
        """
        self._queue.extend(faults)

    def clear(self) -> None:
        """Let nothing go wrong any more."""
        self._queue.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """The fault for this request, counted as used, or None."""
        with self._lock:
            for fault in self._queue:
                if not isinstance(fault, Fault):
                    if decided := fault(method, path):
                        return decided
                elif fault.matches(method, path):
                    if fault.times is not None:
                        fault.times -= 1
                    return fault
        return None

    @property
    def pending(self) -> list[Fault]:
        """Faults with a number of times that have not happened that often yet."""
        return [fault for fault in self._queue if isinstance(fault, Fault) and fault.times]
