"""Stop processes together with everything that came of them: by process id, and nothing that others started."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import defaultdict

import psutil

_MARK = "QUIRE_LAUNCH"
_POLL, _GIVE_UP = 0.1, 10.0


class ProcessTree:
    """Processes that we started and all their descendants, found and remembered.

    A descendant that detached itself (a session of its own, its parent gone) no longer shows up below its root.
    Two things still find it: what :meth:`update` saw earlier, and a mark in the environment, which children inherit.

    Attributes
    ----------
    mark : dict of str to str
        Environment variable for the root, of a value that nobody else has.
    """

    def __init__(self) -> None:
        self.mark = {_MARK: secrets.token_hex(16)}
        self._known: set[psutil.Process] = set()

    def add(self, pid: int) -> None:
        """Count a process that we started as a root."""
        with contextlib.suppress(psutil.Error):
            self._known.add(psutil.Process(pid))

    def update(self, thorough: bool = False) -> list[psutil.Process]:
        """Look for new descendants; return all that are alive, roots included.

        Parameters
        ----------
        thorough : bool
            Look for the mark in every process of this user, too.
        """
        if thorough:
            self._known.update(process for process in psutil.process_iter() if self._marked(process))
        children: dict[int, list[psutil.Process]] = defaultdict(list)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                children[process.ppid()].append(process)
        fresh = [process for process in self._known if alive(process)]
        while fresh:
            parent = fresh.pop()
            for child in children[parent.pid]:
                if child not in self._known and child.create_time() >= parent.create_time():
                    self._known.add(child)
                    fresh.append(child)
        return [process for process in self._known if alive(process)]

    def find(self, program: str) -> psutil.Process | None:
        """Return the living process that runs a program of this name, if there is one."""
        for process in self.update():
            with contextlib.suppress(psutil.Error):
                if any(argument.rpartition("/")[2] == program for argument in process.cmdline()[:2]):
                    return process
        return None

    def stop(self, grace: float = 5.0) -> list[int]:
        """Ask all to end, and after a while make them.

        Parameters
        ----------
        grace : float
            Seconds between asking and making.

        Returns
        -------
        list of int
            Process ids that are still alive: none, unless the operating system cannot end them.
        """
        asked: set[psutil.Process] = set()
        deadline = time.monotonic() + grace
        while living := self.update(thorough=True):
            late = time.monotonic() - deadline
            if late > _GIVE_UP:
                break
            for process in living:
                with contextlib.suppress(psutil.Error):
                    if late > 0:
                        process.kill()
                    elif process not in asked:
                        asked.add(process)
                        process.terminate()
            time.sleep(_POLL)
        return [process.pid for process in living]

    def _marked(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error, OSError):
            variables = process.environ()
            return any(variables.get(name) == value for name, value in self.mark.items())
        return False


def alive(process: psutil.Process) -> bool:
    """Say whether a process still runs; one that has ended and waits to be reaped does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
