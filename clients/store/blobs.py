"""A silo's state between two stages: named pieces of bytes, replaced whole, checked when read.

Here and not in Flower's ``context.state``, which is lost when it is large and when a handler raises.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from quire.clients.store.errors import StoreDamaged, StoreError
from quire.clients.store.files import explained, private_folder, read, replace, sync_folder

MAX_BYTES = 1 << 30
_MAGIC = b"quire-state-1\n"
_HEAD = len(_MAGIC) + 32
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}(?:/[a-z0-9][a-z0-9_-]{0,63}){0,3}")


def check_name(name: str) -> str:
    """Refuse a name that could lead out of the folder, or collide with another on some file system.

    Raises
    ------
    StoreError
    """
    if not _NAME.fullmatch(name):
        raise StoreError(
            f"{name[:60]!r} cannot name something in the store: one to four parts between slashes, each of at most 64 "
            "lower-case letters, digits, dashes and underscores."
        )
    return name


class Blobs:
    """Named pieces of bytes below one folder. A name may have parts, as in ``session-7/round-3``.

    Parameters
    ----------
    folder : pathlib.Path
    limit : int
        Bytes that one piece may have.
    """

    def __init__(self, folder: Path, limit: int = MAX_BYTES) -> None:
        self._folder, self._limit = folder, limit

    def put(self, name: str, data: bytes) -> None:
        """Store bytes under a name, durably; a crash leaves all of the old or all of the new.

        Raises
        ------
        StoreError
            If the name cannot be one, the piece is too large, or it cannot be written.
        """
        if len(data) > self._limit:
            raise StoreError(f"The state {name[:60]} has {len(data)} bytes; at most {self._limit} are kept.")
        path = self._path(name)
        for folder in reversed([parent for parent in path.parents if self._folder in (parent, *parent.parents)]):
            private_folder(folder)
        replace(path, _MAGIC + sha256(data).digest() + data)

    def get(self, name: str) -> bytes | None:
        """Return the bytes under a name, or None if there are none.

        Raises
        ------
        StoreDamaged
            If they are not the bytes that were stored.
        """
        path = self._path(name)
        content = read(path, self._limit + _HEAD)
        if content is None:
            return None
        data = content[_HEAD:]
        if content[: len(_MAGIC)] != _MAGIC or content[len(_MAGIC) : _HEAD] != sha256(data).digest():
            raise StoreDamaged(f"{path} is not what was stored there; the session it belongs to has to begin anew.")
        return data

    def delete(self, name: str) -> None:
        """Remove what is under a name; nothing there is no error."""
        path = self._path(name)
        with explained(path, "removed"), contextlib.suppress(FileNotFoundError):
            path.unlink()
            sync_folder(path.parent)

    def clear(self, prefix: str) -> None:
        """Remove all whose names begin with these parts: ``clear("session-7")`` removes ``session-7/round-3``."""
        self.delete(prefix)
        folder = self._folder_of(prefix)
        with explained(folder, "removed"):
            if folder.is_dir():
                shutil.rmtree(folder)
                sync_folder(folder.parent)

    def names(self) -> Iterator[str]:
        """Yield all names, in alphabetical order."""
        found = []
        for root, _, files in os.walk(self._folder):
            place = Path(root).relative_to(self._folder)
            found += [(place / file).with_suffix("").as_posix() for file in files if file.endswith(".bin")]
        yield from sorted(found)

    def _folder_of(self, name: str) -> Path:
        return self._folder / check_name(name)

    def _path(self, name: str) -> Path:
        return self._folder / f"{check_name(name)}.bin"
