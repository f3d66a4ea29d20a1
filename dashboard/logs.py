"""Transparency logs on a page: a run's own, verified where it is short enough; and those that a silo was shown."""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path
from typing import Any

from quire.clients.identity import IdentityFileError, Roster, read_roster
from quire.dashboard.errors import Unreadable
from quire.dashboard.reading import MEGABYTE, is_file, parsed, read_file, size_of
from quire.dashboard.text import Long, moment, without
from quire.errors import QuireError
from quire.transparency.checkpoints import Note, countersigners
from quire.transparency.errors import CheckpointError
from quire.transparency.memory import MAX_BYTES
from quire.transparency.verify import Findings, Place, verify_log

#: Bytes of a log that is verified for a page: a second's work.
LONGEST = 8 * MEGABYTE
_SHOWN, _SENTENCES, _LOGS = 40, 20, 200


def log_of(folder: Path, whole: bool) -> dict[str, Any] | None:
    """Return what a page says of a run's log; None where the run has none.

    Parameters
    ----------
    folder : pathlib.Path
        Of the run.
    whole : bool
        Whether the reader may see the sentences about what is wrong: they name silos.

    Raises
    ------
    Unreadable
        If the log is too long to be verified here.
    """
    entries, notes = folder / "log" / "entries.jsonl", folder / "log" / "checkpoints.txt"
    if entries.parent.is_symlink() or notes.is_symlink() or not is_file(entries):
        return None
    if os.path.lexists(notes) and not is_file(notes):
        raise Unreadable("checkpoints.txt is not a file.")  # a pipe would be waited for
    if max(size_of(entries), size_of(notes)) > LONGEST:
        raise Unreadable("The log is too long to be verified for a page: `quire log verify` does it.")
    roster, pinned = _roster(folder)
    found = verify_log(Place(entries, notes), roster=roster)
    return {
        "origin": found.origin,
        "size": found.size,
        "root": found.root.hex(),
        "key": None if found.key is None else found.key.fingerprint,
        "kinds": [(kind.replace("_", " "), count) for kind, count in sorted(found.kinds.items())],
        "sound": not found.wrong,
        "countersigned": roster is not None,
        "roster": Long(pinned),
        "wrong": [Long(without(text, folder)) for text in found.wrong[:_SENTENCES]] if whole else [],
        "left_out": max(0, len(found.notes) - _SHOWN),
        "checkpoints": [_checkpoint(note, roster) for note in reversed(found.notes[-_SHOWN:])],
        "count": len(found.notes),
        "covered": _covered(found),
    }


def _covered(found: Findings) -> int:
    return max((note.checkpoint.size for note in found.notes), default=0)


def _roster(folder: Path) -> tuple[Roster | None, str]:
    path = folder / "roster.json"
    if not is_file(path):
        return None, "This run folder has no roster: whose the countersignatures are is not checked."
    try:
        return read_roster(path).roster, (
            "Countersignatures are checked with the keys in the run's own roster.json. Compare its hash with the "
            "roster that you know: `quire roster show`."
        )
    except (IdentityFileError, QuireError):
        return None, "The run's roster.json cannot be used: whose the countersignatures are is not checked."


def _checkpoint(note: Note, roster: Roster | None) -> dict[str, Any]:
    checkpoint = note.checkpoint
    claimed = sorted({mark.name for mark in note.marks if mark.name != checkpoint.origin})
    checked = roster is not None
    if roster is not None:
        try:
            claimed = sorted(countersigners(note, roster))
        except CheckpointError:
            checked = False
    return {
        "size": checkpoint.size,
        "time": moment(checkpoint.time),
        "root": checkpoint.root.hex()[:16],
        "silos": claimed[:64],
        "more": max(0, len(claimed) - 64),
        "checked": checked,
    }


def logs_seen(store: Path) -> list[dict[str, Any]]:
    """Return the checkpoints that a silo has seen last, one for each log: as it keeps them, no signature checked."""
    folder = store / "logs"
    found: list[dict[str, Any]] = []
    try:
        places = sorted(path for path in folder.iterdir() if path.suffix == ".json")[:_LOGS]
    except OSError:
        return []
    for path in places:
        try:
            data = read_file(path, MAX_BYTES)
            told = None if data is None else parsed(data)
            if told is None:
                raise ValueError
            note = Note.decode(base64.b64decode(str(told.get("note")), validate=True))
        except (Unreadable, CheckpointError, ValueError, binascii.Error):
            found.append({"origin": path.stem, "size": None, "time": "", "root": "damaged, or being written", "at": 0})
            continue
        one = note.checkpoint
        about = {"origin": one.origin, "size": one.size, "time": moment(one.time), "root": one.root.hex()[:16]}
        found.append({**about, "at": one.time})
    return sorted(found, key=lambda one: -one["at"])
