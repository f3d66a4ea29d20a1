"""Writing a log: entries that are on the disk before anybody is told so, and checkpoints over them."""

from __future__ import annotations

import fcntl
import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

from quire.clients.store.appended import Appended
from quire.clients.store.files import sync_folder
from quire.privacy.identity.keys import PrivateIdentity, PublicIdentity
from quire.privacy.identity.roster import Roster
from quire.transparency.checkpoints import (
    FIRST,
    Checkpoint,
    Mark,
    Note,
    Verified,
    check_signed,
    countersigners,
    is_origin,
    sign,
)
from quire.transparency.entries import MAX_BYTES, Entry
from quire.transparency.errors import CheckpointError, LogBusy, LogDamaged, LogError
from quire.transparency.reading import CHECKPOINTS, ENTRIES, Entries, explained, parsed, read_notes


class Log:
    """A log that is open for writing, by one process at a time. Use :meth:`open`, in a ``with`` statement.

    Attributes
    ----------
    folder : pathlib.Path
    origin : str
        The log's name.
    notes : list of Note
        Its checkpoints, with the countersignatures so far.
    """

    def __init__(self, folder: Path, lock: int, origin: str, key: PrivateIdentity) -> None:
        self.folder, self._lock, self._key = folder, lock, key
        self.notes, noted = read_notes(folder / CHECKPOINTS)
        self._verified: set[Verified] = set()  # countersignatures on the last checkpoint
        self._entries = Entries(folder / ENTRIES, sorted({note.checkpoint.size for note in self.notes}))
        self.origin = origin
        self._check_begin(origin, key.public)
        for note in self.notes:
            check_signed(note, key.public)  # what goes on from here is signed anew: nothing that another has written
            found = self._entries.roots.get(note.checkpoint.size)
            if found != note.checkpoint.root:
                raise LogDamaged(
                    f"{folder / ENTRIES} is not the log of its own checkpoint at {note.checkpoint.size} entries: "
                    "entries were changed or are missing; put the newest copy of the folder back."
                )
        self._file = _appended(folder / ENTRIES, self._entries.bytes)
        try:
            self._checkpoints = _appended(folder / CHECKPOINTS, noted)
        except BaseException:
            self._file.close()
            raise

    @classmethod
    def open(cls, folder: Path, origin: str, key: PrivateIdentity, time: int) -> Log:
        """Open a log to append to it, or begin one if there is none.

        Parameters
        ----------
        folder : pathlib.Path
            Made if it is missing; its parent must exist.
        origin : str
            The log's name, for example ``heart/run-7``: lower-case letters, digits, ``.``, ``_``, ``-`` and ``/``.
        key : PrivateIdentity
            Signs the checkpoints; a log keeps the key that it began with.
        time : int
            Now, in seconds since 1970 UTC.

        Raises
        ------
        LogBusy
            If another process has it open.
        LogDamaged
            If it is not the log of its own checkpoints.
        LogError
            If it began under another name or key, or cannot be written.
        """
        if not is_origin(origin):
            raise LogError(
                f"{origin[:140]!r} cannot name a log: at most 128 lower-case letters, digits, dots, dashes, "
                "underscores and slashes, beginning with a letter or a digit."
            )
        lock = _prepared(folder)
        try:
            log = cls(folder, lock, origin, key)
            if not log.size:
                log.append(Entry("begin", "log", 0, time, {"origin": origin, "identity": key.public.encode().hex()}))
        except BaseException:
            os.close(lock)
            raise
        return log

    def _check_begin(self, origin: str, key: PublicIdentity) -> None:
        if not self.size:
            return
        body = self.entry(0).body
        if body.get("origin") != origin or body.get("identity") != key.encode().hex():
            raise LogError(f"The log in {self.folder} began with another name or key: a log keeps both.")

    @property
    def size(self) -> int:
        """How many entries there are."""
        return self._entries.tree.size

    @property
    def key(self) -> PublicIdentity:
        """The public part of the key that it is signed with."""
        return self._key.public

    def root(self) -> bytes:
        """Return the root over all entries."""
        return self._entries.tree.root()

    def append(self, *entries: Entry) -> int:
        """Append entries, all with one fsync; when this returns, they are on the disk.

        Returns
        -------
        int
            The number of the first, counted from 0.

        Raises
        ------
        LogError
            If they cannot be written. Where even that is uncertain, nothing more is written before the log has been
            opened anew.
        """
        first = self.size
        lines = [entry.data for entry in entries]
        self._file.append(b"".join(lines))
        self._entries.add(lines)
        return first

    def entry(self, index: int) -> Entry:
        """Return an entry, counted from 0; see :meth:`quire.transparency.reading.Entries.entry`."""
        return self._entries.entry(index)

    def each(self, keep: Callable[[bytes], bool] | None = None) -> Iterator[tuple[int, Entry]]:
        """Yield entries with their numbers; see :meth:`quire.transparency.reading.Entries.each`."""
        return self._entries.each(keep)

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """Return the proof that an entry is among the first so many, by default among all.

        Raises
        ------
        ProofError
            If there is no such entry.
        """
        return self._entries.tree.inclusion(index, size)

    def consistency(self, old: int, size: int | None = None) -> list[bytes]:
        """Return the proof that the log of so many entries, by default of all, begins with the first ``old``.

        Raises
        ------
        ProofError
            If there are fewer.
        """
        return self._entries.tree.consistency(old, size)

    def checkpoint(self, time: int) -> Note:
        """Sign what the log holds now, and keep the checkpoint; nothing is signed twice.

        Parameters
        ----------
        time : int
            Now, in seconds since 1970 UTC; a clock that has gone back does not turn back the checkpoints' time.

        Raises
        ------
        LogError
            If it cannot be written.
        """
        last = self.notes[-1].checkpoint if self.notes else None
        if last is not None and last.size == self.size:
            return self.notes[-1]
        previous, earliest = (FIRST, time) if last is None else (last.hash, last.time)
        note = sign(Checkpoint(self.origin, self.size, self.root(), max(time, earliest), previous), self._key)
        self._checkpoints.append(note.encode() + b"\n")
        self.notes.append(note)
        self._verified.clear()
        return note

    def check_countersignature(self, mark: Mark, roster: Roster) -> None:
        """Check a silo's signature on the last checkpoint; what holds is not verified again when it is kept.

        Raises
        ------
        CheckpointError
            If it does not hold, or there is no checkpoint.
        """
        countersigners(Note(self._last().checkpoint, (mark,)), roster, self._verified)

    def add_countersignatures(self, marks: Sequence[Mark], roster: Roster) -> Note:
        """Keep silos' signatures on the last checkpoint, every one of them checked first.

        Parameters
        ----------
        marks : sequence of Mark
        roster : Roster
            Who has which key.

        Returns
        -------
        Note
            The checkpoint with all that it has now.

        Raises
        ------
        CheckpointError
            If one does not hold, or there is no checkpoint; then none of them is kept.
        """
        note = self._last().with_marks(*marks)
        countersigners(note, roster, self._verified)
        if any(mark.name == self.origin for mark in marks):  # else its own signature is the one that it has made
            check_signed(note, self._key.public)
        if note != self.notes[-1]:
            self._checkpoints.append(note.encode() + b"\n")
            self.notes[-1] = note
        return note

    def _last(self) -> Note:
        if not self.notes:
            raise CheckpointError(f"The log in {self.folder} has no checkpoint yet that anybody could countersign.")
        return self.notes[-1]

    def at(self, size: int) -> int | None:
        """Return which of :attr:`notes` is the checkpoint at a size; None if there is none at that size."""
        found = bisect_left(self.notes, size, key=_size)
        return found if found < len(self.notes) and _size(self.notes[found]) == size else None

    def close(self) -> None:
        """Close the log and let the next process in."""
        self._file.close()
        self._checkpoints.close()
        os.close(self._lock)

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def origin_of(folder: Path) -> str | None:
    """Return the name of the log in a folder; None if there is none.

    Raises
    ------
    LogDamaged
        If there is something that does not begin as a log.
    """
    path = folder / ENTRIES
    if not path.exists():
        return None
    with explained(path, "read"), path.open("rb") as file:
        line = file.readline(MAX_BYTES)
    if not line.endswith(b"\n"):  # a crash left it at that: nothing was ever acknowledged
        return None
    begin = parsed(line, 0, path)
    if begin.kind != "begin":
        raise LogDamaged(f"{path} does not begin as a log: its first entry is missing.")
    return str(begin.body["origin"])


def _size(note: Note) -> int:
    return note.checkpoint.size


def _prepared(folder: Path) -> int:
    """Make what is missing, and return the descriptor that holds the lock."""
    with explained(folder, "written"):
        folder.mkdir(exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for name in (ENTRIES, CHECKPOINTS):
                os.close(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))
            sync_folder(folder)
            sync_folder(folder.parent)
        except BlockingIOError:
            os.close(lock)
            raise LogBusy(f"The log in {folder} is being written by another process.") from None
        except BaseException:
            os.close(lock)
            raise
    return lock


def _appended(path: Path, size: int) -> Appended:
    words = f"{path} could not be written before: open the log anew, which checks it."
    return Appended(path, size, explained, lambda: LogError(words))
