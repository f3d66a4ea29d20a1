"""The files of services: logs, which grow and are put aside; and whether what they read has changed."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
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


def stamp(paths: Sequence[Path]) -> tuple[int, ...]:
    """Return what changes when one of some files does."""
    found = []
    for path in paths:
        with contextlib.suppress(OSError):
            about = path.stat()
            found += [about.st_mtime_ns, about.st_size, about.st_ino]
    return tuple(found)


def words_for(status: int) -> str:
    """Say how a process ended, by its exit status."""
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"
