"""Freed memory is kept for the next update, not given back to be asked for again.

Every update is a handful of arrays as large as the model, made and let go of. By default glibc gives such blocks back
to the kernel, which then has to find and clear each page anew: for a model of a million parameters a tenth of the time
of an update and more, where page faults are slow.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

# Of glibc's malloc.h. Blocks of more than 32 MiB, the most that it takes here, are still given back.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT, _LARGEST = 1 << 30, 32 << 20


@cache
def keep_freed_memory() -> bool:
    """Have this process, and those forked from it, keep up to a gibibyte of what was freed; tell whether it will.

    For a process that simulates. Where the allocator is another one than glibc's, nothing changes.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_TRIM_THRESHOLD, _KEPT)) and bool(mallopt(_MMAP_THRESHOLD, _LARGEST))
