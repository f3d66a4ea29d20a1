"""A file that only grows: what was appended is on the disk, whole, or the file is as it was."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from quire.clients.store.files import write_all
from quire.errors import QuireError

_log = logging.getLogger(__name__)


class Appended:
    """A file, opened after what is good of it was read.

    Parameters
    ----------
    path : pathlib.Path
    size : int
        Bytes that are good. What follows them a crash has left: it was never acknowledged, and is cut off.
    explained : callable
        Given path and what is being done, a context that turns errors of the system into those of the caller.
    unusable : callable
        Returns what is raised once it is not known any more what is on the disk.
    """

    def __init__(
        self,
        path: Path,
        size: int,
        explained: Callable[[Path, str], AbstractContextManager[None]],
        unusable: Callable[[], QuireError],
    ) -> None:
        self.path, self.size = path, size
        self._explained, self._unusable, self._broken = explained, unusable, False
        with explained(path, "opened for writing"):
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                torn = os.fstat(self._descriptor).st_size - size
                if torn > 0:
                    os.ftruncate(self._descriptor, size)
                    os.fsync(self._descriptor)
                    _log.warning("%s: cut off %d bytes that a crash left unfinished", path, torn)
            except OSError:
                os.close(self._descriptor)
                raise

    def append(self, data: bytes) -> None:
        """Write, and return once it is on the disk.

        Raises
        ------
        QuireError
            If it could not be written. Where even that is uncertain (the disk failed while syncing), nothing more is
            written before the file has been opened and read anew.
        """
        if self._broken:
            raise self._unusable()
        with self._explained(self.path, "written"):
            try:
                write_all(self._descriptor, data)
            except OSError:
                self._take_back()
                raise
            try:
                os.fsync(self._descriptor)
            except OSError:
                self._broken = True  # what is on the disk is unknown, and a second fsync would not tell
                raise
        self.size += len(data)

    def _take_back(self) -> None:
        self._broken = True
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, self.size)
            os.fsync(self._descriptor)
            self._broken = False

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
