"""Texts of others before a person's eyes: bounded, and every character that hides, reorders or overprints made visible.

Silos choose their names, servers their words, partners their offers, and all of it ends up in a terminal or on a page.
Escaping is the page's affair; what escaping leaves is a name that displays backwards, over other lines, or over pages.
"""

from __future__ import annotations

import itertools
import unicodedata

#: Characters of a name, and of a text that is meant to be read.
NAME, TEXT = 120, 2000
# Accents on one letter: no language needs more, and a pile of them covers the lines above.
_MARKS = 3
# What prints as nothing, or as blank, though it counts as printable: fillers, joiners, selectors of variants.
_FROM, _TO = (0x180B, 0xFE00, 0xE0100), (0x1810, 0xFE10, 0xE01F0)
_NBSP = "\N{NO-BREAK SPACE}"
_BLANK = frozenset(itertools.chain((0x034F, 0x115F, 0x1160, 0x2800, 0x3164, 0xFFA0), *map(range, _FROM, _TO)))


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
        elif letter == _NBSP or (letter.isprintable() and ord(letter) not in _BLANK and marks <= _MARKS):
            found.append(letter)
        else:
            found.append(f"\u27e8U+{ord(letter):04X}\u27e9")
    return "".join(found) + ("\u2026" if len(text) > limit else "")
