"""The charter in the operator's folder: runs are submitted under it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from quire.charter.chain import expired, read_chain
from quire.conf.schema import Settings
from quire.consortium.layout import OperatorFolder
from quire.consortium.tickets import ResumeError


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


def check_charter(folder: OperatorFolder, settings: Settings, run: int) -> None:
    """See to it that the charter that a run began under is the one in force: a run goes on under no other.

    Parameters
    ----------
    folder : OperatorFolder
    settings : Settings
        Of the run.
    run : int
        Its number.

    Raises
    ------
    ResumeError
        If it is not, or is over.
    CharterError
        If what the folder has is no charter, does not hold, or is not in force yet.
    """
    now = int(time.time())
    found = read_chain(folder.charter).in_force(now) if folder.charter.is_dir() else None
    if settings.charter == (found.hash if found is not None else None) and not (found and expired(found, now)):
        return
    was = "no charter" if settings.charter is None else f"the charter {settings.charter[:16]}"
    if found is None:
        what = "the folder has none any more"
    elif settings.charter == found.hash:
        what = "that has expired"
    else:
        what = f"{found.label}, ({found.hash[:16]}) is in force now"
    raise ResumeError(f"Run {run} was under {was}, and {what}: it cannot go on; submit a new run.")
