"""Real silos in this process that a server with a transparency log asks: what they see, sign and refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict
from secure_place import RECORD, SILOS, Place
from secure_runs import PRIVATE
from secure_silos import overrides_of

from quire.clients import contract
from quire.clients.identity import read_roster
from quire.transparency.checkpoints import Checkpoint, countersigners
from quire.transparency.memory import Memory
from quire.transparency.verify import Place as LogPlace
from quire.transparency.verify import verify_log

NAMES = [f"hospital-{place + 1}" for place in range(SILOS)]
FIRST = NAMES[0]
Tamper = Callable[[ConfigRecord], None]


def place_of(folder: Path, rounds: int, more: str = "", log: str = "") -> Place:
    return Place(folder, overrides_of(SILOS, rounds, f"{PRIVATE} {more}"), RECORD + log)


def served(place: Place) -> list[Any]:
    return [report for report, _ in place.serve()]


def log_of(place: Place) -> Any:
    found = verify_log(LogPlace.of(place.folder / "run"))
    assert found.wrong == []
    return found


def signers(place: Place) -> list[set[str]]:
    """Return who countersigned each checkpoint of the run's log, in order."""
    roster = read_roster(place.folder / "silos" / "roster.json").roster
    return [set(countersigners(note, roster)) for note in log_of(place).notes]


def seen(place: Place, silo: str) -> Checkpoint | None:
    last = Memory(place.files[silo].parent / "store" / "logs").last(log_of(place).origin)
    return None if last is None else last[0].checkpoint


def refused(report: Any) -> set[tuple[str, str]]:
    return {(failure.silo, failure.code) for failure in report.failed}


def showing(place: Place, tamper: Callable[[RecordDict, str], None], silo: str = FIRST, number: str = "1") -> None:
    """Let a silo be shown something else with the first messages of a round."""

    def swap(message: Message, name: str) -> None:
        about = message.metadata
        if (about.message_type, about.group_id, name) == (contract.SHARES, number, silo):
            message.content = tampered = RecordDict({**message.content})
            tamper(tampered, silo)

    place.grid.swap = swap


def told(content: RecordDict) -> ConfigRecord:
    record = content[contract.LOG]
    assert isinstance(record, ConfigRecord)
    content[contract.LOG] = copy = ConfigRecord(dict(record))
    return copy


def journalled(place: Place, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (place.folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]
