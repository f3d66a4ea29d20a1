"""Where a silo keeps requests and lineage: ``consent/`` in its store, and a key for subjects beside its identity.

The files are chained lines (:mod:`quire.clients.store.lines`), sealed by a digest: that shows damage, and a line taken
out of the middle; not forgery by whoever may write to the store. The key lies outside the store, so that a stolen copy
of the store alone does not tell which of a list of people are in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from quire.clients.policy.model import Operator
from quire.clients.store import files
from quire.clients.store.errors import StoreDamaged
from quire.clients.store.lines import START, BadLine, Digested, Writer, create, line_hash, read_lines

FOLDER = "consent"
BOOK, LINEAGE = "erasures.jsonl", "lineage.jsonl"
KEY_SIZE, TAG_SIZE = 32, 16
#: Seconds to wait for another process that writes.
WAIT = 60.0
_PERSON = b"quire-subject-1"
_MAX_KEY = 4096
_TAIL = 1 << 20  # more than a line of any of the files


@dataclass(frozen=True)
class Subjects:
    """Turns subject ids into keyed hashes (BLAKE2b), which without the key say nothing.

    Attributes
    ----------
    key : bytes
        32 bytes, drawn at the silo.
    """

    key: bytes

    def tag(self, one: str) -> bytes:
        """Return the 16 bytes that stand for a subject."""
        text = one.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, digest_size=TAG_SIZE, key=self.key, person=_PERSON).digest()

    def members(self, ids: Sequence[str]) -> np.ndarray:
        """Return the first 8 bytes of each tag, sorted, each once: uint64, shape (subjects,)."""
        tags = b"".join(self.tag(one)[:8] for one in set(ids))
        return np.sort(np.frombuffer(tags, dtype="<u8")).astype("<u8")

    @property
    def check(self) -> str:
        """What lines name so that another key is noticed: 16 hexadecimal digits."""
        return hashlib.blake2b(b"", digest_size=8, key=self.key, person=_PERSON).hexdigest()


@dataclass(frozen=True)
class Place:
    """Where one silo keeps what follows from consent.

    Attributes
    ----------
    folder : pathlib.Path
    key_file : pathlib.Path
    """

    folder: Path
    key_file: Path

    @classmethod
    def of(cls, operator: Operator) -> Place:
        """Return the place of the silo whose operator this is."""
        return cls(operator.store / FOLDER, operator.identity.with_suffix(".subjects"))

    @property
    def book(self) -> Chain:
        """Requests for erasure."""
        return Chain(self.folder / BOOK, "erasures")

    @property
    def lineage(self) -> Chain:
        """What rounds were trained on."""
        return Chain(self.folder / LINEAGE, "lineage")

    def check_book(self) -> None:
        """Refuse a place that has lost its book of requests, which is there as soon as the key is.

        Raises
        ------
        StoreDamaged
        """
        if self.key_file.exists() and not self.book.path.exists():
            raise StoreDamaged(
                f"{self.book.path} is missing, in which requests for erasure are recorded under {self.key_file}: put "
                "back a copy of it."
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing; makes the folder if it is not there.

        Raises
        ------
        StoreError
            If the folder cannot be used, or another process writes for too long.
        """
        files.private_folder(self.folder.parent)
        files.private_folder(self.folder)
        lock = files.Lock(self.folder / "lock", WAIT)
        try:
            yield
        finally:
            lock.release()

    def subjects(self, make: bool = False) -> Subjects:
        """Return the key for subjects.

        Parameters
        ----------
        make : bool
            Draw one if there is none and nothing was ever written under one; the caller holds the lock.

        Raises
        ------
        StoreDamaged
            If it is not there and was, or is no such key.
        """
        found = files.read(self.key_file, _MAX_KEY)
        if found is None and make and not any(path.stat().st_size for path in self.folder.glob("*.jsonl")):
            create(self.book.path)  # before the key: a key without a book tells that the book was lost
            found = os.urandom(KEY_SIZE).hex().encode() + b"\n"
            files.replace(self.key_file, found)
        try:
            key = bytes.fromhex((found or b"").decode("ascii"))
        except ValueError:
            key = b""
        if len(key) != KEY_SIZE:
            what = "is missing" if found is None else "is no key of a silo's subjects"
            raise StoreDamaged(f"{self.key_file} {what}, under which {self.folder} was written: put back a copy of it.")
        return Subjects(key)


class Chain:
    """A file of chained lines in a place.

    Parameters
    ----------
    path : pathlib.Path
    kind : str
        What the lines are, which their seals depend on.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self._seal = path, Digested(f"quire/consent/{kind}/1")

    def read(self) -> list[dict[str, Any]]:
        """Return all lines, checked; an end that a crash left torn is passed over.

        Raises
        ------
        StoreDamaged
            If a line is not what was written, or does not follow from the one before it.
        """
        bodies: list[dict[str, Any]] = []
        head = START
        with files.explained(self.path, "read"):
            try:
                stream = self.path.open("rb")
            except FileNotFoundError:
                return []
            with stream:
                for number, (line, whole) in enumerate(read_lines(stream), start=1):
                    if not whole:
                        break
                    body = self._opened(line, number)
                    if body.get("prev") != head or body.get("seq") != number:
                        raise self._damaged(number, "does not follow from the one before it")
                    bodies.append(body)
                    head = line_hash(line)
        return bodies

    def count(self) -> int:
        """Return how many whole lines there are, by the last of them.

        Raises
        ------
        StoreDamaged
            If that is not what was written.
        """
        return self._end()[1]

    def append(self, body: Mapping[str, Any]) -> None:
        """Write a line durably, at the end of what is there; the caller holds the lock of the place.

        Raises
        ------
        StoreError
            If it cannot be written, or the last line there is damaged.
        """
        size, seq, head = self._end()
        if size == 0:
            create(self.path)
        line = self._seal.close({"prev": head, "seq": seq + 1, "time": now(), **body})
        writer = Writer(self.path, size, head)
        try:
            writer.append(line)
        finally:
            writer.close()

    def _end(self) -> tuple[int, int, str]:
        """Return how many bytes are good, how many lines they are, and the hash of the last."""
        with files.explained(self.path, "read"):
            try:
                stream = self.path.open("rb")
            except FileNotFoundError:
                return 0, 0, START
            with stream:
                start = max(0, stream.seek(0, os.SEEK_END) - _TAIL)
                stream.seek(start)
                tail = stream.read()
        whole = tail[: tail.rfind(b"\n") + 1]
        if not whole:
            if start:
                raise StoreDamaged(f"The end of {self.path} is not what was written: put back a copy of it.")
            return 0, 0, START
        line = whole[:-1].rpartition(b"\n")[2]
        body = self._opened(line, None)
        return start + len(whole), int(body["seq"]), line_hash(line)

    def _opened(self, line: bytes, number: int | None) -> dict[str, Any]:
        try:
            return self._seal.open(line)
        except BadLine as error:
            raise self._damaged(number, str(error)) from None

    def _damaged(self, number: int | None, what: str) -> StoreDamaged:
        which = "The last line" if number is None else f"Line {number}"
        return StoreDamaged(f"{which} of {self.path} {what}: put back a copy of it.")


def now() -> str:
    """Return the time, in UTC to the microsecond, as lines have it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
