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
        A sentence for every round whose checkpoint is missing, is another one or comes later, and for every silo whose
        countersignature is missing.
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
        signed = {mark.name for mark in note.marks}
        wrong += [
            f"{where} was bound to the checkpoint at {size} entries, which lacks the countersignature of {silo}."
            for silo in entry.body["silos"]
            if silo not in signed
        ]
    return wrong
