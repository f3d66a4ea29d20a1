"""What a silo remembers of the logs that it was shown, so that no server can show it another one: rollback and fork.

A folder in the silo's store, with one small file for each log: the last checkpoint that was taken, as the log signed
it. It is replaced durably before anything is answered, and written only by who holds the store's lock. A silo that has
lost its memory, or got an old copy back, takes what it is shown as if it had been away: it then relies on the other
silos, whose countersignatures it can ask for.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from pathlib import Path

from quire.clients.store import files
from quire.privacy.identity.canonical import dumps, loads
from quire.privacy.identity.errors import IdentityError
from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.identity.keys import PublicIdentity
from quire.transparency.checkpoints import Note, check_signed
from quire.transparency.errors import CheckpointError, LogDamaged, ProofError, SplitView
from quire.transparency.merkle import verify_consistency

_FORMAT, _TAG, _NAME_TAG = "quire-log-seen-1", "quire/log/seen/1", "quire/log/origin/1"
MAX_BYTES = 64 * 1024

#: A checkpoint that was taken, and the key of its log.
Seen = tuple[Note, PublicIdentity]
#: A proof that a log goes on from what was seen last, or several, by the size that each starts from.
Proofs = Sequence[bytes] | Mapping[int, Sequence[bytes]]


class Memory:
    """The checkpoints that a silo has seen last, one for each log.

    Parameters
    ----------
    folder : pathlib.Path
        In the silo's store, which the caller holds the lock of; made if it is missing, for its owner alone.

    Raises
    ------
    StoreError
        If it cannot be made, or others may enter it.
    """

    def __init__(self, folder: Path) -> None:
        files.private_folder(folder)
        self._folder = folder

    def last(self, origin: str) -> Seen | None:
        """Return the checkpoint of a log that was taken last, and the key of that log; None if there is none.

        Raises
        ------
        LogDamaged
            If the file is not what was written.
        """
        path = self._path(origin)
        data = files.read(path, MAX_BYTES)
        return None if data is None else decode_seen(data, origin, str(path))

    def accept(self, note: Note, key: PublicIdentity, proof: Proofs = ()) -> None:
        """Take a checkpoint that goes on from the last one, and remember it; return once it is on the disk.

        Parameters
        ----------
        note : Note
            As it was shown.
        key : PublicIdentity
            The key of this log, as the silo knows it: its operator's pin, or for a log never seen before what the log
            names.
        proof : sequence of bytes, or mapping of int to that
            That the log begins with what was seen last (:meth:`quire.transparency.log.Log.consistency`); or several
            proofs, by the size that each starts from.

        Raises
        ------
        CheckpointError
            If the log has not signed it.
        SplitView
            If it is not what was seen before and more: an older checkpoint, another log, another key. The memory stays.
        LogDamaged
            If the memory is not what was written.
        StoreError
            If it cannot be written.
        """
        known = self.last(note.checkpoint.origin)
        check_goes_on(known, note, key, proof)
        if known is None or known[0].checkpoint != note.checkpoint:
            files.replace(self._path(note.checkpoint.origin), encode_seen(note, key))

    def _path(self, origin: str) -> Path:
        return self._folder / f"{tagged_hash(_NAME_TAG, origin.encode()).hex()[:32]}.json"


def check_goes_on(known: Seen | None, note: Note, key: PublicIdentity, proof: Proofs = ()) -> None:
    """Check that a log goes on from what was seen of it last; return nothing if it does.

    Parameters
    ----------
    known : tuple of Note and PublicIdentity, or None
        What was seen last; None: nothing of this log.
    note, key, proof
        As :meth:`Memory.accept` takes them.

    Raises
    ------
    CheckpointError, SplitView
        As there.
    """
    check_signed(note, key)
    if known is None:
        return
    now, before, old_key = note.checkpoint, known[0].checkpoint, known[1]
    if old_key != key:
        raise SplitView(
            f"The log '{now.origin}' is signed with the key {key.fingerprint[:16]}, and was signed with "
            f"{old_key.fingerprint[:16]} before: it is another log."
        )
    if now.size < before.size:
        raise SplitView(
            f"The log '{now.origin}' was shown at {before.size} entries and now at {now.size}: it was rolled back."
        )
    if isinstance(proof, Mapping):
        proof = () if now.size == before.size else proof.get(before.size, ())
    try:
        verify_consistency(before.size, before.root, now.size, now.root, proof)
    except ProofError as error:
        raise SplitView(
            f"The log '{now.origin}' at {now.size} entries was not shown to go on from what was seen at "
            f"{before.size}: it was forked, or the proof is missing."
        ) from error


def encode_seen(note: Note, key: PublicIdentity) -> bytes:
    """Return a checkpoint as a memory keeps it: with the log's own signature alone."""
    own = Note(note.checkpoint, tuple(mark for mark in note.marks if mark.name == note.checkpoint.origin))
    text = base64.b64encode(own.encode()).decode()
    body = {"format": _FORMAT, "identity": key.encode().hex(), "note": text}
    return dumps({**body, "seal": _seal(body)})


def decode_seen(data: bytes, origin: str, where: str) -> Seen:
    """Read what :func:`encode_seen` returned.

    Parameters
    ----------
    data : bytes
    origin : str
        The log that it has to be of.
    where : str
        Where it was kept, for the error.

    Raises
    ------
    LogDamaged
        If it is anything else.
    """
    try:
        found = loads(data, MAX_BYTES)
        seal = found.pop("seal")
        if found.keys() != {"format", "identity", "note"} or found["format"] != _FORMAT or seal != _seal(found):
            raise ValueError
        note = Note.decode(base64.b64decode(found["note"], validate=True))
        key = PublicIdentity.decode(bytes.fromhex(found["identity"]))
        check_signed(note, key)
        if note.checkpoint.origin != origin:
            raise ValueError
    except (IdentityError, CheckpointError, AttributeError, KeyError, TypeError, ValueError, binascii.Error):
        raise LogDamaged(
            f"{where}, where the silo keeps which log it has seen, is not what was written: put the newest copy "
            "back; without it nobody here can tell another log from the one before."
        ) from None
    return note, key


def _seal(body: dict[str, str]) -> str:
    """Return what shows damage; against forgery there is the log's own signature within."""
    return tagged_hash(_TAG, dumps(body)).hex()
