"""The logs of services: files that they append to themselves, and that are put aside when they have grown."""

from __future__ import annotations

import os
import re
from pathlib import Path

#: Bytes of a log at which it is put aside, and how many of those are kept.
LOG_BYTES, LOG_COPIES = 10_000_000, 3
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def rotate(log: Path, most: int = LOG_BYTES, copies: int = LOG_COPIES) -> bool:
    """Put a log aside if it has grown to its limit, and empty it: whoever writes appends, and goes on writing.

    Parameters
    ----------
    log : pathlib.Path
    most : int
        Bytes.
    copies : int
        How many are kept: ``NAME.log.1`` is the youngest.

    Returns
    -------
    bool
        Whether it was. What is written between copying and emptying is lost.
    """
    if not log.exists() or log.stat().st_size < most:
        return False
    for number in range(copies - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number + 1}"))
    log.with_name(f"{log.name}.1").write_bytes(log.read_bytes())
    os.truncate(log, 0)
    return True


def last_line(log: Path) -> str:
    """Return the last line of a log that says something, shortened, and without what would steer a terminal."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    plain = ("".join(filter(str.isprintable, _COLOUR.sub("", line))).strip() for line in reversed(lines))
    return next((line[:300] for line in plain if line), "it left no words")
