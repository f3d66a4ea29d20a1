"""Signed checkpoints: what a log commits to at one size, by its own key and by the silos that saw it.

A checkpoint is a note of text and signatures, in the forms of C2SP (https://c2sp.org): *signed-note*,
*tlog-checkpoint*, and for a countersignature *tlog-cosignature*, which is over the note and the time of signing::

    heart/run-7
    42
    9vKXvEbPv2M1gEp0pZ9OGh3pQWbYIUhjmJTL8nVzfWw=
    time 1763757962
    previous 08a08d4c...

    — heart/run-7 base64
    — hospital-1 base64

The lines are the origin, the size, the root, and as extensions the time and the hash of the checkpoint before. Each
signature is four bytes that name a key and the bytes of the signature, with eight bytes of time before them in a
countersignature. Keys are Quire's identities, so the signature type is the one that C2SP leaves to others (0xff) and a
name: what is signed is bound to its use, and a party with an ML-DSA-65 key signs with both.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from hashlib import sha256

from quire.privacy.identity.errors import IdentityError
from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.identity.keys import PrivateIdentity, PublicIdentity, verify
from quire.privacy.identity.roster import MAX_MEMBERS, Roster
from quire.transparency.errors import CheckpointError
from quire.transparency.merkle import EMPTY, SIZE

#: What stands as "previous" in a log's first checkpoint.
FIRST = "0" * 64
#: The most bytes of a note: every member of the largest roster, with post-quantum keys.
MAX_BYTES = 24 * 2**20

_TAG, _COUNTER_TAG, _HASH_TAG = "quire/log/checkpoint/1", "quire/log/countersignature/1", "quire/log/note/1"
_ORIGIN = re.compile(r"[a-z0-9][a-z0-9._/-]{0,127}")
_BODY = re.compile(
    r"([a-z0-9][a-z0-9._/-]{0,127})\n(0|[1-9][0-9]{0,14})\n([A-Za-z0-9+/]{43}=)\n"
    r"time (0|[1-9][0-9]{0,11})\nprevious ([0-9a-f]{64})\n"
)
_LINE = re.compile(r"\u2014 ([a-z0-9][a-z0-9._/-]{0,127}) ([A-Za-z0-9+/]{1,4600}={0,2})\n")
_KEY, _STAMP = 4, 8


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says.

    Attributes
    ----------
    origin : str
        The log's name.
    size : int
        Entries.
    root : bytes
        Over all of them.
    time : int
        Seconds since 1970 UTC, by the log's clock.
    previous : str
        The hash of the checkpoint before, 64 hexadecimal digits; all zero in the first.

    Raises
    ------
    CheckpointError
        If it cannot be written as one.
    """

    origin: str
    size: int
    root: bytes
    time: int
    previous: str = FIRST

    def __post_init__(self) -> None:
        if not _BODY.fullmatch(self.text) or (self.size == 0 and self.root != EMPTY):
            raise CheckpointError("A checkpoint cannot be made of this origin, size, root, time or previous hash.")

    @property
    def text(self) -> str:
        """The lines that are signed."""
        root = base64.b64encode(self.root).decode()
        return f"{self.origin}\n{self.size}\n{root}\ntime {self.time}\nprevious {self.previous}\n"

    @property
    def hash(self) -> str:
        """64 hexadecimal digits, by which the next checkpoint names this one."""
        return tagged_hash(_HASH_TAG, self.text.encode()).hex()


@dataclass(frozen=True)
class Mark:
    """One signature line: who is said to have signed, and the bytes."""

    name: str
    blob: bytes

    @property
    def text(self) -> str:
        """The line, without its line feed."""
        return f"\u2014 {self.name} {base64.b64encode(self.blob).decode()}"


@dataclass(frozen=True)
class Note:
    """A checkpoint with its signatures; having one says nothing yet, :func:`check_signed` does.

    Attributes
    ----------
    checkpoint : Checkpoint
    marks : tuple of Mark
        The log's own and those of silos.
    """

    checkpoint: Checkpoint
    marks: tuple[Mark, ...] = field(default=())

    def encode(self) -> bytes:
        """Return the note as text, in UTF-8."""
        lines = "".join(f"{mark.text}\n" for mark in self.marks)
        return f"{self.checkpoint.text}\n{lines}".encode()

    @classmethod
    def decode(cls, data: bytes) -> Note:
        """Read a note; no signature is checked yet.

        Raises
        ------
        CheckpointError
            If it is not the one spelling of a checkpoint with at least one signature.
        """
        if len(data) > MAX_BYTES:
            raise CheckpointError(f"A checkpoint has at most {MAX_BYTES} bytes.")
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise CheckpointError("This is no checkpoint: it is not text.") from None
        body = _BODY.match(text)
        if body is None or text[body.end() : body.end() + 1] != "\n":
            raise CheckpointError("This is no checkpoint: its first five lines are not those of one.")
        marks, at = [], body.end() + 1
        while at < len(text) and (line := _LINE.match(text, at)) is not None:
            marks.append(Mark(line[1], _bytes(line[2])))
            at = line.end()
        if at < len(text) or not 1 <= len(marks) <= 2 * MAX_MEMBERS:
            raise CheckpointError("This is no checkpoint: what follows its first five lines is not its signatures.")
        checkpoint = Checkpoint(body[1], int(body[2]), _bytes(body[3]), int(body[4]), body[5])
        note = cls(checkpoint, tuple(marks))
        if note.encode() != data or len(checkpoint.root) != SIZE:
            raise CheckpointError("This is no checkpoint: it was written otherwise than checkpoints are.")
        return note

    def with_marks(self, *marks: Mark) -> Note:
        """Return the note with signatures added that it does not have yet."""
        return replace(self, marks=(*self.marks, *(mark for mark in marks if mark not in self.marks)))


def sign(checkpoint: Checkpoint, key: PrivateIdentity) -> Note:
    """Sign a checkpoint as the log."""
    signature = key.sign(_TAG, checkpoint.text.encode())
    return Note(checkpoint, (Mark(checkpoint.origin, _key_id(checkpoint.origin, _TAG, key.public) + signature),))


def check_signed(note: Note, key: PublicIdentity) -> None:
    """Check that a log has signed a checkpoint with its key; return nothing if it has.

    Raises
    ------
    CheckpointError
        If it has not, or more than once.
    """
    origin, size = note.checkpoint.origin, note.checkpoint.size
    own = [mark.blob for mark in note.marks if mark.name == origin]
    if len(own) != 1 or own[0][:_KEY] != _key_id(origin, _TAG, key):
        raise CheckpointError(
            f"The checkpoint of '{origin}' at {size} entries is not signed with its key {key.fingerprint[:16]}."
        )
    try:
        verify(key, _TAG, (note.checkpoint.text.encode(),), own[0][_KEY:])
    except IdentityError:
        raise CheckpointError(f"The log's signature on its checkpoint at {size} entries does not verify.") from None


def countersign(checkpoint: Checkpoint, name: str, identity: PrivateIdentity, time: int) -> Mark:
    """Sign a checkpoint as a silo, which says: this is the log that I was shown, and it goes on from what I saw before.

    Only what :class:`quire.transparency.memory.Memory` has taken should be signed.

    Parameters
    ----------
    checkpoint : Checkpoint
    name : str
        The silo's, as the roster has it.
    identity : PrivateIdentity
        The silo's.
    time : int
        Seconds since 1970 UTC.
    """
    stamp = time.to_bytes(_STAMP, "big")
    signature = identity.sign(_COUNTER_TAG, stamp, checkpoint.text.encode())
    return Mark(name, _key_id(name, _COUNTER_TAG, identity.public) + stamp + signature)


#: A signature that was verified: on which checkpoint, the line, and under whose keys.
Verified = tuple[Checkpoint, Mark, PublicIdentity]


def countersigners(note: Note, roster: Roster, verified: set[Verified] | None = None) -> dict[str, int]:
    """Return which members have countersigned a checkpoint and when, every signature checked.

    Parameters
    ----------
    note : Note
    roster : Roster
        Who has which key.
    verified : set of Verified, optional
        What the caller has verified by itself before, which is not done a second time; gets what is verified now.

    Returns
    -------
    dict of str to int
        Names, and the times that they signed with, in seconds since 1970 UTC.

    Raises
    ------
    CheckpointError
        If somebody signed who is no member or no longer one, or a signature does not verify: a bad signature is not
        passed over as a missing one.
    """
    found: dict[str, int] = {}
    where = f"the checkpoint at {note.checkpoint.size} entries"
    for mark in note.marks:
        if mark.name == note.checkpoint.origin:
            continue
        try:
            member = roster.member(mark.name)
        except IdentityError:
            raise CheckpointError(f"{_first(where)} is countersigned by '{mark.name}', who is not a member.") from None
        if mark.name in found:
            raise CheckpointError(f"{_first(where)} is countersigned twice by '{mark.name}'.")
        stamp = mark.blob[_KEY : _KEY + _STAMP]
        try:
            if mark.blob[:_KEY] != _key_id(mark.name, _COUNTER_TAG, member.identity):
                raise CheckpointError(f"{mark.name} has countersigned {where} with another key than the roster's.")
            one = (note.checkpoint, mark, member.identity)
            if verified is None or one not in verified:
                parts = stamp, note.checkpoint.text.encode()
                verify(member.identity, _COUNTER_TAG, parts, mark.blob[_KEY + _STAMP :])
            if verified is not None:
                verified.add(one)
        except IdentityError:
            raise CheckpointError(f"The countersignature of {mark.name} on {where} does not verify.") from None
        found[mark.name] = int.from_bytes(stamp, "big")
        if not member.active(found[mark.name]):
            raise CheckpointError(f"{mark.name} has countersigned {where} when its key was not valid.")
    return found


def check_countersigned(note: Note, roster: Roster, cohort: Collection[str]) -> None:
    """Check that all of a cohort, and nobody outside it, have countersigned a checkpoint; return nothing if so.

    Raises
    ------
    CheckpointError
        If one has not, or somebody else has, or a signature does not hold.
    """
    found = countersigners(note, roster)
    where = f"The checkpoint at {note.checkpoint.size} entries"
    if missing := sorted(set(cohort) - set(found)):
        raise CheckpointError(f"{where} lacks the countersignature of {', '.join(missing)}.")
    if strangers := sorted(set(found) - set(cohort)):
        raise CheckpointError(f"{where} is countersigned by {', '.join(strangers)}, not of the cohort.")


def is_origin(name: str) -> bool:
    """Tell whether a log can have this name."""
    return _ORIGIN.fullmatch(name) is not None


def _key_id(name: str, tag: str, key: PublicIdentity) -> bytes:
    """Return what names a key in a signature line: C2SP signed-note, with a signature type of our own."""
    return sha256(name.encode() + b"\n\xff" + tag.encode() + b"\n" + key.encode()).digest()[:_KEY]


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise CheckpointError("This is no checkpoint: a line of it is not base64.") from None


def _first(text: str) -> str:
    return text[0].upper() + text[1:]
