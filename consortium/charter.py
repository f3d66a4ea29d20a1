"""The charter in the operator's folder: runs are submitted under it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from quire.charter.chain import read_chain
from quire.consortium.layout import OperatorFolder


def with_charter(folder: OperatorFolder, overrides: Sequence[str]) -> list[str]:
    """Return the settings of a run with the hash of the charter in force, if the folder has one and they name none.

    Raises
    ------
    CharterError
        If what the folder has is no charter, does not hold, or is not in force yet.
    """
    given = list(overrides)
    if not folder.charter.is_dir() or any(item.startswith("charter=") for item in given):
        return given
    return [*given, f"charter={read_chain(folder.charter).in_force(int(time.time())).hash}"]
