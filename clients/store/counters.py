"""Where every session stands: positions that only go forward, whatever a server asks and however often a silo crashes.

A position is written and fsynced before the silo answers. A server that sends the same stage again, or an older one,
is refused: a second answer under the same one-time masks or with other noise could be subtracted from the first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from quire.clients.store.errors import Replay, StoreDamaged
from quire.clients.store.files import explained, replace
from quire.clients.store.lines import START, BadLine, Digested, Writer, line_hash, read_lines

_SESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_SEAL = Digested("quire/store/counter/1")
_LIMIT = 2**53
REMEDY = "put back the newest copy of the store, or override with `quire ledger reset`"
COMPACT = 1024  # lines, beyond which a file that has become much longer than needed is written anew


@dataclass(frozen=True, order=True)
class Position:
    """A point in a session. Positions of one session are ordered by round, then attempt, then stage.

    Attributes
    ----------
    session : str
        The run or session: at most 128 letters, digits and ``._:-``, beginning with a letter or digit. One with a
        dot, as ``run-7.secure``, is part of another, and its rounds are not counted for the day once more.
    round, attempt, stage : int
        From 0. An attempt begins anew at its first stage; so does a round.
    """

    session: str
    round: int
    attempt: int = 0
    stage: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.session, str) or not _SESSION.fullmatch(self.session):
            raise Replay("A session's id has at most 128 letters, digits and ._:- and begins with a letter or digit.")
        for name, value in (("round", self.round), ("attempt", self.attempt), ("stage", self.stage)):
            if type(value) is not int or not 0 <= value < _LIMIT:
                raise Replay(f"A position's {name} is a whole number from 0, not {str(value)[:40]!r}.")

    @property
    def order(self) -> tuple[int, int, int]:
        """What is compared within a session."""
        return self.round, self.attempt, self.stage

    def __str__(self) -> str:
        return f"round {self.round}, attempt {self.attempt}, stage {self.stage} of session {self.session[:32]}"


@dataclass
class _State:
    last: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    rounds: dict[str, int] = field(default_factory=dict)
    days: dict[str, int] = field(default_factory=dict)

    def add(self, position: Position, day: str) -> None:
        before = self.last.get(position.session)
        if before is None or before[:2] != position.order[:2]:
            self.rounds[position.session] = self.rounds.get(position.session, 0) + 1
            if "." not in position.session:
                self.days[day] = self.days.get(day, 0) + 1
        self.last[position.session] = position.order

    def as_dict(self) -> dict[str, Any]:
        return {"sessions": {key: [*self.last[key], self.rounds[key]] for key in self.last}, "days": self.days}

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> _State:
        state = cls(days=dict(value["days"]))
        for session, (first, second, third, rounds) in value["sessions"].items():
            state.last[session], state.rounds[session] = (first, second, third), rounds
        return state


class Counters:
    """The positions of all sessions of a silo. Made by the store, which holds the lock.

    Attributes
    ----------
    count : int
        How often a position was passed, ever; it never goes back.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.on_advance: Callable[[], None] | None = None
        self._state = _State()
        self._lines = 0
        self._size, self._head = self._read()
        self._open_writer: Writer | None = None

    @staticmethod
    def create(path: Path, count: int = 0, positions: Mapping[str, tuple[int, int, int]] | None = None) -> None:
        """Write the file of a new store, or of one whose counters were lost, from the positions still known."""
        last = dict(positions or {})
        state = _State(last, dict.fromkeys(last, 1))
        replace(path, _SEAL.close({"seq": count, "prev": START, "kind": "snapshot", **state.as_dict()}) + b"\n")

    def _read(self) -> tuple[int, str]:
        head, size = START, 0
        with explained(self.path, "read"):
            try:
                stream = self.path.open("rb")
            except FileNotFoundError:
                raise StoreDamaged(f"{self.path} is missing, which tells replays; {REMEDY}.") from None
            with stream:
                for line, whole in read_lines(stream):
                    if not whole and self._lines:
                        break
                    self._lines += 1
                    if not whole:  # the first line came by an atomic replacement: a crash cannot tear it
                        raise StoreDamaged(f"{self.path} is cut off in its first line; {REMEDY}.")
                    try:
                        self._take(_SEAL.open(line), head)
                    except BadLine as error:
                        raise StoreDamaged(f"Line {self._lines} of {self.path} {error}; {REMEDY}.") from None
                    except (AttributeError, KeyError, TypeError, ValueError, Replay):
                        raise StoreDamaged(f"Line {self._lines} of {self.path} is malformed; {REMEDY}.") from None
                    head, size = line_hash(line), size + len(line) + 1
        if not self._lines:
            raise StoreDamaged(f"{self.path} is empty; {REMEDY}.")
        return size, head

    @property
    def _writer(self) -> Writer:
        """The file, opened for writing when that is first needed: reading changes nothing."""
        if self._open_writer is None:
            self._open_writer = Writer(self.path, self._size, self._head)
        return self._open_writer

    def _take(self, entry: dict[str, Any], head: str) -> None:
        if entry["prev"] != head:
            raise BadLine("does not follow from the one before it")
        if entry["kind"] == "snapshot":
            self.count, self._state = entry["seq"], _State.of(entry)
            return
        if entry["seq"] != self.count + 1:
            raise BadLine("is out of sequence")
        self._state.add(
            Position(entry["session"], entry["round"], entry["attempt"], entry["stage"]),
            date.fromisoformat(entry["day"]).isoformat(),
        )
        self.count += 1

    def last(self, session: str) -> Position | None:
        """Return where a session stands, or None if it has not begun."""
        order = self._state.last.get(session)
        return None if order is None else Position(session, *order)

    def rounds(self, session: str) -> int:
        """Return how many rounds of a session this silo has begun; every attempt counts."""
        return self._state.rounds.get(session, 0)

    def rounds_on(self, day: date) -> int:
        """Return how many rounds of all sessions were begun on a day; every attempt counts."""
        return self._state.days.get(day.isoformat(), 0)

    def check(self, position: Position) -> None:
        """Refuse a position that a session has reached or passed.

        Raises
        ------
        Replay
        """
        last = self.last(position.session)
        if last is not None and position.order <= last.order:
            raise Replay(f"{str(position).capitalize()} was asked for, but the silo has already answered {last}.")

    def advance(self, position: Position, today: date) -> None:
        """Go forward to a position, durably: once this returns, the silo may answer, and never again there.

        Parameters
        ----------
        position : Position
        today : datetime.date
            The day that a new round is counted for.

        Raises
        ------
        Replay
            If the session has reached or passed it.
        StoreError
            If it cannot be written.
        """
        self.check(position)
        body = {
            **{"seq": self.count + 1, "prev": self._writer.head, "kind": "advance", "session": position.session},
            **{"round": position.round, "attempt": position.attempt, "stage": position.stage},
            "day": today.isoformat(),
        }
        self._writer.append(_SEAL.close(body))
        self._state.add(position, today.isoformat())
        self.count += 1
        self._lines += 1
        if self.on_advance is not None:
            self.on_advance()
        if self._lines > max(COMPACT, 4 * len(self._state.last)):
            self._compact()

    def _compact(self) -> None:
        body = {"seq": self.count, "prev": START, "kind": "snapshot", **self._state.as_dict()}
        line = _SEAL.close(body)
        replace(self.path, line + b"\n")
        self.close()
        self._size, self._head, self._lines = len(line) + 1, line_hash(line), 1

    def positions(self) -> dict[str, tuple[int, int, int]]:
        """Return where every session stands: round, attempt, stage."""
        return dict(self._state.last)

    def close(self) -> None:
        """Close the file."""
        if self._open_writer is not None:
            self._open_writer.close()
            self._open_writer = None
