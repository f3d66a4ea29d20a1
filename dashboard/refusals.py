"""What a silo refused, in words: from the log of its gate, which never leaves the silo.

Two writers share that log: the gate, whose lines begin with a time, and the approved code, whose words stand bare
before the gate's note of what was answered. Only lines of these two forms are shown. Approved code could write such
lines itself: the words are evidence of nothing, they help whoever reads them.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from quire.dashboard.journal import fixed_words, is_code
from quire.dashboard.reading import MEGABYTE, lines_of
from quire.dashboard.text import Long

_TIME = rb"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d{3} gate "
_BARE = re.compile(rb"([a-z][a-z_.]{0,39}) answered with ([A-Z_]{1,40})(?:: (.*))?")
_GATE = re.compile(_TIME + rb"ERROR: Answered with ([A-Z_]{1,40})(?:: (.*))?")
_TOLD = re.compile(_TIME + rb"INFO: Answered ([a-z][a-z_.]{0,39}) with ([A-Z_]{1,40})")
_MOST_BYTES, _SHOWN = 2 * MEGABYTE, 50
_GIVEN = "CONTENT"


@dataclass(frozen=True)
class Refused:
    """One message that was answered with a code.

    Attributes
    ----------
    time : str
        Of the silo's clock, as its log has it; empty where the line has none.
    stage : str
        What was asked; empty where the gate did not say.
    code : str
        What the server was told.
    words : Long
        Why; for the silo's own people. Where the log has no words, the fixed ones of the code.
    """

    time: str
    stage: str
    code: str
    words: Long


def refused_in(log: Path) -> list[Refused]:
    """Return what the last part of a gate's log says was refused, the latest first.

    Raises
    ------
    Unreadable
        If the log cannot be read.
    """
    lines, _ = lines_of(log, _MOST_BYTES, head=0)
    found: list[Refused] = []
    waiting: Refused | None = None
    for line in lines:
        if told := _TOLD.fullmatch(line):
            time, stage, code = (part.decode() for part in told.groups())
            if code != _GIVEN and is_code(code):
                same = waiting is not None and waiting.code == code.lower()
                words = waiting.words if waiting is not None and same else _words(code, None)
                found.append(Refused(time, stage, code.lower(), words))
            waiting = None
        elif told := _GATE.fullmatch(line):
            waiting = _next(found, waiting, told[1].decode(), "", told[2].decode(), told[3])
        elif told := _BARE.fullmatch(line):
            waiting = _next(found, waiting, "", told[1].decode(), told[2].decode(), told[3])
    if waiting is not None:
        found.append(waiting)
    return found[::-1]


def shown(found: list[Refused]) -> tuple[list[Refused], int]:
    """Return the latest for a table, and how many more there are."""
    return found[:_SHOWN], max(0, len(found) - _SHOWN)


def by_code(found: list[Refused]) -> list[tuple[str, str | None, int]]:
    """Sum up by code, for those who may not see the words: code, its fixed words, how often."""
    return [(code, fixed_words(code), times) for code, times in Counter(one.code for one in found).most_common()]


def _next(
    found: list[Refused], waiting: Refused | None, time: str, stage: str, code: str, words: bytes | None
) -> Refused | None:
    """Keep what waits for the gate's note; what waited before and got none stands for itself."""
    if waiting is not None:
        found.append(waiting)
    return Refused(time, stage, code.lower(), _words(code, words)) if is_code(code) else None


def _words(code: str, words: bytes | None) -> Long:
    text = words.decode("utf-8", "replace") if words else fixed_words(code)
    return Long((text or "it left no words")[:4000])
