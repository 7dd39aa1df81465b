"""Modules whose outputs are recorded and replayed, in one thread without any effect on another."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


class ReachedInsertion(Exception):  # noqa: N818 - it is a signal, not an error
    """Ends a forward pass at the insertion module."""


class _State:
    """What a module does in one thread: by default it computes."""

    def __init__(self) -> None:
        self.outputs: list[Any] = []  # to return instead of computing, in this order
        self.returned = 0  # how many of them were
        self.record: list[Any] | None = None  # where computed outputs are added
        self.ends_pass = False


class _OfThisThread(threading.local):
    def __init__(self) -> None:
        self.state = _State()  # one object for as long as the thread lives: a compiled tail recognises it by that

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()  # copies compute


class Replayable:
    """Stands for a module's forward for as long as the module lives, so that no forward pass has to change the module.

    Args:
        module: the module; `replayable` makes it so.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._earlier = vars(module).get("forward")  # another library's, such as one of Accelerate's hooks
        self._here = _OfThisThread()

    @property
    def state(self) -> _State:
        """That of the calling thread."""
        return self._here.state

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the next output that is to be replayed; computes once these are used up."""
        state = self._here.state
        if state.returned < len(state.outputs):
            state.returned += 1
            return state.outputs[state.returned - 1]
        if self._earlier is None:
            output = type(self._module).forward(self._module, *args, **kwargs)
        else:
            output = self._earlier(*args, **kwargs)
        if state.record is not None:
            state.record.append(output)
            if state.ends_pass:
                raise ReachedInsertion
        return output

    def remove(self) -> None:
        """Gives the module its own forward back."""
        del self._module.forward
        if self._earlier is not None:
            self._module.forward = self._earlier


def replayable(module: nn.Module) -> Replayable:
    """Makes a module replayable, where it is not yet."""
    forward = vars(module).get("forward")
    if not isinstance(forward, Replayable):
        module.forward = forward = Replayable(module)
    return forward


def remove_replays(model: nn.Module) -> None:
    """Gives all modules of a model their own forward back."""
    for module in model.modules():
        forward = vars(module).get("forward")
        if isinstance(forward, Replayable):
            forward.remove()


@contextmanager
def recording(modules: list[Replayable], records: list[list[Any]]) -> Iterator[None]:
    """Adds each output that a module computes within the block to its record; the last module ends the pass."""
    states = [{"record": record} for record in records]
    states[-1]["ends_pass"] = True
    with _within(modules, states):
        yield


@contextmanager
def replaying(modules: list[Replayable], outputs: list[list[Any]], returned: list[int]) -> Iterator[None]:
    """Has modules return recorded outputs within the block, from the first that was not `returned` before."""
    with _within(modules, [{"outputs": o, "returned": r} for o, r in zip(outputs, returned, strict=True)]):
        yield


@contextmanager
def _within(modules: list[Replayable], states: list[dict[str, Any]]) -> Iterator[None]:
    before = [dict(vars(module.state)) for module in modules]
    computing = vars(_State())
    for module, state in zip(modules, states, strict=True):
        vars(module.state).update(computing | state)
    try:
        yield
    finally:
        for module, state in zip(modules, before, strict=True):
            vars(module.state).update(state)
