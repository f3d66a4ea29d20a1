"""Values out of files that others wrote: of the form that they should have, or not there; and how they are shown."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from quire.text import TEXT, visible

_LARGEST = 1e15
_NAMES = 60


def part(value: Any, *path: str | int) -> Any:
    """Return what lies at a path of keys; None where there is nothing."""
    for key in path:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and isinstance(key, int) and 0 <= key < len(value):
            value = value[key]
        else:
            return None
    return value


def mapping(value: Any) -> dict[str, Any]:
    """Return a mapping; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def listed(value: Any, most: int = 100_000) -> list[Any]:
    """Return a list, at most so many of its items; an empty one for anything else."""
    return value[:most] if isinstance(value, list) else []


def number(value: Any) -> float | None:
    """Return a number that can be shown; infinity for ``"inf"``, None for anything else."""
    if value in ("inf", ".inf") or value == math.inf:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) and abs(found) < _LARGEST else None


def whole(value: Any) -> int | None:
    """Return a whole number that can be a count; None for anything else."""
    return value if type(value) is int and 0 <= value < 2**53 else None


def figure(value: Any) -> str:
    """Return a number for reading: ``unknown`` where there is none."""
    found = number(value)
    return "unknown" if found is None else "infinite" if math.isinf(found) else f"{found:.6g}"


def word(value: Any, default: str = "unknown") -> str:
    """Return a name or a word of others, made visible; ``default`` where there is none."""
    return visible(value) if isinstance(value, str) and value else default


def text(value: Any, default: str = "Nothing is said.") -> str:
    """Return a sentence of others, made visible; ``default`` where there is none."""
    return visible(value, TEXT) if isinstance(value, str) and value else default


def names(found: Iterable[Any], most: int = _NAMES) -> str:
    """Return names in a row, made visible; of very many the first."""
    every = [word(one) for one in found]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more if every else "none"


def parsed(data: bytes | str) -> Any:
    """Return what JSON says; None if it is none, however deeply nested."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError, MemoryError):
        return None


def without(said: str, *folders: Path) -> str:
    """Return a sentence without the folders that it names: how a machine is laid out is nobody's affair."""
    for folder in folders:
        for path in sorted({str(folder), str(folder.absolute())}, key=len, reverse=True):
            if "/" in path.rstrip("/"):
                said = said.replace(f"{path}/", "").replace(path, folder.absolute().name)
    return said


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return ``1 round``, ``2 rounds``."""
    return f"{count} {one if count == 1 else many or one + 's'}"
