"""How code can tell that a gate let it in."""

from __future__ import annotations

import os

#: Set by the gate in the process of approved code, to the hash by which it was approved.
MARK_VARIABLE = "QUIRE_GUARDED"


def guarded() -> bool:
    """Say whether a gate checked this code before it was started.

    Notes
    -----
    This is what the code of an honest server says about its silo, for cards and receipts: "no" means that the promise
    holds against an honest-but-curious server only. It proves nothing to anybody else, because code that no gate
    checked can claim what it likes.
    """
    return bool(os.environ.get(MARK_VARIABLE))
