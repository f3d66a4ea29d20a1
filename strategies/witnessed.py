"""The newest receipts of earlier runs, which a server shows to silos again: what tells a ledger that was put back.

They stand in the journals of the run folders beside this run's, and the transparency logs there name the same heads.
"""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quire.privacy.receipts import Receipt, ReceiptError

JOURNAL = "metrics.jsonl"
#: How many run folders are looked at, the newest first, and how many bytes from the end of a journal.
MOST_FOLDERS, TAIL = 64, 4 * 1024 * 1024
#: The most receipts that are shown.
MOST = 1024


def newest_receipts(folder: Path) -> list[bytes]:
    """Return for each silo, population and key the receipt with the most entries, out of the folders beside a run's.

    Parameters
    ----------
    folder : pathlib.Path
        The run folder; its own journal counts too, of a run that is gone on with.

    Returns
    -------
    list of bytes
        Receipts of silos that are not simulated. What cannot be read is passed over: whoever is shown a receipt
        checks it, and whoever is shown none is where it would be without.
    """
    newest: dict[tuple[str, str, str], tuple[int, bytes]] = {}
    for place in _folders(folder):
        for data in _receipts(place / JOURNAL):
            try:
                one = Receipt.decode(data)
            except ReceiptError:
                continue
            if one.body["ledger"] is None:
                continue
            key, entries = (one.body["silo"], one.body["population"], one.signer), one.body["ledger"]["entries"]
            if key not in newest or newest[key][0] < entries:
                newest[key] = entries, data
    return [data for _, (_, data) in sorted(newest.items())][:MOST]


def _folders(folder: Path) -> list[Path]:
    try:
        found = [(place.stat().st_mtime_ns, place) for place in folder.resolve().parent.iterdir() if place.is_dir()]
    except OSError:
        return []
    return [place for _, place in sorted(found, reverse=True)[:MOST_FOLDERS]]


def _receipts(journal: Path) -> Iterator[bytes]:
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
            yield from [base64.b64decode(text, validate=True) for text in listed.values()]
        except (AttributeError, RecursionError, TypeError, ValueError):
            continue  # torn, or cut at the front
