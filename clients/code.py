"""Which code is this? One hash over the sources that server and silo both run.

Every reply of a silo echoes it. A worker that picked up a stale or foreign copy of a package is thus found out by
the server before anything of its reply is used.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_ROOMS = ("conf", "clients", "privacy", "strategies")


@cache
def code_hash() -> str:
    """Return the SHA-256 (hex) over the sources of the rooms that take part in a round, as loaded here.

    File names relative to their room and file contents count; where the checkout lies does not, so that a
    checkout, an installed wheel and Flower's bundle of the same code agree.
    """
    digest = hashlib.sha256()
    for room in _ROOMS:
        spec = find_spec(f"quire.{room}")  # locates the room without running it
        if spec is None or spec.origin is None:
            raise ImportError(f"the package quire.{room} is not where quire is")
        root = Path(spec.origin).resolve().parent
        for path in sorted((*root.rglob("*.py"), *root.rglob("*.yaml")), key=lambda path: path.relative_to(root).parts):
            content = path.read_bytes()
            digest.update(f"{room}/{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()
