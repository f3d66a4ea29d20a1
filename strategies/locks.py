"""A lock on an open file that is asked for again while somebody may only be looking whether it is held."""

from __future__ import annotations

import fcntl
import time
from typing import IO, Any

_PAUSE = 0.02


def locked(file: IO[Any], patience: float) -> bool:
    """Lock a file for this process alone, until it is closed; tell whether that could be done.

    Parameters
    ----------
    file : file object
    patience : float
        Seconds for which it is asked for again. Whether a lock is held cannot be found out but by taking it, so that
        who looks is in the way for a moment.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE)
        else:
            return True
