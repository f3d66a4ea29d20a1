"""Which code is this? One hash over the sources that server and silo both run.

Every reply of a silo echoes it. A worker that picked up a stale or foreign copy of a package is thus found out by
the server before anything of its reply is used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_ROOMS = ("charter", "conf", "clients", "privacy", "strategies", "transparency")
_SOURCES = (".py", ".yaml")


@cache
def code_hash() -> str:
    """Return the SHA-256 (hex) over the sources of the rooms that take part in a round, as loaded here.

    File names relative to their room and file contents count; where the checkout lies does not, so that a
    checkout, an installed wheel and Flower's bundle of the same code agree.
    """
    files: dict[str, bytes] = {}
    for room in _ROOMS:
        spec = find_spec(f"quire.{room}")  # locates the room without running it
        if spec is None or spec.origin is None:
            raise ImportError(f"the package quire.{room} is not where quire is")
        root = Path(spec.origin).resolve().parent
        for suffix in _SOURCES:
            for path in root.rglob(f"*{suffix}"):
                files[f"{room}/{path.relative_to(root).as_posix()}"] = path.read_bytes()
    return _hash(files)


def hash_of_sources(files: Mapping[str, bytes]) -> str | None:
    """Return the same hash over the files of a bundle, without running any of them; None if a room is missing.

    Parameters
    ----------
    files : mapping of str to bytes
        Contents by name, relative to the app's folder, with ``/`` between the parts.
    """
    sources = {name: content for name, content in files.items() if name.endswith(_SOURCES)}
    return _hash(sources) if all(f"{room}/__init__.py" in sources for room in _ROOMS) else None


def _hash(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for room in _ROOMS:
        names = (name for name in files if name.startswith(f"{room}/"))
        for name in sorted(names, key=lambda name: name.split("/")):
            digest.update(f"{name}\0{len(files[name])}\0".encode())
            digest.update(files[name])
    return digest.hexdigest()
