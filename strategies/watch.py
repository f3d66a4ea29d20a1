"""A look over the server's shoulder, for attacks of our own: what it steps with, in the very run that it steps in.

The mean of a round is the most that any server has of it: under masks it is what the opened sum came to, under
distributed noise with the noise in it. Nothing is changed by looking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from quire.strategies.rounds import Algorithm, Arrays, RoundState

#: Told of every step: the state before it, the mean update, the state after it.
Watcher = Callable[[RoundState, Arrays, RoundState], None]

_WATCHER: ContextVar[Watcher | None] = ContextVar("quire-watcher", default=None)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Show a watcher every step of the strategies that are built inside, in this thread."""
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)


def watched(algorithm: Algorithm) -> Algorithm:
    """Return the algorithm, its steps shown to the watcher if there is one; else the algorithm itself."""
    watcher = _WATCHER.get()
    if watcher is None:
        return algorithm
    step, tell = algorithm.step, watcher

    def shown(self: Any, state: RoundState, mean: Arrays, share: float) -> RoundState:
        kept = {name: part.copy() for name, part in mean.items()}
        after = step(state, mean, share)
        tell(state, kept, after)
        return after

    kind = type(algorithm)
    made: Algorithm = object.__new__(type(kind.__name__, (kind,), {"step": shown}))
    made.__dict__.update(vars(algorithm))  # it is the algorithm in all else: what it tells, what it remembers
    return made
