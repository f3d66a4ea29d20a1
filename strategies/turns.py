"""Tasks that wait much and do little, side by side: one at a time runs, and the next goes on whenever that one waits.

Groups of silos go through exchanges of their own, of which each takes as long as the nodes take to look for messages.
Nothing is locked for that but the turn: what tasks share can change where a task waits, and nowhere else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


class Abandoned(BaseException):
    """Raised in a task that waits for what nobody needs any more."""


class Turns:
    """Runs tasks side by side, each in a thread of its own, of which one at a time does not wait."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._own = threading.local()
        self._over = False

    def sleep(self, seconds: float) -> None:
        """Wait, and let other tasks go on meanwhile.

        Parameters
        ----------
        seconds : float

        Raises
        ------
        Abandoned
            In a task, if another one has failed.
        """
        if not getattr(self._own, "task", False):
            time.sleep(seconds)
            return
        self._turn.release()
        try:
            time.sleep(seconds)
        finally:
            self._turn.acquire()
        if self._over:
            raise Abandoned

    def side_by_side(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """Return what the tasks return, in their order; which begins first is not said.

        Parameters
        ----------
        tasks : sequence of callable
            They wait in :meth:`sleep`. What one raises ends the others there, and is raised.
        """
        found: dict[int, T] = {}
        errors: list[BaseException] = []

        def run(at: int, task: Callable[[], T]) -> None:
            self._own.task = True
            with self._turn:
                try:
                    if not self._over:
                        found[at] = task()
                except Abandoned:
                    pass
                except BaseException as error:
                    errors.append(error)
                    self._over = True

        self._over = False
        threads = [threading.Thread(target=run, args=about, daemon=True) for about in enumerate(tasks)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException:
            self._over = True
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            raise
        if errors:
            raise errors[0]
        return [found[at] for at in range(len(tasks))]
