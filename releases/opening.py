"""From an envelope to a model, with every reason to refuse: each is one sentence.

The order: the bytes, the signature, whose it is, the registry against what was seen before, the version, the date, the
key, what is inside. Nothing is written before all of it holds, but for what was seen of the registry: a recipient that
is refused an envelope because of a revocation remembers the revocation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from quire.clients.arrays import Arrays, fingerprint
from quire.clients.identity import files, read_roster
from quire.clients.identity.rosters import check_roster
from quire.privacy.identity.keys import PublicIdentity
from quire.privacy.identity.roster import Roster, is_hash
from quire.releases.book import Book
from quire.releases.disk import put_folder, shown
from quire.releases.envelope import MAX_BYTES, Envelope
from quire.releases.errors import Refused, ReleaseError
from quire.releases.header import MODEL, Header
from quire.releases.memory import SUFFIX, Memory, remembering
from quire.releases.recipients import RecipientKey, read_recipient_key
from quire.releases.registry import read_registry
from quire.text import TEXT, visible

ABOUT = "release.json"
#: Seconds by which clocks of releaser and recipient may differ.
SLACK = 24 * 3600


@dataclass(frozen=True)
class Trust:
    """Whose envelopes are opened.

    Attributes
    ----------
    pin : str or None
        The fingerprint that the releaser must have.
    roster : Roster or None
        One of whose members or admins the releaser must be.
    """

    pin: str | None = None
    roster: Roster | None = None

    @classmethod
    def named(cls, pin: str | None, roster: Path | None) -> Trust:
        """Read whom a recipient trusts; a roster needs its admins' signatures.

        Raises
        ------
        ReleaseError
            If the pin is no fingerprint.
        IdentityFileError
            If the roster cannot be used.
        """
        if pin is not None and not is_hash(pin):
            raise ReleaseError("A pin is the fingerprint of the releaser's identity: 64 hexadecimal digits.")
        if roster is None:
            return cls(pin)
        signed = read_roster(roster)
        check_roster(roster, signed)
        return cls(pin, signed.roster)

    def check(self, releaser: PublicIdentity, now: int, seen: str | None = None) -> str:
        """Say in words why a releaser is trusted.

        Parameters
        ----------
        releaser : PublicIdentity
        now : int
        seen : str or None
            Fingerprint of the releaser of this registry, when it was seen before.

        Raises
        ------
        Refused
            If it is not.
        """
        short, words = releaser.fingerprint[:16], []
        if self.pin is not None:
            if releaser.fingerprint != self.pin:
                raise Refused(f"The releaser is {short}, and not the pinned {self.pin[:16]}.")
            words.append("as pinned")
        if self.roster is not None:
            parties = {one.identity: f"member {one.name}" for one in self.roster.active(now)}
            parties |= {one.identity: f"admin {one.name}" for one in self.roster.admins}
            if releaser not in parties:
                raise Refused(f"The releaser {short} is nobody of the roster {self.roster.roster_id} now.")
            words.append(f"{parties[releaser]} of {self.roster.roster_id}")
        if seen is not None and releaser.fingerprint != seen:
            raise Refused(f"The releaser is {short}, and this registry was that of {seen[:16]} before.")
        if not words and seen is not None:
            words.append("as when this registry was first opened")
        if not words:
            raise Refused(
                f"Nobody has said that the releaser {short} may be trusted: compare {releaser.fingerprint} with the "
                "releaser and name it with --pin, or name a --roster."
            )
        return ", ".join(words)


@dataclass(frozen=True)
class Opened:
    """What was in an envelope.

    Attributes
    ----------
    header : Header
    parts : mapping of str to bytes
    notes : tuple of str
        What holds, and what was not looked at.
    """

    header: Header
    parts: Mapping[str, bytes]
    notes: tuple[str, ...] = ()


def read_envelope(path: Path) -> Envelope:
    """Read an envelope and check that whom it names has signed it.

    Raises
    ------
    Refused
        If it is none, or was altered.
    IdentityFileError
        If it cannot be read.
    """
    data = files.read(path, MAX_BYTES)
    try:
        envelope = Envelope.decode(data)
        envelope.check()
    except Refused as error:
        raise Refused(f"{shown(path)}: {error}") from None
    return envelope


def open_envelope(
    path: Path, key_file: Path, trust: Trust, registry: Path | None, now: int, version: int | None = None
) -> Opened:
    """Open an envelope.

    Parameters
    ----------
    path : pathlib.Path
    key_file : pathlib.Path
        The recipient's secret; what was seen of registries is kept beside it.
    trust : Trust
    registry : pathlib.Path or None
        The registry's folder; without one nobody looks whether the version was revoked.
    now : int
        Seconds since 1970 UTC.
    version : int or None
        Opens this version although another one is current.

    Raises
    ------
    Refused
        For every reason that there is.
    ReleaseError
        If a file cannot be read or is something else.
    """
    key, envelope = read_recipient_key(key_file), read_envelope(path)
    header = envelope.header
    with remembering(key_file.with_name(key_file.name + SUFFIX)) as memory:
        before = memory.seen.get(header.registry)
        seen = None if before is None else before.releaser
        notes = [f"Releaser: {header.releaser.fingerprint}, {trust.check(header.releaser, now, seen)}."]
        if registry is not None:
            notes += _against(envelope, read_registry(registry), memory, version)
        elif before is not None:
            raise Refused(
                f"This key has seen the registry that {header.label} is from: name it with --registry, so that "
                "revocations count."
            )
        else:
            notes.append("Registry: none was named, so whether this version was revoked or replaced is not known.")
    if version is not None and version != header.version:
        raise Refused(f"The envelope holds {header.label}, not version {version}.")
    check_dates(header, now)
    return Opened(header, _parts(envelope, key), tuple(notes))


def _against(envelope: Envelope, book: Book, memory: Memory, version: int | None) -> list[str]:
    """Hold an envelope against its registry, and remember that registry."""
    header = envelope.header
    if book.id != header.registry or book.releaser != header.releaser:
        raise Refused(f"{header.label} is from another registry: {header.registry[:16]}, and this is {book.id[:16]}.")
    memory.check(book)
    memory.keep(book)
    model = book.models.get(header.name)
    if model is None or header.version > len(model.versions):
        raise Refused(f"The registry does not know {header.label}: its release was not completed, or is newer.")
    found = model.versions[header.version - 1]
    if found.envelope != envelope.hash or found.expires != header.expires:
        raise Refused(f"The registry has another envelope for {header.label}: this one was never released.")
    if found.revoked is not None:
        raise Refused(f"{header.label} was revoked: {visible(found.revoked, TEXT).rstrip('.')}.")
    if model.current == header.version or version == header.version:
        older = "" if model.current == header.version else ", though it is not the current one"
        return [f"Registry: {book.id}, {len(book.lines)} entries; version {header.version} stands{older}."]
    if model.current is None:
        raise Refused(
            f"{header.name} has no current version since the last one was revoked; --version {header.version} opens "
            "this one all the same."
        )
    because = f", rolled back to: {visible(model.why, TEXT).rstrip('.')}" if model.why is not None else ""
    raise Refused(
        f"{header.label} is not the current one, which is version {model.current}{because}; --version {header.version} "
        "opens it all the same."
    )


def check_dates(header: Header, now: int) -> None:
    """Refuse an envelope that has expired, or comes from the future.

    Raises
    ------
    Refused
        With the dates.
    """
    if now >= header.expires:
        raise Refused(f"{header.label} has expired: it was to be opened until {moment(header.expires)}.")
    if header.issued > now + SLACK:
        raise Refused(
            f"{header.label} was issued on {moment(header.issued)}, and it is {moment(now)} here: see the clock."
        )


def _parts(envelope: Envelope, key: RecipientKey) -> dict[str, bytes]:
    parts = envelope.open(key)
    if fingerprint(arrays_of(parts[MODEL], "The model in the envelope")) != envelope.header.model:
        raise Refused("The model in the envelope is not the one that its header names.")
    return parts


def arrays_of(data: bytes, what: str) -> Arrays:
    """Read a model's file.

    Raises
    ------
    Refused
        If it is none.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(data))
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError):
        raise Refused(f"{what} is no safetensors file that can be read here.") from None


def write_out(opened: Opened, out: Path) -> None:
    """Write what was in an envelope, and what it says of itself, into a new folder for its owner alone.

    Raises
    ------
    ReleaseError
        If the folder exists or cannot be written.
    """
    about = json.dumps(described(opened.header), indent=2, ensure_ascii=True).encode() + b"\n"
    put_folder(out, {**opened.parts, ABOUT: about})


def described(header: Header) -> dict[str, object]:
    """Return what a header says as ``release.json`` has it, with dates for people."""
    charter, mark, origin = header.charter, header.watermark, header.origin
    return {
        **{"name": header.name, "version": header.version, "purpose": header.purpose},
        **{"issued": moment(header.issued), "expires": moment(header.expires)},
        **{"releaser": header.releaser.fingerprint, "registry": header.registry, "previous": header.previous},
        **{"model": header.model, "run": vars(origin), "files": [vars(part) for part in header.parts]},
        "charter": None if charter is None else vars(charter),
        "watermark": None if mark is None else vars(mark),
        "recipients": list(header.recipients),
    }


def moment(seconds: int) -> str:
    """Return a time as people read it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
