"""A run's journal for a page: only what has the form that it should have, and only so much of it.

The server writes ``metrics.jsonl``, and silos' names and figures are in it. A field that is not what it should be is
left out as if it were not there; a line that is none is counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quire.clients.contract import WORDS, Code
from quire.dashboard.reading import JOURNAL, MEGABYTE, lines_of, objects, parsed
from quire.simulation.report_data import number
from quire.simulation.report_words import spans

_NAME, _MOST_NAMES, _MOST_ROUND = 200, 4096, 10**7
_LARGEST = 1e12
_FIXED = {code.name.lower(): words for code, words in WORDS.items()}
_SCORES = ("loss", "accuracy", "balanced_accuracy", "auc", "r2", "rmse", "mae")
_SILO_NUMBERS = (*_SCORES, "rows", "test_rows", "train_loss")
_HEAD = MEGABYTE // 4


@dataclass(frozen=True)
class Failure:
    """Who did not answer, at what, and with which code."""

    silo: str
    stage: str
    code: str
    round: int


@dataclass(frozen=True)
class Journal:
    """What a journal says.

    Attributes
    ----------
    silos : tuple of str
        The roster of the run.
    planned : int or None
    task, strategy : str or None
    scored : str
        On which rows rounds are scored: ``validation`` or ``test``.
    rounds : tuple of dict
        In order, one for each number, in the form that :class:`quire.simulation.report_data.RunData` has them.
    failures : tuple of Failure
    lost, resumed : int
        Rounds without a sum; how often the run went on after it had stopped.
    cut : bool
        Whether the file was too long to be read as a whole.
    bad : int
        Lines that are none.
    """

    silos: tuple[str, ...] = ()
    planned: int | None = None
    task: str | None = None
    strategy: str | None = None
    scored: str = "test"
    rounds: tuple[dict[str, Any], ...] = ()
    failures: tuple[Failure, ...] = ()
    lost: int = 0
    resumed: int = 0
    cut: bool = False
    bad: int = 0

    def without_silos(self) -> Journal:
        """Return it without any figure of a single silo, for those who may not see them."""
        return replace(self, rounds=tuple({**event, "silos": {}} for event in self.rounds))


def read_journal(path: Path, limit: int = JOURNAL) -> Journal:
    """Read a journal.

    Raises
    ------
    Unreadable
        If the file cannot be read.
    """
    lines, cut = lines_of(path, limit)
    start: dict[str, Any] = {}
    rounds: dict[int, dict[str, Any]] = {}
    failures: list[Failure] = []
    resumed = bad = 0
    for line in lines:
        event = parsed(line)
        if event is None:
            bad += bool(line)
            continue
        kind = event.get("event")
        if kind == "start":
            start = event
        elif kind == "resume":
            resumed += 1
        elif kind == "enrolment":
            failures += _failures(event, 0)
        elif kind in ("round", "failed") and (place := _round(event.get("round"))) is not None:
            failures += _failures(event, place)
            if kind == "round":  # a resumed run repeats a round: the later line counts
                rounds[place] = _clean(event, place)
    return Journal(
        tuple(_names(start.get("silos"))),
        _round(start.get("rounds")),
        _word(start.get("task")),
        _word(start.get("strategy")),
        "validation" if start.get("scored") == "validation" else "test",
        tuple(rounds[place] for place in sorted(rounds)),
        tuple(failures),
        sum(event["lost"] for event in rounds.values()),
        resumed,
        cut,
        bad,
    )


def planned_in(path: Path) -> int | None:
    """Return how many rounds a run is to have, from the beginning of its journal; None where that is not said.

    Raises
    ------
    Unreadable
        If the file cannot be read.
    """
    lines, _ = lines_of(path, 2 * _HEAD)
    for event in objects(lines[:8]):
        if event.get("event") == "start":
            return _round(event.get("rounds"))
    return None


def refusals(journal: Journal, names: bool, most: int = 100) -> tuple[list[dict[str, Any]], int]:
    """Sum up who did not answer, by code: rows for a table, those that happened most often first.

    Parameters
    ----------
    journal : Journal
    names : bool
        Whether the silos' names may be seen.
    most : int
        Rows.

    Returns
    -------
    list of dict
        ``silo`` (None without names), ``stage``, ``code``, ``words`` (the fixed ones of the code, never any that
        stand in the journal), ``times``, ``rounds``.
    int
        How many more there are.
    """
    found: dict[tuple[str | None, str, str], list[int]] = {}
    for one in journal.failures:
        found.setdefault((one.silo if names else None, one.stage, one.code), []).append(one.round)
    rows = [
        {
            "silo": silo,
            "stage": stage,
            "code": code,
            "words": _FIXED.get(code),
            "times": len(at),
            "rounds": spans([place for place in at if place][:500]) or "before the first",
        }
        for (silo, stage, code), at in sorted(found.items(), key=lambda item: -len(item[1]))
    ]
    return rows[:most], max(0, len(rows) - most)


def fixed_words(code: str) -> str | None:
    """Return the fixed words of a code, in whichever case it is written; None if it is none of the contract's."""
    return _FIXED.get(code.lower())


def is_code(code: str) -> bool:
    """Whether this is the name of one of the contract's codes."""
    return code.upper() in Code.__members__


def _clean(event: dict[str, Any], place: int) -> dict[str, Any]:
    silos = event.get("silos")
    return {
        "round": place,
        "cohort": _names(event.get("cohort")),
        "replied": _names(event.get("replied")),
        "failed": [],
        "lost": isinstance(event.get("lost"), str),
        "train": _numbers(event.get("train"), ("loss",)),
        "evaluate": _numbers(event.get("evaluate"), _SCORES),
        "silos": {
            name[:_NAME]: _numbers(told, _SILO_NUMBERS)
            for name, told in list(silos.items() if isinstance(silos, dict) else ())[:_MOST_NAMES]
        },
        "seconds": _numbers(event.get("seconds"), ("train", "aggregate", "evaluate")),
        "bytes_down": _number(event.get("bytes_down")) or 0.0,
        "bytes_up": _number(event.get("bytes_up")) or 0.0,
        "receipts": len(event["receipts"]) if isinstance(event.get("receipts"), dict) else 0,
        "attempts": _attempts(event.get("secure")),
    }


def _attempts(secure: object) -> int | None:
    found = secure.get("attempts") if isinstance(secure, dict) else None
    if not isinstance(found, list):
        return None
    # Where silos are summed in groups, that of most attempts: a round without trouble has one, as everywhere.
    return max(Counter(str(one.get("group")) for one in found if isinstance(one, dict)).values(), default=0)


def _failures(event: dict[str, Any], place: int) -> list[Failure]:
    found = event.get("failed")
    return [
        Failure(str(one.get("silo"))[:_NAME], _word(one.get("stage")) or "?", _word(one.get("code")) or "?", place)
        for one in (found if isinstance(found, list) else ())[:_MOST_NAMES]
        if isinstance(one, dict)
    ]


def _names(value: object) -> list[str]:
    return [name[:_NAME] for name in (value if isinstance(value, list) else ())[:_MOST_NAMES] if isinstance(name, str)]


def _word(value: object) -> str | None:
    return value[:64] if isinstance(value, str) else None


def _round(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= _MOST_ROUND else None


def _numbers(value: object, names: tuple[str, ...]) -> dict[str, float]:
    told = value if isinstance(value, dict) else {}
    return {name: found for name in names if (found := _number(told.get(name))) is not None}


def _number(value: object) -> float | None:
    try:
        found = number(value)
    except OverflowError:  # an integer beyond every float
        return None
    return found if found is not None and abs(found) <= _LARGEST else None
