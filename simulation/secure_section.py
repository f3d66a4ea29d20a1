"""The report's section on secure aggregation: the protocol's life, exchange by exchange, with who was lost where."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

from quire.conf.asked import byzantine_in, groups_in
from quire.simulation import group_section
from quire.simulation import report_words as words
from quire.simulation.exchanges import EXCHANGES, IN_CLEAR, REASONS
from quire.simulation.report_data import RunData, number
from quire.simulation.secure_alarm import alarm_words
from quire.simulation.secure_attempts import Attempt, attempts_in, events_of, good, least
from quire.simulation.secure_figures import figures
from quire.strategies.secure_words import NOT_SECURE

_MOST_ROWS = 300
_MOST_BLAME = 60


def section(data: RunData) -> dict[str, Any] | None:
    """Return what the template shows; None for a run without secure aggregation."""
    if not data.secure:
        return None
    attempts = list(attempts_in(data))
    if not attempts:
        return {"begun": False, "exact": NOT_SECURE if data.exact else ""}
    blame = list(_blame(attempts))
    silos, grouped = _silos(data, attempts), groups_in(data.settings) > 0
    return {
        "begun": True,
        "exact": NOT_SECURE if data.exact else "",
        "opened": bool(good(attempts)),
        "verdict": group_section.verdict(data, attempts) if grouped else _verdict(data, attempts),
        "groups": group_section.groups_of(data, attempts) if grouped else [],
        "without": group_section.reasons(data) if grouped else [],
        "clamped": _clamped(data),
        "alarm": alarm_words(data),
        "simulated": data.simulated,
        "numbers": _numbers(data, attempts),
        "stages": _stages(attempts, blame, data.exact),
        "figures": figures(data, attempts),
        "exchanges": [("k0", "keys"), *((f"k{at + 1}", name) for at, name in enumerate(list(EXCHANGES)[3:]))],
        "rounds": [_course(data, attempt) for attempt in attempts[:_MOST_ROWS]],
        "rounds_left_out": max(0, len(attempts) - _MOST_ROWS),
        "failed": _failed(attempts),
        "blame": blame[:_MOST_BLAME],
        "blame_left_out": max(0, len(blame) - _MOST_BLAME),
        "silos": silos[:_MOST_ROWS],
        "silos_left_out": max(0, len(silos) - _MOST_ROWS),
    }


def _last(data: RunData, key: str) -> int | None:
    """Return a number that the journal repeats in every round."""
    known = [number((event.get("secure") or {}).get(key)) for event in events_of(data)]
    return next((int(value) for value in reversed(known) if value is not None), None)


def _clamped(data: RunData) -> str:
    """Say how much of the updates was cut to the bound, if anything was."""
    found = {event["round"]: number((event.get("secure") or {}).get("clamped")) or 0.0 for event in data.rounds}
    cut = {place: share for place, share in found.items() if share > 0.0}
    text = f"Coordinates of updates lay beyond aggregation.bound in round {words.spans(cut)} and were cut, up to"
    return f"{text} {100 * max(cut.values()):.2g} % of a round: raise the bound." if cut else ""


def _verdict(data: RunData, attempts: list[Attempt]) -> str:
    sums = [len(attempt.log.get("u3", ())) for attempt in good(attempts)]
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


def _numbers(data: RunData, attempts: list[Attempt]) -> list[tuple[str, str]]:
    members, fewest = _last(data, "members") or len(data.silos), least(attempts)
    groups = groups_in(data.settings)
    made = [attempt.round for attempt in attempts if attempt.rekeyed]
    length, bits = _last(data, "length"), _last(data, "bits")
    failed = len(attempts) - len(good(attempts))
    found = [
        ("On the roster", str(members)),
        *([("Groups", str(groups)), ("May send anything", str(byzantine_in(data.settings)))] if groups else []),
        ("May side with the server" + (", in a group" if groups else ""), _text(_last(data, "colluders"))),
        ("Fewest in a sum", _text(fewest or None)),
        (
            "May drop out of a " + ("group" if groups else "round"),
            str(max(0, members // (groups or 1) - fewest)) if fewest else words.DASH,
        ),
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


def _stages(attempts: list[Attempt], blame: list[dict[str, Any]], exact: bool) -> list[dict[str, Any]]:
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


def _course(data: RunData, attempt: Attempt) -> dict[str, Any]:
    """Return one attempt as a row: how many were left after each exchange, and who was lost."""
    log = attempt.log
    asked = [] if attempt.group else [str(silo) for silo in attempt.event.get("cohort", ())]
    cohort, dealt, masked = ([str(silo) for silo in log.get(key, ())] for key in ("cohort", "u2", "u3"))
    steps = [("without keys", asked, cohort), ("no shares", cohort, dealt), ("no vector", dealt, masked)]
    lost = [
        f"{why}: {_names(gone)}"
        for why, before, after in steps
        if before and after and (gone := [silo for silo in before if silo not in set(after)])
    ]
    return {
        "round": attempt.round,
        "attempt": _attempt(attempt),
        "session": "new" if attempt.rekeyed else "kept",
        "asked": len(asked) or len(cohort),
        "dealt": len(dealt) or None,
        "masked": len(masked) or None,
        "lost": "; ".join(lost),
        "outcome": attempt.error or ("opened, rejected" if attempt.rejected else "opened"),
        "good": attempt.error is None and not attempt.rejected,
        "down": sum(attempt.figure(stage, "bytes_down") for stage in attempt.stages),
        "up": sum(attempt.figure(stage, "bytes_up") for stage in attempt.stages),
        "seconds": attempt.seconds(*attempt.stages),
    }


def _attempt(attempt: Attempt) -> int | str:
    which = int(number(attempt.log.get("attempt")) or 0)
    return f"{which} of group {attempt.group}" if attempt.group else which


def _names(silos: list[str]) -> str:
    shown = ", ".join(words.name(silo) for silo in silos[:4])
    return shown + (f" and {len(silos) - 4} more" if len(silos) > 4 else "")


def _failed(attempts: list[Attempt]) -> list[dict[str, Any]]:
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
                "attempt": _attempt(attempt),
                "words": REASONS.get(attempt.error, attempt.error),
                "missing": "; ".join(missing[:6]) + more,
            }
        )
    return found[:_MOST_BLAME]


def _blame(attempts: list[Attempt]) -> Iterator[dict[str, Any]]:
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


def _silos(data: RunData, attempts: list[Attempt]) -> list[dict[str, Any]]:
    """Return one row for each silo: in how many sums it was, what it missed, and what it sent and received."""
    sums = dict.fromkeys(data.silos, 0)
    asked, down, up = dict(sums), dict(sums), dict(sums)
    missed: dict[str, dict[str, int]] = {silo: {} for silo in data.silos}
    for event in events_of(data):
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
