"""What a silo is shown of a log before a round: which log it is, its newest checkpoint, and how it goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from quire.privacy.identity.errors import IdentityError
from quire.privacy.identity.keys import PublicIdentity
from quire.transparency.checkpoints import Note, is_origin
from quire.transparency.errors import CheckpointError, ProofError
from quire.transparency.memory import MAX_BYTES
from quire.transparency.merkle import MAX_PATH, SIZE

#: The most sizes that a silo is told paths from.
MOST_PATHS = 32


@dataclass(frozen=True)
class LogName:
    """Which log: all silos of a session agree on it.

    Attributes
    ----------
    origin : str
        The log's name.
    key : str
        The fingerprint of the key that signs its checkpoints, 64 hexadecimal digits.
    """

    origin: str
    key: str

    @classmethod
    def agreed(cls, application: bytes) -> LogName | None:
        """Read which log a session's configuration names; None if it names none, or one named as a member could be.

        No member has a slash in its name: of a log that was named like one, nobody could tell whose signature is whose.
        What is found is not believed: a silo works the configuration out anew with it, and takes no other.
        """
        try:
            found = json.loads(application)["log"]
            origin, key = found["origin"], found["key"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        if (
            not isinstance(origin, str)
            or not isinstance(key, str)
            or not is_origin(origin)
            or "/" not in origin
            or len(key) != 2 * SIZE
        ):
            return None
        return cls(origin, key)


@dataclass(frozen=True)
class Shown:
    """A checkpoint as a server shows it; nothing is believed yet.

    Attributes
    ----------
    note : Note
    key : PublicIdentity
        What the server says that the log is signed with.
    paths : mapping of int to tuple of bytes
        Proofs of consistency, by the size that they start from.
    """

    note: Note
    key: PublicIdentity
    paths: Mapping[int, tuple[bytes, ...]]

    @property
    def name(self) -> LogName:
        """Which log it says that it is."""
        return LogName(self.note.checkpoint.origin, self.key.fingerprint)

    @classmethod
    def read(cls, note: bytes, key: bytes, sizes: Sequence[int], paths: Sequence[bytes]) -> Shown:
        """Read what travels.

        Parameters
        ----------
        note, key : bytes
        sizes : sequence of int
        paths : sequence of bytes
            For each size, the hashes of a proof, one behind the other.

        Raises
        ------
        CheckpointError, ProofError
            If it is not of this form.
        """
        if len(note) > MAX_BYTES or len(sizes) != len(paths) or len(sizes) > MOST_PATHS + 1:
            raise CheckpointError("What is shown of the log is larger than any server shows, or does not match.")
        try:
            public = PublicIdentity.decode(key)
        except IdentityError:
            raise CheckpointError("What is shown of the log names no key.") from None
        return cls(Note.decode(note), public, {size: _hashes(path) for size, path in zip(sizes, paths, strict=True)})


def _hashes(path: bytes) -> tuple[bytes, ...]:
    if len(path) % SIZE or len(path) > SIZE * MAX_PATH:
        raise ProofError(f"A proof is a list of at most {MAX_PATH} hashes of {SIZE} bytes.")
    return tuple(path[at : at + SIZE] for at in range(0, len(path), SIZE))
