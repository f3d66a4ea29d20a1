"""Texts of others on a page: bounded in length, and every character that hides, reorders or overprints made visible.

Silos choose their names, servers their words, and both end up before an operator's eyes. Escaping is the templates'
affair (Jinja's autoescape); what escaping leaves is a name that displays backwards, over other lines, or over pages.
"""

from __future__ import annotations

import itertools
import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Undefined
from markupsafe import Markup

from quire.simulation.report_words import NBSP

#: Characters of a name, and of a text that is meant to be read.
NAME, TEXT = 120, 2000
# Accents on one letter: no language needs more, and a pile of them covers the lines above.
_MARKS = 3
_WHOLE = 10**15
# What prints as nothing, or as blank, though it counts as printable: fillers, joiners, selectors of variants.
_FROM, _TO = (0x180B, 0xFE00, 0xE0100), (0x1810, 0xFE10, 0xE01F0)
_BLANK = frozenset(itertools.chain((0x034F, 0x115F, 0x1160, 0x2800, 0x3164, 0xFFA0), *map(range, _FROM, _TO)))


class Long(str):
    """A text that is meant to be read, such as the words of a refusal: bounded by :data:`TEXT`."""

    __slots__ = ()


def visible(text: str, limit: int = NAME) -> str:
    """Return a text on one line, bounded, in which nothing hides.

    Parameters
    ----------
    text : str
    limit : int
        Characters of the text that are shown at most; an ellipsis says that there were more.

    Returns
    -------
    str
        Line ends and tabs as spaces; every other character that does not print (controls, bidirectional overrides,
        zero-width and blank characters, lone surrogates) as its number in angle brackets.
    """
    cut, found, marks = text[:limit], [], 0
    for letter in cut:
        marks = marks + 1 if unicodedata.category(letter).startswith("M") else 0
        if letter in "\n\r\t":
            found.append(" ")
        elif letter == NBSP or (letter.isprintable() and ord(letter) not in _BLANK and marks <= _MARKS):
            found.append(letter)
        else:
            found.append(f"\u27e8U+{ord(letter):04X}\u27e9")
    return "".join(found) + ("\u2026" if len(text) > limit else "")


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
