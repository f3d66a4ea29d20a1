"""Is this a simulation? Told by where the code runs, so that nothing a server sends has a say in it.

Two launchers simulate: the in-process grid, which says so around every call (:func:`simulated`), and Flower's
Simulation Runtime, whose silos are Ray actors. The run config and every message come from the server and are not
looked at; nor is the node config, so that a SuperNode cannot be made a simulation by a stray key.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_SIMULATED: ContextVar[bool] = ContextVar("quire_simulated", default=False)
_DONE_AHEAD: ContextVar[object] = ContextVar("quire_done_ahead", default=None)


@contextmanager
def simulated() -> Iterator[None]:
    """Mark what is called inside as a silo that this process simulates."""
    token = _SIMULATED.set(True)
    try:
        yield
    finally:
        _SIMULATED.reset(token)


def is_simulated() -> bool:
    """Tell whether the silo at work is a simulated one."""
    return _SIMULATED.get() or _inside_flowers_simulation()


@contextmanager
def with_done_ahead(bench: object) -> Iterator[None]:
    """Offer the silo that is called inside a workbench on which its training was done already, with that of others.

    Parameters
    ----------
    bench : quire.clients.ahead.DoneAhead or None
    """
    token = _DONE_AHEAD.set(bench)
    try:
        yield
    finally:
        _DONE_AHEAD.reset(token)


def done_ahead() -> object:
    """Return what :func:`with_done_ahead` offers to the silo at work; None wherever no grid of ours simulates it."""
    return _DONE_AHEAD.get() if _SIMULATED.get() else None


def _inside_flowers_simulation() -> bool:
    """Tell whether this process is a worker of Flower's Simulation Runtime: an actor of Ray's.

    Flower's process for a real silo's app does not import Ray, let alone run inside one of its workers.
    """
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return False
    return ray.get_runtime_context().get_actor_id() is not None
