"""Which checkpoint each round was bound to, and whether everybody who is said to have countersigned it has."""

from __future__ import annotations

from collections.abc import Sequence

from quire.transparency.checkpoints import Note
from quire.transparency.reading import Entries

_MARK = b'"kind":"checkpoint"'


def unsigned_rounds(entries: Entries, notes: Sequence[Note]) -> list[str]:
    """Hold what a log says of its rounds against its checkpoints; whether signatures verify is not looked at here.

    Parameters
    ----------
    entries : Entries
    notes : sequence of Note
        The log's checkpoints.

    Returns
    -------
    list of str
        A sentence for every round whose checkpoint is missing, is another one or was not the newest when the round was
        run, and for every silo whose countersignature is missing.

    Notes
    -----
    Whoever writes a log goes on from a checkpoint with the round that is bound to it, so that a checkpoint at n entries
    is named by entry n. A log that shows silos an old one, to keep what is behind it open, cannot do that.
    """
    known = {note.checkpoint.hash: note for note in notes}
    wrong = []
    for number, entry in entries.each(lambda line: _MARK in line):
        if entry.kind != "checkpoint":
            continue
        size, note = entry.body["size"], known.get(entry.body["checkpoint"])
        where = f"Round {entry.round}"
        if note is None or note.checkpoint.size != size:
            wrong.append(f"{where} was bound to a checkpoint at {size} entries that is not there.")
            continue
        if size > number:
            wrong.append(f"{where} was bound to a checkpoint at {size} entries, which came later than entry {number}.")
        elif size < number:
            wrong.append(
                f"{where} was bound to the checkpoint at {size} entries, which was not the newest: it says nothing of "
                f"the {number - size} entries between that and the round."
            )
        signed = {mark.name for mark in note.marks if mark.name != note.checkpoint.origin}
        wrong += [
            f"{where} was bound to the checkpoint at {size} entries, which lacks the countersignature of {silo}."
            for silo in entry.body["silos"]
            if silo not in signed
        ]
    return wrong


def rounds_of(entries: Entries) -> set[str]:
    """Return the hashes of the checkpoints that rounds were bound to, as the log says."""
    return {
        entry.body["checkpoint"] for _, entry in entries.each(lambda line: _MARK in line) if entry.kind == "checkpoint"
    }
