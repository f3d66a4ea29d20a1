"""What a recipient has seen of registries, so that nobody can show an older one, or another one under the same name.

A file beside the recipient's key. It holds for each registry how many lines its book had, what the last one was, and
who the releaser is: whoever opened an envelope of a registry once need not name the releaser again. A recipient that
has lost the file takes what it is shown as if it had never seen anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quire.privacy.identity.canonical import LIMIT, dumps, loads
from quire.privacy.identity.errors import BadEncoding, IdentityError
from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.identity.roster import fields, is_hash
from quire.releases.book import Book
from quire.releases.disk import explained, locked, put, shown
from quire.releases.errors import Refused, RegistryDamaged

SUFFIX = ".seen"
MAX_BYTES = 16 * 2**20
_FORMAT, _TAG = "quire-registries-seen-1", "quire/release/seen/1"


@dataclass(frozen=True)
class Seen:
    """How far a registry was seen.

    Attributes
    ----------
    lines : int
    last : str
        Hash of the last of them.
    releaser : str
        Fingerprint.
    """

    lines: int
    last: str
    releaser: str


@dataclass
class Memory:
    """What was seen, by the registries' ids; made by :func:`remembering`."""

    path: Path
    seen: dict[str, Seen]

    def check(self, book: Book) -> None:
        """Refuse a book that is not what was seen before and more.

        Raises
        ------
        Refused
            If it is older, or another one.
        """
        before = self.seen.get(book.id)
        if before is None:
            return
        if len(book.lines) < before.lines:
            raise Refused(
                f"The registry was seen with {before.lines} entries and has {len(book.lines)} now: it was rolled back, "
                "or this is an old copy; get the newest."
            )
        if book.lines[before.lines - 1] != before.last:
            raise Refused(
                f"The registry is another one than was seen before: its entry {before.lines} was replaced, so that "
                "its releaser shows different people different books."
            )

    def keep(self, book: Book) -> None:
        """Remember a book that was checked; return once it is on the disk.

        Raises
        ------
        ReleaseError
            If it cannot be written.
        """
        now = Seen(len(book.lines), book.lines[-1], book.releaser.fingerprint)
        if self.seen.get(book.id) != now:
            self.seen[book.id] = now
            body = {"format": _FORMAT, "registries": {name: vars(one) for name, one in self.seen.items()}}
            put(self.path, dumps({**body, "seal": _seal(body)}), 0o600)


@contextmanager
def remembering(path: Path) -> Iterator[Memory]:
    """Open a memory, which no other process writes meanwhile; nothing seen yet if there is none.

    Raises
    ------
    RegistryDamaged
        If the file is not what was written.
    ReleaseError
        If it cannot be read.
    """
    with locked(path.with_name(path.name + ".lock"), f"The memory {shown(path)}"):
        yield Memory(path, _read(path))


def _read(path: Path) -> dict[str, Seen]:
    try:
        with explained(path, "read"):
            try:
                with path.open("rb") as stream:
                    data = stream.read(MAX_BYTES + 1)
            except FileNotFoundError:
                return {}
        keys: dict[str, type | None] = {"format": str, "registries": None, "seal": str}
        found = fields(loads(data, MAX_BYTES), "memory", keys)
        seal = found.pop("seal")
        if found["format"] != _FORMAT or seal != _seal(found) or not isinstance(found["registries"], dict):
            raise BadEncoding("it was changed.")
        return {name: _one(name, item) for name, item in found["registries"].items()}
    except IdentityError:
        raise RegistryDamaged(
            f"{shown(path)}, where it is kept which registries were seen, is not what was written: put the newest copy "
            "back; without it nobody here can tell an older registry from the one before."
        ) from None


def _one(name: str, item: Any) -> Seen:
    found = fields(item, "registry", {"last": str, "lines": int, "releaser": str})
    if not (is_hash(name) and is_hash(found["last"]) and is_hash(found["releaser"]) and 1 <= found["lines"] < LIMIT):
        raise BadEncoding("it was changed.")
    return Seen(**found)


def _seal(body: dict[str, Any]) -> str:
    """Return what shows damage; who can write the file can forge it."""
    return tagged_hash(_TAG, dumps(body)).hex()
