"""A transparency log in a folder of its own, with the keys of its server and of three silos."""

from __future__ import annotations

from pathlib import Path

from quire.privacy.identity.keys import PrivateIdentity
from quire.privacy.identity.roster import Admin, Member, Roster
from quire.transparency.checkpoints import Mark, Note, countersign
from quire.transparency.entries import Entry
from quire.transparency.log import Log
from quire.transparency.verify import Place

ORIGIN = "heart/run-7"
SILOS = ("silo-1", "silo-2", "silo-3")


def identity(name: str, post_quantum: bool = False) -> PrivateIdentity:
    return PrivateIdentity.from_seed(name.encode().ljust(32, b"."), post_quantum)


SERVER = identity("server")


def roster(names: tuple[str, ...] = SILOS, post_quantum: bool = False, valid_to: int = 10_000) -> Roster:
    members = tuple(
        Member(index, name, identity(name, post_quantum).public, 0, valid_to) for index, name in enumerate(names)
    )
    return Roster("heart", 1, members, (Admin("anna", identity("anna").public),), 1, len(names))


def entry(number: int, kind: str = "model") -> Entry:
    return Entry(kind, "run-7", number, 1000 + number, {"model": f"{number:064x}"})


def opened(folder: Path, key: PrivateIdentity = SERVER) -> Log:
    return Log.open(folder, ORIGIN, key, 1000)


def signed_by(note: Note, *names: str, time: int = 2000) -> list[Mark]:
    return [countersign(note.checkpoint, name, identity(name), time) for name in names]


def written(folder: Path, rounds: int = 5, silos: tuple[str, ...] = SILOS, fork_at: int | None = None) -> Place:
    """Write a log of so many rounds: cohort, model and, where there are silos, their countersignatures."""
    with opened(folder) as log:
        for number in range(1, rounds + 1):
            model = entry(number if number != fork_at else 999)
            cohort = Entry("cohort", "run-7", number, 1000 + number, {"attempt": 1, "silos": [*SILOS]})
            log.append(cohort, model)
            note = log.checkpoint(1000 + number)
            if silos:
                log.add_countersignatures(signed_by(note, *silos), roster())
    return Place.of(folder)
