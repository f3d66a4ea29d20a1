"""The folder of a registry: a book, and one file for each envelope.

::

    registry/
      book.jsonl                   what became of each version (:mod:`quire.releases.book`)
      envelopes/heart-1.envelope   name and version
      lock                         held by who writes

An envelope is on the disk, whole, before its line is in the book; a line counts once its line feed is there. So a kill
leaves at most an envelope that no line names, which the next release of that name replaces, or a torn last line, which
counts for nothing and is cut off by who writes next.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from quire.clients.store.appended import Appended
from quire.clients.store.files import sync_folder
from quire.privacy.identity.keys import PrivateIdentity, PublicIdentity
from quire.releases.book import (
    RELEASED,
    REVOKED,
    ROLLED_BACK,
    Book,
    Entry,
    check_fits,
    first_line,
    line_hash,
    next_line,
    read_book,
    why_of,
)
from quire.releases.disk import explained, locked, put, shown
from quire.releases.envelope import Envelope
from quire.releases.errors import RegistryDamaged, ReleaseError

BOOK, ENVELOPES, LOCK, SUFFIX = "book.jsonl", "envelopes", "lock", ".envelope"
MAX_BOOK = 256 * 2**20


def envelope_file(folder: Path, name: str, version: int) -> Path:
    """Return where the envelope of a version lies."""
    return folder / ENVELOPES / f"{name}-{version}{SUFFIX}"


def read_registry(folder: Path) -> Book:
    """Read a registry's book, with every signature checked; who the releaser is, is for others to say.

    Raises
    ------
    ReleaseError
        If there is none, or it cannot be read.
    RegistryDamaged
        If it is not what was written.
    """
    return _read(folder)[0]


def _read(folder: Path) -> tuple[Book, int]:
    """Return the book and how many bytes of it are good."""
    path = folder / BOOK
    _check_there(folder)
    with explained(path, "read"), path.open("rb") as stream:
        data = stream.read(MAX_BOOK + 1)
    if len(data) > MAX_BOOK:
        raise RegistryDamaged(f"{shown(path)} has more than {MAX_BOOK} bytes: it is no book.")
    good = data.rfind(b"\n") + 1  # what follows, a kill has left: it was never acknowledged
    return read_book(data[:good].splitlines(keepends=True), shown(path)), good


def _check_there(folder: Path) -> None:
    if not (folder / BOOK).is_file():
        raise ReleaseError(f"{shown(folder)} holds no registry: there is no {BOOK} in it.")


@dataclass
class Registry:
    """A registry that is open for writing, by one process at a time. Use :func:`opened`.

    Attributes
    ----------
    folder : pathlib.Path
    book : Book
    """

    folder: Path
    book: Book
    _file: Appended
    _identity: PrivateIdentity

    def release(self, envelope: Envelope) -> Path:
        """Keep an envelope, then say so in the book; return its file.

        Raises
        ------
        ReleaseError
            If it does not follow, or cannot be written.
        """
        header = envelope.header
        entry = Entry(RELEASED, header.name, header.version, envelope.hash, header.issued, header.expires)
        check_fits(self.book, entry)
        path = envelope_file(self.folder, header.name, header.version)
        put(path, envelope.encode())
        self._append(entry)
        return path

    def revoke(self, name: str, version: int, why: str, now: int) -> None:
        """Say that a version is not to be used any more, for good.

        Raises
        ------
        ReleaseError
            If there is no such version, it is revoked already, or the book cannot be written.
        """
        self._append(Entry(REVOKED, name, version, self.book.version(name, version).envelope, now, None, why_of(why)))

    def roll_back(self, name: str, version: int, why: str, now: int) -> None:
        """Say that an older version is the current one again.

        Raises
        ------
        ReleaseError
            If there is no such version, it is revoked or current already, or the book cannot be written.
        """
        found = self.book.version(name, version)
        self._append(Entry(ROLLED_BACK, name, version, found.envelope, now, None, why_of(why)))

    def _append(self, entry: Entry) -> None:
        check_fits(self.book, entry)
        line = next_line(self.book, entry, self._identity)
        self._file.append(line)
        self.book.take(entry)
        self.book.lines.append(line_hash(line))


@contextmanager
def opened(folder: Path, identity: PrivateIdentity, now: int, new: bool = False) -> Iterator[Registry]:
    """Open a registry to write to it, or begin one.

    Parameters
    ----------
    folder : pathlib.Path
    identity : PrivateIdentity
        The releaser's; a registry keeps the one that it began with.
    now : int
        Seconds since 1970 UTC.
    new : bool
        Whether to begin one where there is none; the folder's parent must exist.

    Raises
    ------
    ReleaseError
        If there is none, it has another releaser, or it cannot be written.
    RegistryBusy
        If another process writes to it.
    RegistryDamaged
        If it is not what was written.
    """
    if new:
        with explained(folder, "made"):
            folder.mkdir(exist_ok=True)
            (folder / ENVELOPES).mkdir(exist_ok=True)
            sync_folder(folder)
            sync_folder(folder.parent)
    else:
        _check_there(folder)  # before a lock is made in a folder that is none
    with locked(folder / LOCK, f"The registry {shown(folder)}"):
        if new and not os.path.lexists(folder / BOOK):
            put(folder / BOOK, first_line(identity, secrets.token_bytes(16), now))
        book, good = _read(folder)
        check_own(book, identity.public, folder)
        unusable = RegistryDamaged(f"What {shown(folder)} holds is unknown since a disk error: begin again.")
        with closing(Appended(folder / BOOK, good, explained, lambda: unusable)) as file:
            yield Registry(folder, book, file, identity)


def check_own(book: Book, releaser: PublicIdentity, folder: Path) -> None:
    """Refuse to write to somebody else's registry.

    Raises
    ------
    ReleaseError
        Naming both keys.
    """
    if book.releaser != releaser:
        raise ReleaseError(
            f"The registry {shown(folder)} is that of {book.releaser.fingerprint[:16]}, and the identity given is "
            f"{releaser.fingerprint[:16]}: release into another folder."
        )
