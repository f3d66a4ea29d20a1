"""A run's journal, for a document: every round, who took part and who failed by code, as far as it can be read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quire.clients.contract import WORDS
from quire.reports.values import listed, mapping, parsed, part, whole

_FIXED = {code.name.lower(): words for code, words in WORDS.items()}
_MOST = 4096


@dataclass(frozen=True)
class Failure:
    """Who failed, at what, with which code. What the journal says in words is not taken over."""

    silo: str
    stage: str
    code: str

    @property
    def words(self) -> str:
        """The fixed words of the code; nothing for one that silos do not have."""
        return _FIXED.get(self.code, "")


@dataclass(frozen=True)
class Round:
    """One line about a round.

    Attributes
    ----------
    number : int
    event : str
        ``round``, ``failed`` or ``resume``.
    cohort, replied : tuple of str
    failed : tuple of Failure
    lost : bool
        Whether it has no sum; of one with replies the sum was opened, and rejected.
    """

    number: int
    event: str
    cohort: tuple[str, ...] = ()
    replied: tuple[str, ...] = ()
    failed: tuple[Failure, ...] = ()
    lost: bool = False


@dataclass
class Journal:
    """What a journal says.

    Attributes
    ----------
    silos : tuple of str
    planned : int or None
    start : dict
    lines : list of Round
    enrolment : list of Failure
        Who could not be enrolled.
    bad : int
        Lines that are none.
    there : bool
        Whether there is one at all.
    """

    silos: tuple[str, ...] = ()
    planned: int | None = None
    start: dict[str, Any] = field(default_factory=dict)
    lines: list[Round] = field(default_factory=list)
    enrolment: list[Failure] = field(default_factory=list)
    bad: int = 0
    there: bool = False

    @property
    def rounds(self) -> list[Round]:
        """The rounds that were finished, each once: of one that was run again the later line."""
        return list({one.number: one for one in self.lines if one.event == "round"}.values())

    @property
    def trained(self) -> dict[str, int]:
        """In how many rounds each silo's update was used, by silo."""
        found = dict.fromkeys(self.silos, 0)
        for one in self.rounds:
            for silo in one.replied:
                found[silo] = found.get(silo, 0) + 1
        return found


def read_journal(path: Path) -> Journal:
    """Read a journal that was looked at before; it never raises for what the file holds."""
    found = Journal()
    try:
        data = path.read_bytes()
    except OSError:
        return found
    found.there = True
    lines = data.split(b"\n")
    for line in lines[:-1]:  # what follows the last line feed is torn, or nothing
        event = parsed(line)
        if not isinstance(event, dict):
            found.bad += 1
            continue
        kind = event.get("event")
        if kind == "start":
            found.start = event
            found.silos, found.planned = _names(event.get("silos")), whole(event.get("rounds"))
        elif kind == "enrolment":
            found.enrolment += _failures(event)
        elif kind in ("round", "failed", "resume"):
            number = whole(event.get("round"))
            if number is None:
                found.bad += 1
                continue
            found.lines.append(_round(kind, number, event))
    found.bad += bool(lines[-1])
    return found


def _round(kind: str, number: int, event: dict[str, Any]) -> Round:
    cohort, replied = _names(event.get("cohort")), _names(event.get("replied"))
    return Round(number, kind, cohort, replied, tuple(_failures(event)), isinstance(event.get("lost"), str))


def _names(value: Any) -> tuple[str, ...]:
    return tuple(one for one in listed(value, _MOST) if isinstance(one, str))


def _failures(event: dict[str, Any]) -> list[Failure]:
    found = (mapping(one) for one in listed(event.get("failed"), _MOST))
    return [Failure(*(str(part(one, key))[:200] for key in ("silo", "stage", "code"))) for one in found if one]
