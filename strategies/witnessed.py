"""The newest receipts of earlier runs, which a server shows to silos again: what tells a ledger that was put back.

They stand in the journals of the run folders beside this run's, and the transparency logs there name the same heads.
Each silo is shown its own and nobody else's: run folders may lie beside those of other consortia, whose receipts say
who took part there, with how many records. Whose a receipt is, its name alone does not say: the key that signed it
does, and the roster says whose key that is.
"""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from quire.privacy.identity.keys import PublicIdentity
from quire.privacy.identity.roster import Roster
from quire.privacy.receipts import Receipt, ReceiptError

JOURNAL = "metrics.jsonl"
#: How many run folders are looked at, the newest first, and how many bytes from the end of a journal.
MOST_FOLDERS, TAIL = 64, 4 * 1024 * 1024
#: The most receipts that a silo is shown: one for each population that it has had.
MOST = 16


def newest_receipts(folder: Path, roster: Roster | None) -> dict[str, list[bytes]]:
    """Return for each silo and population its own receipt with the most entries, out of the folders beside a run's.

    Parameters
    ----------
    folder : pathlib.Path
        The run folder; its own journal counts too, of a run that is gone on with.
    roster : Roster or None
        Of this run. Without one nobody can say whose a receipt is, and none is shown.

    Returns
    -------
    dict of str to list of bytes
        By the name of a member of the roster, receipts under that name that its key has signed; a member without any
        is missing. What cannot be read is passed over: whoever is shown a receipt checks it, and whoever is shown none
        is where it would be without.
    """
    if roster is None:
        return {}
    keys = {member.name: member.identity for member in roster.members}
    found: dict[str, dict[str, list[tuple[int, bytes]]]] = {}
    for place in _folders(folder):
        for data in _receipts(place / JOURNAL, keys):
            try:
                one = Receipt.decode(data)
            except ReceiptError:
                continue
            body, silo = one.body, one.body["silo"]
            if body["ledger"] is None or silo not in keys or one.signer != keys[silo].fingerprint:
                continue
            found.setdefault(silo, {}).setdefault(body["population"], []).append((body["ledger"]["entries"], data))
    shown = {silo: _furthest(populations, keys[silo]) for silo, populations in found.items()}
    return {silo: receipts for silo, receipts in shown.items() if receipts}


def _furthest(populations: Mapping[str, list[tuple[int, bytes]]], key: PublicIdentity) -> list[bytes]:
    """Return one receipt for each population, the furthest that the key has really signed."""
    chosen = []
    for receipts in populations.values():
        # One that somebody else made under the key's name must not stand before those that the key has signed.
        for _, data in sorted(receipts, reverse=True):
            if _signed(data, key):
                chosen.append(data)
                break
    return chosen[:MOST]  # those of the newest folders


def _signed(data: bytes, key: PublicIdentity) -> bool:
    try:
        Receipt.decode(data).check(key)
    except ReceiptError:
        return False
    return True


def _folders(folder: Path) -> list[Path]:
    try:
        found = [(place.stat().st_mtime_ns, place) for place in folder.resolve().parent.iterdir() if place.is_dir()]
    except OSError:
        return []
    return [place for _, place in sorted(found, reverse=True)[:MOST_FOLDERS]]


def _receipts(journal: Path, silos: Collection[str]) -> Iterator[bytes]:
    """Yield the receipts of some silos that stand in a journal."""
    try:
        # Not waiting: a pipe of that name would keep the server until somebody writes into it.
        with open(os.open(journal, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL))
            lines = file.read(TAIL).split(b"\n")
    except OSError:
        return
    for line in lines:
        try:
            found: Any = json.loads(line)
            listed = found.get("receipts", {}) if isinstance(found, Mapping) else {}
            yield from [base64.b64decode(text, validate=True) for silo, text in listed.items() if silo in silos]
        except (AttributeError, RecursionError, TypeError, ValueError):
            continue  # torn, or cut at the front
