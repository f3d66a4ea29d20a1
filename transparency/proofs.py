"""Proofs as files: one entry, its way to the root, and the signed checkpoint with that root. Needs no log to check.

::

    {"checkpoint": base64 of the note, or null, "entry": {...}, "format": "quire-log-proof-1", "index": 3,
     "path": [hash, ...], "root": hash, "size": 42}
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from quire.privacy.identity.canonical import dumps, loads
from quire.privacy.identity.errors import IdentityError
from quire.transparency.checkpoints import Note
from quire.transparency.entries import Entry
from quire.transparency.errors import CheckpointError, LogDamaged, ProofError
from quire.transparency.merkle import MAX_PATH, leaf_hash, verify_inclusion
from quire.transparency.reading import Entries

FORMAT = "quire-log-proof-1"
#: The most bytes of a proof: an entry, a path, and a checkpoint with the countersignatures of a large consortium.
MAX_BYTES = 32 * 2**20
_KEYS = {"checkpoint", "entry", "format", "index", "path", "root", "size"}


@dataclass(frozen=True)
class Proof:
    """That an entry is in a log.

    Attributes
    ----------
    entry : Entry
    index : int
        Its number, from 0.
    size : int
        Of the log that it is proved to be in.
    path : tuple of bytes
    root : bytes
    note : Note or None
        The checkpoint that has this root; without one the root is nobody's word.
    """

    entry: Entry
    index: int
    size: int
    path: tuple[bytes, ...]
    root: bytes
    note: Note | None = None

    def check(self) -> None:
        """Check that the path leads from the entry to the root, and the checkpoint has it; no signature is checked.

        Raises
        ------
        ProofError
            If it does not.
        """
        verify_inclusion(leaf_hash(self.entry.data), self.index, self.size, self.path, self.root)
        if self.note is not None and (self.note.checkpoint.size, self.note.checkpoint.root) != (self.size, self.root):
            raise ProofError("The checkpoint in the proof is of another size or root than the proof.")

    def encode(self) -> bytes:
        """Return the proof as canonical JSON."""
        return dumps(
            {
                "format": FORMAT,
                "entry": loads(self.entry.data, len(self.entry.data)),
                "index": self.index,
                "size": self.size,
                "path": [step.hex() for step in self.path],
                "root": self.root.hex(),
                "checkpoint": None if self.note is None else base64.b64encode(self.note.encode()).decode(),
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Proof:
        """Read a proof; nothing is checked yet but its form.

        Raises
        ------
        ProofError
            If it is not the one spelling of a proof.
        """
        try:
            found = loads(data, MAX_BYTES)
            if not isinstance(found, dict) or found.keys() != _KEYS or found["format"] != FORMAT:
                raise ValueError
            if type(found["index"]) is not int or type(found["size"]) is not int or len(found["path"]) > MAX_PATH:
                raise ValueError
            note = found["checkpoint"]
            proof = cls(
                Entry.parse(dumps(found["entry"])),
                found["index"],
                found["size"],
                tuple(_hash(step) for step in found["path"]),
                _hash(found["root"]),
                None if note is None else Note.decode(base64.b64decode(note, validate=True)),
            )
            if proof.encode() != data:
                raise ValueError
        except (IdentityError, LogDamaged, CheckpointError, TypeError, ValueError, binascii.Error):
            raise ProofError("This is not a proof that `quire log prove` wrote, or it was changed.") from None
        return proof


def prove(entries: Entries, notes: list[Note], index: int) -> Proof:
    """Prove that an entry is in a log, under its last checkpoint; under the log as it is where there is none.

    Raises
    ------
    ProofError
        If there is no such entry, or no checkpoint covers it yet.
    """
    note = notes[-1] if notes else None
    size = entries.tree.size if note is None else note.checkpoint.size
    if size <= index < entries.tree.size:
        raise ProofError(f"Entry {index} is not under a checkpoint yet: the last one is at {size} entries.")
    path = tuple(entries.tree.inclusion(index, size))
    root = entries.tree.span(0, size) if note is None else note.checkpoint.root
    proof = Proof(entries.entry(index), index, size, path, root, note)
    proof.check()
    return proof


def _hash(text: Any) -> bytes:
    found = bytes.fromhex(text)
    if len(found) != 32:
        raise ValueError
    return found
