"""The registry's book: what became of each version, one signed line after the other, each chained to the line before.

The first line begins the registry and names the releaser, who signs every line; its hash is the registry's id. A line
is ``{"body": {...}, "signature": hex}`` in canonical JSON. Bodies but the first::

    {"envelope": hash, "expires": seconds or null, "kind": "released", "revoked" or "rolled_back", "name": ...,
     "number": 1, "previous": hash of the line before, "time": seconds, "version": 1, "why": text or null}

Lines can be cut off at the end without a trace in the book itself: against that every recipient keeps a memory of what
it has seen (:mod:`quire.releases.memory`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from quire.charter.errors import CharterError
from quire.charter.parts import read_text, spelled_text
from quire.privacy.identity.canonical import LIMIT, dumps, loads
from quire.privacy.identity.errors import IdentityError
from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.identity.keys import PrivateIdentity, PublicIdentity, verify
from quire.privacy.identity.roster import FOR_EVER, fields, hexadecimal, is_hash, is_name
from quire.releases.errors import RegistryDamaged, ReleaseError
from quire.releases.header import MAX_VERSION, bounded
from quire.text import TEXT, visible

FORMAT = "quire-registry-1"
RELEASED, REVOKED, ROLLED_BACK = KINDS = ("released", "revoked", "rolled_back")
MAX_LINE = 32 * 1024
MAX_WHY = 500

_LINE_TAG, _SIGNATURE_TAG = "quire/release/line/1", "quire/release/entry/1"
_FIRST: dict[str, type | None] = {"format": str, "number": int, "releaser": str, "salt": str, "time": int}
_KEYS: dict[str, type | None] = {
    **dict.fromkeys(("envelope", "kind", "name", "previous"), str),
    **dict.fromkeys(("number", "time", "version"), int),
    **dict.fromkeys(("expires", "why")),
}


@dataclass(frozen=True)
class Entry:
    """What a line says, but for its number and the line before.

    Attributes
    ----------
    kind : str
        One of :data:`KINDS`.
    name : str
        Of the model.
    version : int
        The one that is released, revoked, or current again.
    envelope : str
        Hash of that version's envelope.
    time : int
        Seconds since 1970 UTC, by the releaser's clock.
    expires : int or None
        Of a release.
    why : str or None
        Of a revocation or a roll-back.
    """

    kind: str
    name: str
    version: int
    envelope: str
    time: int
    expires: int | None = None
    why: str | None = None


@dataclass
class Version:
    """A version of a model: its envelope's hash, its times, and why it was revoked, if it was."""

    number: int
    envelope: str
    released: int
    expires: int
    revoked: str | None = None


@dataclass
class Model:
    """All versions of one model.

    Attributes
    ----------
    versions : list of Version
        The first one first.
    current : int or None
        The version to use: the newest release, or the one that was rolled back to since. None once that was revoked.
    why : str or None
        Why it was rolled back; None if it was not.
    """

    versions: list[Version] = field(default_factory=list)
    current: int | None = None
    why: str | None = None


@dataclass
class Book:
    """What a book says, as far as it was read; every line checked as it is taken.

    Attributes
    ----------
    releaser : PublicIdentity
    lines : list of str
        Hash of each line.
    models : dict of str to Model
    """

    releaser: PublicIdentity
    lines: list[str]
    models: dict[str, Model] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """What stands for the registry, and for no other one."""
        return self.lines[0]

    def take(self, entry: Entry) -> None:
        """Take an entry that fits what was said before.

        Raises
        ------
        ReleaseError
            If it does not: a version that is none, was revoked, or does not follow.
        """
        check_fits(self, entry)
        model = self.models.setdefault(entry.name, Model())
        if entry.kind == RELEASED:
            model.versions.append(Version(entry.version, entry.envelope, entry.time, entry.expires or 0))
            model.current, model.why = entry.version, None
        elif entry.kind == REVOKED:
            model.versions[entry.version - 1].revoked = entry.why
            if model.current == entry.version:
                model.current, model.why = None, None
        else:
            model.current, model.why = entry.version, entry.why

    def model(self, name: str) -> Model:
        """Return a model.

        Raises
        ------
        ReleaseError
            If there is none of this name.
        """
        if name not in self.models:
            raise ReleaseError(f"The registry has no model '{visible(name)}': `quire model list` shows those it has.")
        return self.models[name]

    def version(self, name: str, number: int) -> Version:
        """Return a version of a model.

        Raises
        ------
        ReleaseError
            If there is none.
        """
        model = self.model(name)
        if not 1 <= number <= len(model.versions):
            raise ReleaseError(
                f"The registry has no version {number} of {visible(name)}, only 1 to {len(model.versions)}."
            )
        return model.versions[number - 1]


def check_fits(book: Book, entry: Entry) -> None:
    """Refuse an entry that does not follow from the lines before.

    Raises
    ------
    ReleaseError
        Saying what does not.
    """
    if entry.kind == RELEASED:
        model = book.models.get(entry.name)
        following = 1 if model is None else len(model.versions) + 1
        if entry.version != following:
            raise ReleaseError(f"Version {entry.version} of {entry.name} does not follow: {following} would.")
        return
    version = book.version(entry.name, entry.version)
    if version.envelope != entry.envelope:
        raise ReleaseError(f"Version {entry.version} of {entry.name} has another envelope.")
    if version.revoked is not None:
        raise ReleaseError(
            f"Version {entry.version} of {entry.name} is revoked already: {visible(version.revoked, TEXT).rstrip('.')}."
        )
    if entry.kind == ROLLED_BACK and book.models[entry.name].current == entry.version:
        raise ReleaseError(f"Version {entry.version} of {entry.name} is the current one already.")


def why_of(text: str) -> str:
    """Return a reason, once it can stand in a book; see :func:`quire.releases.header.bounded`."""
    return bounded(text, "The reason (--why)", MAX_WHY)


def first_line(identity: PrivateIdentity, salt: bytes, now: int) -> bytes:
    """Return the line that begins a registry; ``salt`` is 16 random bytes, for no two to be the same."""
    releaser = identity.public.encode().hex()
    return _signed({"format": FORMAT, "number": 0, "releaser": releaser, "salt": salt.hex(), "time": now}, identity)


def next_line(book: Book, entry: Entry, identity: PrivateIdentity) -> bytes:
    """Return the line of an entry that follows the book, which is left as it is."""
    why = None if entry.why is None else spelled_text(entry.why)
    return _signed({**vars(entry), "number": len(book.lines), "previous": book.lines[-1], "why": why}, identity)


def read_book(lines: Iterable[bytes], where: str) -> Book:
    """Read a book, and check every line: its form, its signature, its place, and that it fits.

    Parameters
    ----------
    lines : iterable of bytes
        With their line feeds.
    where : str
        For the error.

    Raises
    ------
    RegistryDamaged
        Naming the first line that does not hold.
    """
    book: Book | None = None
    for number, line in enumerate(lines):
        try:
            if book is None:
                book = _begin(line)
            else:
                book.take(_entry(line, book))
            book.lines.append(line_hash(line))
        except (IdentityError, CharterError, ReleaseError) as error:
            raise RegistryDamaged(f"{where}, line {number + 1}, is not what was written there: {error}") from None
    if book is None:
        raise RegistryDamaged(f"{where} is empty: there is no registry in it.")
    return book


def line_hash(line: bytes) -> str:
    """Return what stands for a line in the next one; of the first line, the registry's id."""
    return tagged_hash(_LINE_TAG, line).hex()


def _signed(body: dict[str, Any], identity: PrivateIdentity) -> bytes:
    return dumps({"body": body, "signature": identity.sign(_SIGNATURE_TAG, dumps(body)).hex()})


def _opened(line: bytes) -> tuple[Any, bytes]:
    found = fields(loads(line, MAX_LINE), "line", {"body": None, "signature": str})
    return found["body"], hexadecimal(found["signature"], "'signature'")


def _begin(line: bytes) -> Book:
    body, signature = _opened(line)
    found = fields(body, "first line", _FIRST)
    if found["format"] != FORMAT or found["number"] != 0 or not 0 <= found["time"] <= FOR_EVER:
        raise ReleaseError(f"it begins no registry of the form {FORMAT}.")
    if len(hexadecimal(found["salt"], "'salt'")) != 16:
        raise ReleaseError("its salt is none.")
    releaser = PublicIdentity.decode(hexadecimal(found["releaser"], "'releaser'"))
    verify(releaser, _SIGNATURE_TAG, (dumps(body),), signature)
    return Book(releaser, [])


def _entry(line: bytes, book: Book) -> Entry:
    body, signature = _opened(line)
    found = fields(body, "line", _KEYS)
    verify(book.releaser, _SIGNATURE_TAG, (dumps(body),), signature)
    if found["number"] != len(book.lines) or found["previous"] != book.lines[-1]:
        raise ReleaseError("it does not follow the line before it.")
    released, why, expires = found["kind"] == RELEASED, found["why"], found["expires"]
    good = (
        found["kind"] in KINDS,
        is_name(found["name"]) and is_hash(found["envelope"]),
        1 <= found["version"] <= MAX_VERSION and found["number"] < LIMIT,
        0 <= found["time"] <= FOR_EVER,
        (why is None) == released and (expires is None) != released,
        expires is None or (type(expires) is int and 0 <= expires <= FOR_EVER),
    )
    if not all(good):
        raise ReleaseError("it says something that it cannot say.")
    why = None if why is None else why_of(read_text(why, "The reason"))
    return Entry(
        found["kind"], found["name"], found["version"], found["envelope"], found["time"], found["expires"], why
    )
