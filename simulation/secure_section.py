"""The report's section on secure aggregation: the protocol's life, exchange by exchange, with who was lost where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from markupsafe import Markup

from quire.simulation import report_words as words
from quire.simulation.drawing import ALONE, BAD, FED, INK, POOLED, SERIES, draw, whole_numbers
from quire.simulation.exchanges import EXCHANGES, IN_CLEAR, REASONS
from quire.simulation.report_data import RunData, number
from quire.simulation.secure_alarm import alarm_words
from quire.strategies.secure_words import NOT_SECURE

_KEYS = ("open", "pairs", "ready")
_MOST_ROWS = 300
_MOST_BLAME = 60


@dataclass(frozen=True)
class _Attempt:
    """One attempt of a round, as journalled."""

    event: Mapping[str, Any]
    log: Mapping[str, Any]

    @property
    def round(self) -> int:
        return int(self.event["round"])

    @property
    def error(self) -> str | None:
        return None if self.log.get("error") is None else str(self.log["error"])

    @property
    def stages(self) -> Mapping[str, Mapping[str, Any]]:
        return self.log.get("stages") or {}

    @property
    def rejected(self) -> bool:
        """Whether the round's sum was opened, and is none of honest silos."""
        return self.error is None and (self.event.get("secure") or {}).get("rejected") is True

    @property
    def rekeyed(self) -> bool:
        return "open" in self.stages

    def figure(self, stage: str, key: str) -> float:
        """Return a figure of an exchange, 0 where there was none."""
        return number(self.stages.get(stage, {}).get(key)) or 0.0

    def seconds(self, *stages: str) -> float:
        return sum(self.figure(stage, "seconds") for stage in stages)


def section(data: RunData) -> dict[str, Any] | None:
    """Return what the template shows; None for a run without secure aggregation."""
    if not data.secure:
        return None
    attempts = list(_attempts(data))
    if not attempts:
        return {"begun": False, "exact": NOT_SECURE if data.exact else ""}
    blame = list(_blame(attempts))
    silos = _silos(data, attempts)
    return {
        "begun": True,
        "exact": NOT_SECURE if data.exact else "",
        "opened": bool(_good(attempts)),
        "verdict": _verdict(data, attempts),
        "clamped": _clamped(data),
        "alarm": alarm_words(data),
        "simulated": data.simulated,
        "numbers": _numbers(data, attempts),
        "stages": _stages(attempts, blame, data.exact),
        "figures": _figures(data, attempts),
        "exchanges": [("k0", "keys"), *((f"k{at + 1}", name) for at, name in enumerate(list(EXCHANGES)[3:]))],
        "rounds": [_course(data, attempt) for attempt in attempts[:_MOST_ROWS]],
        "rounds_left_out": max(0, len(attempts) - _MOST_ROWS),
        "failed": _failed(attempts),
        "blame": blame[:_MOST_BLAME],
        "blame_left_out": max(0, len(blame) - _MOST_BLAME),
        "silos": silos[:_MOST_ROWS],
        "silos_left_out": max(0, len(silos) - _MOST_ROWS),
    }


def _events(data: RunData) -> tuple[Mapping[str, Any], ...]:
    """Return the rounds, and the one that ended the run after them."""
    return (*data.rounds, *data.failed)


def _attempts(data: RunData) -> Iterator[_Attempt]:
    for event in _events(data):
        for log in (event.get("secure") or {}).get("attempts", ()):
            yield _Attempt(event, log)


def _last(data: RunData, key: str) -> int | None:
    """Return a number that the journal repeats in every round."""
    known = [number((event.get("secure") or {}).get(key)) for event in _events(data)]
    return next((int(value) for value in reversed(known) if value is not None), None)


def _good(attempts: list[_Attempt]) -> list[_Attempt]:
    return [attempt for attempt in attempts if attempt.error is None]


def _least(attempts: list[_Attempt]) -> int:
    return max(int(number(attempt.log.get("threshold")) or 0) for attempt in attempts)


def _clamped(data: RunData) -> str:
    """Say how much of the updates was cut to the bound, if anything was."""
    found = {event["round"]: number((event.get("secure") or {}).get("clamped")) or 0.0 for event in data.rounds}
    cut = {place: share for place, share in found.items() if share > 0.0}
    text = f"Coordinates of updates lay beyond aggregation.bound in round {words.spans(cut)} and were cut, up to"
    return f"{text} {100 * max(cut.values()):.2g} % of a round: raise the bound." if cut else ""


def _verdict(data: RunData, attempts: list[_Attempt]) -> str:
    sums = [len(attempt.log.get("u3", ())) for attempt in _good(attempts)]
    if not sums:
        return "No sum was opened."
    over = f"{sums[0]}" if min(sums) == max(sums) else f"{min(sums)} to {max(sums)}"
    silos = words.plural(data.label)
    lost = len(data.rounds) + len(data.failed) - len(sums)
    but = f", but for {words.count(lost, 'round')}" if lost > 0 else ""
    if data.exact:
        return f"One sum a round was made in clear{but}, over {over} of {len(data.silos)} {silos}: nothing was masked."
    return (
        f"One sum a round was opened{but}, over {over} of {len(data.silos)} {silos}: "
        f"the server saw {words.count(len(sums), 'sum')} of updates, and no update on its own."
    )


def _numbers(data: RunData, attempts: list[_Attempt]) -> list[tuple[str, str]]:
    members, least = _last(data, "members") or len(data.silos), _least(attempts)
    made = [attempt.round for attempt in attempts if attempt.rekeyed]
    length, bits = _last(data, "length"), _last(data, "bits")
    failed = len(attempts) - len(_good(attempts))
    found = [
        ("On the roster", str(members)),
        ("May side with the server", _text(_last(data, "colluders"))),
        ("Fewest in a sum", _text(least or None)),
        ("May drop out of a round", str(max(0, members - least)) if least else words.DASH),
        ("Bits a coordinate", _text(bits)),
        ("Numbers in the sum" if data.exact else "Numbers under the mask", _text(length)),
        (
            ("Sessions begun in round" if data.exact else "Keys agreed in round") + ("s" if len(made) > 1 else ""),
            words.spans(made) if made else words.DASH,
        ),
        ("Attempts that failed", str(failed)),
    ]
    return found


def _text(value: int | None) -> str:
    return words.DASH if value is None else str(value)


def _stages(attempts: list[_Attempt], blame: list[dict[str, Any]], exact: bool) -> list[dict[str, Any]]:
    """Return the table of exchanges, summed over the run."""
    rows = []
    for stage, purpose in (IN_CLEAR if exact else EXCHANGES).items():
        held = [attempt for attempt in attempts if stage in attempt.stages]
        if not held:
            continue
        total = {key: sum(attempt.figure(stage, key) for attempt in held) for key in _FIGURES}
        rows.append(
            {
                "name": stage,
                "purpose": purpose,
                "times": len(held),
                "asked": int(total["asked"]),
                "silent": int(total["asked"] - total["answered"]),
                "wrong": len({(note["round"], note["silo"]) for note in blame if note["stage"] == stage}),
                "down": total["bytes_down"],
                "down_each": total["bytes_down"] / total["asked"] if total["asked"] else None,
                "up": total["bytes_up"],
                "up_each": total["bytes_up"] / total["answered"] if total["answered"] else None,
                "seconds": median(attempt.seconds(stage) for attempt in held),
            }
        )
    return rows


_FIGURES = ("asked", "answered", "bytes_down", "bytes_up")


def _course(data: RunData, attempt: _Attempt) -> dict[str, Any]:
    """Return one attempt as a row: how many were left after each exchange, and who was lost."""
    log = attempt.log
    asked = [str(silo) for silo in attempt.event.get("cohort", ())]
    cohort, dealt, masked = ([str(silo) for silo in log.get(key, ())] for key in ("cohort", "u2", "u3"))
    steps = [("without keys", asked, cohort), ("no shares", cohort, dealt), ("no vector", dealt, masked)]
    lost = [
        f"{why}: {_names(gone)}"
        for why, before, after in steps
        if before and after and (gone := [silo for silo in before if silo not in set(after)])
    ]
    return {
        "round": attempt.round,
        "attempt": int(number(log.get("attempt")) or 0),
        "session": "new" if attempt.rekeyed else "kept",
        "asked": len(asked),
        "dealt": len(dealt) or None,
        "masked": len(masked) or None,
        "lost": "; ".join(lost),
        "outcome": attempt.error or ("opened, rejected" if attempt.rejected else "opened"),
        "good": attempt.error is None and not attempt.rejected,
        "down": sum(attempt.figure(stage, "bytes_down") for stage in attempt.stages),
        "up": sum(attempt.figure(stage, "bytes_up") for stage in attempt.stages),
        "seconds": attempt.seconds(*attempt.stages),
    }


def _names(silos: list[str]) -> str:
    shown = ", ".join(words.name(silo) for silo in silos[:4])
    return shown + (f" and {len(silos) - 4} more" if len(silos) > 4 else "")


def _failed(attempts: list[_Attempt]) -> list[dict[str, Any]]:
    """Say of every attempt that came to nothing why, and who was missing in its round."""
    found = []
    for attempt in attempts:
        if attempt.error is None:
            continue
        missing = [
            f"{words.name(str(failure.get('silo')))} ({words.name(str(failure.get('stage')))})"
            for failure in attempt.event.get("failed", ())
            if failure.get("stage") != "evaluate"
        ]
        more = f"; and {len(missing) - 6} more" if len(missing) > 6 else ""
        found.append(
            {
                "round": attempt.round,
                "attempt": int(number(attempt.log.get("attempt")) or 0),
                "words": REASONS.get(attempt.error, attempt.error),
                "missing": "; ".join(missing[:6]) + more,
            }
        )
    return found[:_MOST_BLAME]


def _blame(attempts: list[_Attempt]) -> Iterator[dict[str, Any]]:
    for attempt in attempts:
        for note in attempt.log.get("blame", ()):
            yield {
                "round": attempt.round,
                "silo": str(note.get("silo")),
                "stage": words.name(str(note.get("stage"))),
                "what": "refused to go on" if note.get("refused") is True else "sent what does not hold",
                "error": str(note.get("error")),
                "peer": None if note.get("peer") is None else str(note["peer"]),
                "proven": note.get("proven") is True,
            }


def _silos(data: RunData, attempts: list[_Attempt]) -> list[dict[str, Any]]:
    """Return one row for each silo: in how many sums it was, what it missed, and what it sent and received."""
    sums = dict.fromkeys(data.silos, 0)
    asked, down, up = dict(sums), dict(sums), dict(sums)
    missed: dict[str, dict[str, int]] = {silo: {} for silo in data.silos}
    for event in _events(data):
        for silo in event.get("cohort", ()):
            asked[silo] = asked.get(silo, 0) + 1
        for silo in event.get("replied", ()):
            sums[silo] = sums.get(silo, 0) + 1
        for failure in event.get("failed", ()):
            stage = str(failure.get("stage"))
            if stage != "evaluate":
                where = missed.setdefault(str(failure.get("silo")), {})
                where[words.name(stage)] = where.get(words.name(stage), 0) + 1
    for attempt in attempts:
        for silo, sizes in (attempt.log.get("bytes") or {}).items():
            down[silo] = down.get(silo, 0) + int(number(sizes[0]) or 0)
            up[silo] = up.get(silo, 0) + int(number(sizes[1]) or 0)
    return [
        {
            "silo": silo,
            "asked": asked[silo],
            "sums": sums[silo],
            "missed": ", ".join(f"{name} {times}\N{MULTIPLICATION SIGN}" for name, times in missed[silo].items()),
            "down": down[silo],
            "up": up[silo],
        }
        for silo in data.silos
    ]


def _figures(data: RunData, attempts: list[_Attempt]) -> list[tuple[str, Markup]]:
    """Draw how many were in each sum, and what the seconds of a round went into."""
    good = _good(attempts)
    rounds = np.array([attempt.round for attempt in good])
    asked = np.array([len(attempt.event.get("cohort", ())) for attempt in good])
    dealt, masked = (np.array([len(attempt.log.get(key, ())) for attempt in good]) for key in ("u2", "u3"))
    width, least = 0.8 if len(rounds) <= 60 else 1.0, _least(attempts)
    retried = sorted({attempt.round for attempt in attempts if attempt.error is not None})

    def bars(axes: Any, stacked: list[tuple[Any, str]]) -> None:
        base = np.zeros(len(rounds))
        for values, color in stacked:
            axes.bar(rounds, values, bottom=base, width=width, color=color, alpha=0.75, linewidth=0)
            base = base + values
        axes.set_xlim(0.5, max(data.planned, int(rounds[-1])) + 0.5)
        axes.set_xlabel("round")
        axes.grid(axis="x", visible=False)
        whole_numbers(axes.xaxis)

    def survivors(axes: Any) -> None:
        bars(axes, [(masked, FED), (dealt - masked, POOLED), (asked - dealt, ALONE)])
        axes.axhline(least, color=INK, linewidth=1.4, linestyle=(0, (4, 2.5)))
        top = float(asked.max())
        if retried:
            axes.plot(retried, [top * 1.06] * len(retried), "x", color=BAD, markersize=7, markeredgewidth=2)
        axes.set_ylim(0, top * 1.12)
        whole_numbers(axes.yaxis)

    if not good:
        return []
    label = (
        f"In the sum by round: {masked.min()} to {masked.max()} {words.plural(data.label)}, of {asked.min()} to "
        f"{asked.max()} asked; fewer than {least} would not have been opened; {len(retried)} rounds took another try"
    )
    # A round's time is that of all its attempts: those that failed were waited for as well.
    parts = [_KEYS, *((name,) for name in list(EXCHANGES)[3:])]
    spent = [np.zeros(len(rounds)) for _ in parts]
    places = {number: at for at, number in enumerate(rounds)}
    for attempt in attempts:
        if attempt.round in places:
            for part, stages in zip(spent, parts, strict=True):
                part[places[attempt.round]] += attempt.seconds(*stages)
    seconds = "Seconds by exchange: " + ", ".join(
        f"{name} {part.sum():.3g}" for name, part in zip(("keys", *list(EXCHANGES)[3:]), spent, strict=True)
    )
    return [
        ("In the sum", draw("s0", 460, 230, label, survivors)),
        ("Seconds", draw("s1", 460, 230, seconds, lambda axes: bars(axes, list(zip(spent, SERIES, strict=False))))),
    ]
