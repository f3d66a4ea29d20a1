"""Modules compiled with unchecked hashes: inside Gramine every file is of 1970, and what is dated would look stale.

Python then compiles every module anew at every start, which took 2.6 times the processor time of a short run. Compiled
files whose header says "unchecked hash" (PEP 552) are taken as they are; the manifest's SHA-256 vouches for them.
"""

from __future__ import annotations

import importlib.util
import os
import py_compile
import sys
from collections.abc import Iterable
from pathlib import Path

from quire.enclave.errors import EnclaveError

_UNCHECKED = (1).to_bytes(4, "little")
_HEADER = 16


def compiled(sources: Iterable[str], folder: Path) -> list[str]:
    """Compile modules below a folder, as ``PYTHONPYCACHEPREFIX`` expects them there; keep those that still fit.

    Returns
    -------
    list of str
        The compiled files. A source that is no Python is passed over.

    Raises
    ------
    EnclaveError
        If they cannot be written.
    """
    found = []
    for source in sources:
        place, name = os.path.split(source)
        target = folder / place.lstrip("/") / f"{name.removesuffix('.py')}.{sys.implementation.cache_tag}.pyc"
        try:
            content = Path(source).read_bytes()
            if not _fits(target, content):
                mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
                py_compile.compile(source, str(target), doraise=True, invalidation_mode=mode)
        except py_compile.PyCompileError:
            continue
        except OSError as error:
            raise EnclaveError(f"{source} cannot be compiled below {folder}: {error.strerror}.") from error
        found.append(str(target))
    return found


def _fits(target: Path, content: bytes) -> bool:
    try:
        with target.open("rb") as file:
            head = file.read(_HEADER)
    except FileNotFoundError:
        return False
    return head == importlib.util.MAGIC_NUMBER + _UNCHECKED + importlib.util.source_hash(content)
