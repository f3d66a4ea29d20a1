"""A whole log, offline: every entry, root, checkpoint, signature and countersignature, and another copy beside it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from quire.privacy.identity.errors import IdentityError
from quire.privacy.identity.keys import PublicIdentity
from quire.privacy.identity.roster import Roster
from quire.transparency.checkpoints import FIRST, Note, check_countersigned, check_signed, countersigners
from quire.transparency.errors import CheckpointError, LogError, ProofError
from quire.transparency.proofs import Proof
from quire.transparency.reading import CHECKPOINTS, ENTRIES, Entries, blocks, explained, read_notes
from quire.transparency.rounds import rounds_of, unsigned_rounds

_NO_ROSTER = "Who countersigned cannot be told without the roster: name it with --roster."


@dataclass
class Findings:
    """What came out.

    Attributes
    ----------
    origin : str
    key : PublicIdentity or None
        What the log says that it is signed with.
    size, torn : int
        Entries; bytes of an unfinished last line, which counts for nothing.
    root : bytes
    notes : list of Note
        The checkpoints.
    kinds : dict of str to int
        How many entries there are of each kind.
    wrong : list of str
        Every discrepancy in one sentence; the log verifies if there is none.
    remarks : list of str
        What holds, and what a reader still has to compare.
    """

    origin: str = ""
    key: PublicIdentity | None = None
    size: int = 0
    torn: int = 0
    root: bytes = b""
    notes: list[Note] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """Where a log lies.

    Attributes
    ----------
    entries, checkpoints : pathlib.Path
        The two files.
    """

    entries: Path
    checkpoints: Path

    @classmethod
    def of(cls, path: Path) -> Place:
        """Find a log: in its own folder, in the folder of a run, or by its file of entries.

        Raises
        ------
        LogError
            If there is none.
        """
        for entries in (path, path / ENTRIES, path / "log" / ENTRIES):
            if entries.is_file():
                return cls(entries, entries.with_name(CHECKPOINTS))
        raise LogError(f"There is no log at '{path}': name its folder, the folder of its run, or its {ENTRIES}.")


def verify_log(
    place: Place,
    key: PublicIdentity | None = None,
    roster: Roster | None = None,
    cohort: Sequence[str] = (),
    proofs: Sequence[Proof] = (),
    other: Place | None = None,
) -> Findings:
    """Verify a log.

    Parameters
    ----------
    place : Place
    key : PublicIdentity, optional
        What its checkpoints have to be signed with; by default what its first entry names.
    roster : Roster, optional
        Who has which key; without one, countersignatures are not checked.
    cohort : sequence of str
        Who has to have countersigned every checkpoint that a round was bound to, and nobody else; in a log that names
        none, every checkpoint.
    proofs : sequence of Proof
        Of entries that have to be in it.
    other : Place, optional
        Another copy, which has to be the same as far as both go.

    Returns
    -------
    Findings
    """
    found = Findings()
    try:
        found.notes, noted = read_notes(place.checkpoints)
        sizes = sorted({note.checkpoint.size for note in found.notes})
        entries = Entries(place.entries, sizes, forms=True)
        found.size, found.torn, found.root = entries.tree.size, entries.torn, entries.tree.root()
        found.kinds = dict(entries.kinds)
        if not found.size:
            raise LogError(f"The log {place.entries} has no entries, not even the one that names it.")
        _check_begin(entries, key, found)
        _check_checkpoints(entries, key, found)
        _check_countersignatures(found, roster, cohort, rounds_of(entries))
        if found.kinds.get("checkpoint"):
            found.wrong += unsigned_rounds(entries, found.notes)
        if place.checkpoints.exists() and place.checkpoints.stat().st_size > noted:
            found.remarks.append(
                "The last checkpoint was never finished, as a crash leaves it, and counts for nothing."
            )
        for proof in proofs:
            _check_proof(entries, proof, found)
        if other is not None:
            _compare(place, other, found)
    except (LogError, OSError) as error:
        found.wrong.append(str(error))
    if found.torn:
        found.remarks.append(
            f"The last {found.torn} bytes are an entry that was never finished: it counts for nothing."
        )
    return found


def verify_proof(
    proof: Proof, key: PublicIdentity | None = None, roster: Roster | None = None, cohort: Sequence[str] = ()
) -> list[str]:
    """Verify a proof by itself: that its entry is under its root, and that the root is what log and silos signed.

    Parameters
    ----------
    proof : Proof
    key : PublicIdentity, optional
        Of the log; without it, the log's signature is not checked.
    roster : Roster, optional
        Without it, countersignatures are not checked.
    cohort : sequence of str
        Who has to have countersigned the checkpoint, and nobody else.

    Returns
    -------
    list of str
        What a reader still has to compare.

    Raises
    ------
    ProofError
        If the entry is not under the root.
    CheckpointError
        If a signature does not hold, or one that is asked for is missing.
    """
    proof.check()
    if proof.note is None:
        if key is not None or cohort:
            raise CheckpointError("The proof has no checkpoint: nobody has signed its root.")
        return ["Nobody has signed the root: it is only as good as whoever gave it."]
    remarks = []
    if key is None:
        remarks.append("The log's signature was not checked: name its key with --key.")
    else:
        check_signed(proof.note, key)
    if roster is not None and cohort:
        check_countersigned(proof.note, roster, cohort)
    elif roster is not None:
        countersigners(proof.note, roster)
    elif cohort:
        raise CheckpointError(_NO_ROSTER)
    elif len(proof.note.marks) > 1:
        remarks.append(
            f"{len(proof.note.marks) - 1} countersignatures were not checked: name the roster with --roster."
        )
    return remarks


def _check_begin(entries: Entries, key: PublicIdentity | None, found: Findings) -> None:
    begin = entries.entry(0)
    if begin.kind != "begin":
        raise LogError(
            f"The first entry of {entries.path} does not name the log and its key: the beginning is missing."
        )
    if found.kinds["begin"] > 1:
        found.wrong.append("The log begins more than once.")
    found.origin = begin.body["origin"]
    try:
        found.key = PublicIdentity.decode(bytes.fromhex(begin.body["identity"]))
    except IdentityError:
        raise LogError(f"The first entry of {entries.path} names no key.") from None
    if key is None:
        found.remarks.append(
            f"Key: {found.key.fingerprint}, as the log itself names it; compare it, or name it with --key."
        )
    elif key != found.key:
        found.wrong.append(f"The log names the key {found.key.fingerprint[:16]}, not {key.fingerprint[:16]}.")
    else:
        found.remarks.append(f"Key: {key.fingerprint}, as you named it.")


def _check_checkpoints(entries: Entries, key: PublicIdentity | None, found: Findings) -> None:
    previous, size, time = FIRST, 0, 0
    for note in found.notes:
        one = note.checkpoint
        if one.origin != found.origin:
            found.wrong.append(f"The checkpoint at {one.size} entries is of another log, '{one.origin}'.")
        if found.key is not None:
            found.wrong += _said(partial(check_signed, note, found.key))
        if one.size > found.size:
            found.wrong.append(
                f"The log has {found.size} entries, and a checkpoint says {one.size}: entries were cut off."
            )
        elif entries.roots[one.size] != one.root:
            found.wrong.append(
                f"The root at {one.size} entries is not that of the checkpoint there: an entry before it was changed, "
                "added, removed or moved, or the checkpoint was."
            )
        if one.previous != previous or one.size <= size or one.time < time:
            found.wrong.append(
                f"The checkpoint at {one.size} entries does not follow the one before it: one was changed, removed or "
                "moved."
            )
        previous, size, time = one.hash, one.size, one.time
    if not found.notes:
        # Whoever names a key asks what it has signed.
        (found.remarks if key is None else found.wrong).append("There is no checkpoint: nobody has signed this log.")
    elif size < found.size:
        found.remarks.append(f"The last {found.size - size} entries are under no checkpoint yet.")


def _check_countersignatures(
    found: Findings, roster: Roster | None, cohort: Sequence[str], bound: Collection[str]
) -> None:
    marks = sum(len(note.marks) - 1 for note in found.notes)
    if roster is None:
        if cohort:
            raise CheckpointError(_NO_ROSTER)
        if marks:
            found.remarks.append(f"{marks} countersignatures were not checked: name the roster with --roster.")
        return
    if cohort and not found.notes:
        found.wrong.append("There is no checkpoint that anybody could have countersigned.")
    if found.origin in {member.name for member in roster.members}:
        found.wrong.append(
            f"The log has the name of the member '{found.origin}': its own signatures could pass for countersignatures."
        )
    for note in found.notes:
        if cohort and (not bound or note.checkpoint.hash in bound):
            found.wrong += _said(partial(check_countersigned, note, roster, cohort))
        else:
            found.wrong += _said(partial(countersigners, note, roster))
    found.remarks.append(f"{marks} countersignatures were checked against the roster {roster.hash}.")


def _check_proof(entries: Entries, proof: Proof, found: Findings) -> None:
    try:
        proof.check()
        if found.key is not None and proof.note is not None:
            check_signed(proof.note, found.key)
        if proof.size > found.size or entries.tree.span(0, proof.size) != proof.root:
            raise ProofError(f"The proof of entry {proof.index} holds, but for another log than this one.")
    except LogError as error:
        found.wrong.append(str(error))
    else:
        found.remarks.append(f"The proof of entry {proof.index} holds, and is of this log.")


def _compare(place: Place, other: Place, found: Findings) -> None:
    at, both = parting(place.entries, other.entries)
    if at is None:
        found.remarks.append(f"{other.entries} is the same log as far as both go, which is {both} entries.")
    else:
        found.wrong.append(f"{other.entries} is another log: the two part at entry {at}.")


def parting(one: Path, other: Path) -> tuple[int | None, int]:
    """Return at which entry two copies of a log part, and how many entries both have before that or in all.

    Returns
    -------
    int or None
        The number of the first entry that differs; None if the longer one goes on from the shorter one.
    int
        How many entries they have in common.

    Raises
    ------
    LogError
        If one of them cannot be read.
    """
    number = 0
    with explained(one, "read"), one.open("rb") as first, explained(other, "read"), other.open("rb") as second:
        ours = (line for lines in blocks(first, one) for line in lines)
        theirs = (line for lines in blocks(second, other) for line in lines)
        for left, right in zip(ours, theirs, strict=False):
            if left != right:
                return number, number
            number += 1
    return None, number


def _said(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except CheckpointError as error:
        return [str(error)]
    return []
