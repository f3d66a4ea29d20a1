"""A whole registry, checked offline: every line of its book, every envelope that the book names."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from quire.errors import QuireError
from quire.privacy.identity.errors import IdentityError
from quire.releases.book import Book, Version
from quire.releases.disk import explained, shown
from quire.releases.errors import Refused
from quire.releases.opening import Trust, moment, read_envelope
from quire.releases.registry import ENVELOPES, envelope_file, read_registry


@dataclass
class Checked:
    """What came out: every discrepancy, and what holds, in one sentence each."""

    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_registry(folder: Path, trust: Trust, now: int) -> Checked:
    """Check a registry's book and its envelopes.

    Parameters
    ----------
    folder : pathlib.Path
    trust : Trust
        Without pin and roster, that the releaser is the right one stays to be compared.
    now : int
        Seconds since 1970 UTC.

    Raises
    ------
    ReleaseError
        If there is no registry.
    RegistryDamaged
        If its book does not hold.
    """
    book, result = read_registry(folder), Checked()
    releaser = book.releaser.fingerprint
    if trust.pin is None and trust.roster is None:
        result.notes.append(f"Releaser: {releaser}; compare it with the releaser, or name it with --pin.")
    else:
        try:
            result.notes.append(f"Releaser: {releaser}, {trust.check(book.releaser, now)}.")
        except (Refused, IdentityError) as error:
            result.wrong.append(str(error))
    known = set()
    for name, model in book.models.items():
        for version in model.versions:
            path = envelope_file(folder, name, version.number)
            known.add(path.name)
            try:
                _check_envelope(path, book, name, version)
            except QuireError as error:
                result.wrong.append(str(error))
    count = sum(len(model.versions) for model in book.models.values())
    result.notes.append(f"Registry: {book.id}, {len(book.lines)} entries, {count} envelopes.")
    with explained(folder / ENVELOPES, "read"):
        found = sorted(path.name for path in (folder / ENVELOPES).iterdir()) if (folder / ENVELOPES).is_dir() else []
    stray = [name for name in found if name not in known]
    if stray:
        result.notes.append(f"{len(stray)} files in {ENVELOPES}/ that the book does not name: a release was cut short.")
    return result


def _check_envelope(path: Path, book: Book, name: str, version: Version) -> None:
    envelope = read_envelope(path)
    header = envelope.header
    before = book.models[name].versions[version.number - 2].envelope if version.number > 1 else None
    said = (header.name, header.version, header.registry, header.releaser, header.expires, header.previous)
    if said != (name, version.number, book.id, book.releaser, version.expires, before):
        raise Refused(f"{shown(path)} is another envelope than the book names.")
    if envelope.hash != version.envelope:
        raise Refused(f"{shown(path)} has another hash than the book says: it was replaced.")


def standing(book: Book, name: str, version: Version, now: int) -> str:
    """Say in words how a version stands."""
    if version.revoked is not None:
        return "revoked"
    if now >= version.expires:
        return f"expired on {moment(version.expires)}"
    return "current" if book.models[name].current == version.number else "not current"
