"""Files as others leave them: read without waiting, up to a limit, and never through a link.

Everything here may be being written, torn, gone since it was listed, or placed there to do harm. What cannot be shown
is an :class:`~quire.dashboard.errors.Unreadable` with a sentence; nothing else gets out.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quire.dashboard.errors import Unreadable

MEGABYTE = 2**20
#: Bytes of a small file, such as ``run.json``; of a privacy card; of what is read of a journal or a log.
SMALL, CARD, JOURNAL = MEGABYTE, 8 * MEGABYTE, 32 * MEGABYTE
_HEAD = MEGABYTE


def read_file(path: Path, limit: int = SMALL) -> bytes | None:
    """Read a whole file.

    Parameters
    ----------
    path : pathlib.Path
    limit : int
        The most bytes that it may have.

    Returns
    -------
    bytes or None
        None where there is no such file.

    Raises
    ------
    Unreadable
        If it cannot be read, is a link or no file, or has more bytes.
    """
    found = _opened(path)
    if found is None:
        return None
    with os.fdopen(found, "rb") as file:
        try:
            data = file.read(limit + 1)
        except OSError as error:
            raise _unreadable(path, error) from error
    if len(data) > limit:
        raise Unreadable(f"{path.name} has more than {limit // 1024} kB, and is not shown here.")
    return data


def read_json(path: Path, limit: int = SMALL) -> dict[str, Any] | None:
    """Read a JSON object; None where there is no such file.

    Raises
    ------
    Unreadable
        If it cannot be read, or is no JSON object.
    """
    data = read_file(path, limit)
    if data is None:
        return None
    found = parsed(data)
    if found is None:
        raise Unreadable(f"{path.name} is damaged, or being written: it holds no JSON object.")
    return found


def parsed(data: bytes) -> dict[str, Any] | None:
    """Return the JSON object that bytes spell; None if they spell anything else, however deeply nested."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError, MemoryError):
        return None
    return found if isinstance(found, dict) else None


def lines_of(path: Path, limit: int = JOURNAL, head: int = _HEAD) -> tuple[list[bytes], bool]:
    """Read the finished lines of a file that grows; of a huge one those at its beginning and its end.

    Parameters
    ----------
    path : pathlib.Path
    limit : int
        Bytes that are read at most.
    head : int
        Bytes of these from the beginning, where the file has more.

    Returns
    -------
    list of bytes
        Without their line feeds. A last line without one is being written, or torn, and is left out.
    bool
        Whether something in the middle was left out.

    Raises
    ------
    Unreadable
        If it cannot be read.
    """
    found = _opened(path)
    if found is None:
        return [], False
    with os.fdopen(found, "rb") as file:
        try:
            size = os.fstat(file.fileno()).st_size
            if size <= limit:
                return _finished(file.read(limit)), False
            first = file.read(min(head, limit // 2))
            file.seek(size - (limit - len(first)))
            last = file.read(limit - len(first))
        except OSError as error:
            raise _unreadable(path, error) from error
    return [*_finished(first), *_finished(last[last.find(b"\n") + 1 :])], True


def objects(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects among some lines; anything else is passed over."""
    for line in lines:
        if (found := parsed(line)) is not None:
            yield found


def folders_in(folder: Path, most: int) -> list[Path]:
    """Return the folders in a folder, by name; no links, none that is hidden, and at most so many entries looked at."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for number, entry in enumerate(entries):
                if number >= most:
                    break
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                    found.append(folder / entry.name)
    except OSError:
        return []
    return sorted(found)


def is_file(path: Path) -> bool:
    """Whether there is a regular file of this name, not a link."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def size_of(path: Path) -> int:
    """Return the bytes of a file; 0 where there is none."""
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _opened(path: Path) -> int | None:
    try:
        # Not blocking: a named pipe would wait for a writer for ever. No link: it may lead anywhere.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Unreadable(f"{path.name} is not a file.")
    return descriptor


def _finished(data: bytes) -> list[bytes]:
    return data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]


def _unreadable(path: Path, error: OSError) -> Unreadable:
    return Unreadable(f"{path.name} cannot be read: {error.strerror or type(error).__name__}.")
