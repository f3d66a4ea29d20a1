"""Transcripts of secure aggregation in the run folder: one file for each attempt, whole or not there.

``transcripts/round-0003-1.bin`` is the first attempt of round 3; the form is that of
:mod:`quire.privacy.secagg.transcript`. A file grows under another name while the attempt goes on, and gets its own once
it is sealed and on the disk. None is ever overwritten: a round that is run again, after a stop, has files of its own,
``round-0003-1-again-1.bin``. Where silos are summed in groups it says which: ``round-0003-group-2-1.bin``. The
journal's line of the round names each with its SHA-256.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from quire.errors import RunFailed
from quire.privacy.secagg.exact_sum import ExactRound, ExactSession
from quire.privacy.secagg.recording import RecordedRound
from quire.privacy.secagg.server_round import ServerRound
from quire.privacy.secagg.server_session import ServerSession
from quire.privacy.secagg.transcript import Writer
from quire.strategies.secure_log import AttemptLog

LOG = logging.getLogger("quire.strategies")

#: The folder in the run folder.
TRANSCRIPTS_FOLDER = "transcripts"

_PRIVATE_FOLDER, _PRIVATE_FILE = 0o700, 0o600


class Transcripts:
    """Keeps the transcripts of a run, or none.

    Parameters
    ----------
    folder : pathlib.Path, optional
        Where; made with the first one, for its owner alone. Without a folder nothing is kept.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._open: dict[tuple[int | None, int], tuple[_File, RecordedRound]] = {}  # by group and attempt

    def begin(
        self,
        session: ServerSession,
        round_number: int,
        attempt: int,
        cohort: tuple[int, ...],
        model: bytes,
        log_root: bytes,
        group: int | None = None,
    ) -> ServerRound:
        """Return an attempt of a round, which is recorded where transcripts are kept.

        Parameters
        ----------
        session, round_number, attempt, cohort, model, log_root
            As for :class:`quire.privacy.secagg.server_round.ServerRound`.
        group : int, optional
            Whose attempt it is, from 0.

        Raises
        ------
        CohortTooSmall, SessionExpired, UnknownIdentity
        RunFailed
            If the file cannot be written; while the attempt goes on as well.
        """
        about = session, round_number, attempt, cohort, model, log_root
        if self._folder is None or isinstance(session, ExactSession):  # settings refuse to keep what was in clear
            return ExactRound(*about) if isinstance(session, ExactSession) else ServerRound(*about)
        of = "" if group is None else f"group-{group + 1}-"
        file = _File(self._folder, f"round-{round_number:04d}-{of}{attempt}")
        server = RecordedRound(*about, lambda: Writer(file))
        self._open[group, attempt] = file, server
        return server

    def seal(self, attempts: Iterable[AttemptLog], failed: bool = False) -> None:
        """Finish the files of a round, which is over, and note name and hashes of each.

        Parameters
        ----------
        attempts : iterable of AttemptLog
            Of the round: each learns of its transcript.
        failed : bool
            Whether the round has ended the run already: why is told, and not that a file cannot be written on top.

        Raises
        ------
        RunFailed
            If a file cannot be written; those that can are sealed all the same.
        """
        logs, unfinished = {(log.group, log.number): log for log in attempts}, self._open
        self._open = {}
        why: RunFailed | None = None
        for key, (file, server) in unfinished.items():
            if file.broken:  # which has ended the run, for a reason that is to be told
                continue
            log = logs[key]
            try:
                digest, total = server.finish(log.error)
                log.transcript = {"file": file.keep(), "sha256": digest, "sum": total}
            except RunFailed as error:
                LOG.warning("%s", error)
                why = why or error
        if why is not None and not failed:
            raise why


class _File:
    """One transcript on its way to the disk; made with its first bytes. An error of the system ends the run."""

    def __init__(self, folder: Path, stem: str) -> None:
        self._folder, self._stem = folder, stem
        self._new = folder / f".{stem}.bin.new"
        self._stream: BinaryIO | None = None
        self.broken = False

    def write(self, data: bytes) -> None:
        """Write some bytes."""
        try:
            if self._stream is None:
                self._folder.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
                self._stream = os.fdopen(os.open(self._new, flags, _PRIVATE_FILE), "wb")
            self._stream.write(data)
        except OSError as error:
            self._failed(error)

    def keep(self) -> str:
        """Force the file to the disk, and give it a name that no other has; return the name."""
        path, again = self._folder / f"{self._stem}.bin", 0
        while path.exists():
            again += 1
            path = self._folder / f"{self._stem}-again-{again}.bin"
        try:
            if self._stream is not None:
                self._stream.flush()
                os.fsync(self._stream.fileno())
                self._stream.close()
            os.replace(self._new, path)
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            self._failed(error)
        return path.name

    def _failed(self, error: OSError) -> None:
        self.broken = True
        with contextlib.suppress(OSError):
            self._new.unlink()
        raise RunFailed(
            f"The transcript {self._new} cannot be written ({error.strerror}): make room, and resume the run."
        ) from error
