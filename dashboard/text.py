"""What a template shows of a value: texts of others made visible, times and figures for reading."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Undefined
from markupsafe import Markup

from quire.text import NAME, TEXT, visible

_WHOLE = 10**15


class Long(str):
    """A text that is meant to be read, such as the words of a refusal: bounded by :data:`quire.text.TEXT`."""

    __slots__ = ()


def finalize(value: Any) -> Any:
    """Return what a template may show of a value; Jinja calls it for every expression, before it escapes.

    Only what the house itself has rendered (:class:`markupsafe.Markup`) passes as it is, and what is not there at all,
    about which Jinja decides.
    """
    if isinstance(value, Markup | Undefined):
        return value
    if value is None:
        return "\u2013"
    if isinstance(value, str):
        return visible(value, TEXT if isinstance(value, Long) else NAME)
    if isinstance(value, int) and abs(value) > _WHOLE:
        return "beyond counting"
    return value if isinstance(value, int | float) else visible(f"({type(value).__name__})")


def without(text: str, *roots: Path) -> str:
    """Return a sentence without the folders that files of it lie in: how a machine is laid out is nobody's affair."""
    for root in roots:
        for name in {str(root), str(root.absolute())}:
            text = text.replace(f"{name}/", "").replace(name, root.name or "the folder")
    return text


def moment(seconds: float | None) -> str:
    """Return a time in seconds since 1970 for reading; a dash where it is unknown."""
    if seconds is None:
        return "\u2013"
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, OSError, ValueError):
        return "no time"


def epsilon(value: float | None) -> str:
    """Return an epsilon for reading."""
    if value is None:
        return "\u2013"
    return "unlimited" if value == float("inf") else f"{value:.3g}"
