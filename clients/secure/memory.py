"""What a silo keeps between two stages of secure aggregation, written down before its reply leaves.

A real silo keeps it in its store: how far it has come in the counters, which only go forward, and everything else
encrypted. A state that does not go with the counters was lost or put back: that session is over for this silo, and it
takes part again once keys are agreed anew. A simulated silo keeps it in Flower's context.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import date
from typing import Protocol, Self

from flwr.app import ConfigRecord, RecordDict

from quire.clients.secure.agreement import run_name
from quire.clients.secure.chain import LOST, Known
from quire.clients.store import Position, Store, StoreDamaged
from quire.privacy.identity.keys import PublicIdentity
from quire.privacy.secagg.errors import ModelChainMismatch, SecAggError
from quire.privacy.secagg.messages import HASH, SESSION_ID
from quire.privacy.secagg.state import ClientState, Counter, Stage
from quire.transparency.checkpoints import Note
from quire.transparency.memory import Memory as Logs
from quire.transparency.memory import Proofs, Seen, check_goes_on, decode_seen, encode_seen

LOG = logging.getLogger("quire.clients")

#: Secrets of a run that was not answered for so many days are wiped when another one opens a session.
KEPT_DAYS = 7

_HEAD = 4 + 32 + 4 + 4 + 4 + HASH
_PIECE = 32 * 2**20  # bytes of a vector under one name in the store


@dataclass(frozen=True)
class Vector:
    """What a silo has ready for one round, once trained: every attempt of the round masks the same numbers.

    Under distributed noise it is for one attempt of one session alone: another one draws its batch and its noise anew,
    and is charged. Its words then have no noise in them; that comes on top when they are masked, and with that they are
    wiped, for what is charged is one draw of noise on them.

    One draw of noise must not be released in two different sums: their difference would be that of a few silos. It is
    not, because at most one attempt of a round is ever opened, in whatever session and cohort (the argument is in
    :mod:`quire.privacy.secagg.params`); the sums of all others stay masked for good. What goes with that here:

    - The vector is wiped before this silo gives up shares, and the round is then over for it.
    - It is for one round and one model. Another model for the same round is trained anew, with a new draw, which the
      books charge for or refuse.

    Attributes
    ----------
    round : int
    model : bytes
        32 bytes: the hash of the model that it was trained from.
    receipt : bytes
        Under privacy, the receipt for it.
    words : bytes
        The encoded numbers, little-endian words of 32 bits.
    parameters, attempt : int
        Under distributed noise: those of the model, by which the share of the noise is known, and the attempt that
        this is for; else 0.
    session : bytes
        Under distributed noise: 32 bytes, the session that this is for; else zeros.
    """

    round: int
    model: bytes
    receipt: bytes
    words: bytes
    parameters: int = 0
    attempt: int = 0
    session: bytes = bytes(HASH)

    def encode(self) -> bytes:
        """Return it as bytes."""
        numbers = (self.parameters, self.attempt, len(self.receipt))
        head = self.round.to_bytes(4, "big") + self.model + b"".join(number.to_bytes(4, "big") for number in numbers)
        return head + self.session + self.receipt + self.words

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what :meth:`encode` returned."""
        parameters, attempt, size = (int.from_bytes(data[at : at + 4], "big") for at in (36, 40, 44))
        end, number = _HEAD + size, int.from_bytes(data[:4], "big")
        return cls(number, data[4:36], data[_HEAD:end], data[end:], parameters, attempt, data[48:_HEAD])


class Memory(Protocol):
    """Where a silo keeps its state in one run."""

    def load(self) -> ClientState:
        """Return what was saved last; a state without a session if that is lost."""

    def save(self, state: ClientState) -> None:
        """Keep a state; once this returns, the reply may leave."""

    def vector(self) -> Vector | None:
        """Return the vector that is ready, if one is."""

    def keep(self, vector: Vector) -> None:
        """Keep a vector in the place of the last one."""

    def forget(self) -> None:
        """Erase the vector."""

    def tidy(self, first_round: int) -> None:
        """Erase what is of no use any more once a session begins with a round."""

    def known(self) -> Known | None:
        """Return what this silo knows of the run's models; None if it has taken part in no round.

        Raises
        ------
        ModelChainMismatch
            If that is lost or damaged.
        """

    def know(self, known: Known) -> None:
        """Keep what this silo knows of the run's models; once this returns, the reply may leave."""

    def seen(self, origin: str) -> int | None:
        """Return at how many entries this silo has seen a transparency log last; None if it never has.

        Raises
        ------
        LogDamaged
            If what it kept is not what was written.
        """

    def see(self, note: Note, key: PublicIdentity, proof: Proofs) -> None:
        """Take a checkpoint and keep it; see :meth:`quire.transparency.memory.Memory.accept`."""


class InContext:
    """A simulated silo's memory: in Flower's context, which lasts as long as the run."""

    def __init__(self, records: RecordDict) -> None:
        self._records = records

    def load(self) -> ClientState:
        """Return what was saved last."""
        data = self._get("secure-state")
        return ClientState.decode(data) if data else ClientState(Counter().encode())

    def save(self, state: ClientState) -> None:
        """Keep a state."""
        self._put("secure-state", state.encode())

    def vector(self) -> Vector | None:
        """Return the vector that is ready, if one is."""
        data = self._get("secure-vector")
        return Vector.decode(data) if data else None

    def keep(self, vector: Vector) -> None:
        """Keep a vector."""
        self._put("secure-vector", vector.encode())

    def forget(self) -> None:
        """Erase the vector."""
        self._records.pop("secure-vector", None)

    def tidy(self, first_round: int) -> None:
        """Erase the vector of an earlier round."""
        ready = self.vector()
        if ready is not None and ready.round < first_round:
            self.forget()

    def known(self) -> Known | None:
        """Return what this silo knows of the run's models."""
        return Known.decode(self._get("secure-chain")) if "secure-chain" in self._records else None

    def know(self, known: Known) -> None:
        """Keep it."""
        self._put("secure-chain", known.encode())

    def seen(self, origin: str) -> int | None:
        """Return how far it has seen a log."""
        last = self._last(origin)
        return None if last is None else last[0].checkpoint.size

    def see(self, note: Note, key: PublicIdentity, proof: Proofs) -> None:
        """Take a checkpoint: a run has one log, and the context lasts as long as the run."""
        check_goes_on(self._last(note.checkpoint.origin), note, key, proof)
        self._put("secure-log", encode_seen(note, key))

    def _last(self, origin: str) -> Seen | None:
        data = self._get("secure-log")
        return decode_seen(data, origin, "Flower's context") if data else None

    def _get(self, name: str) -> bytes:
        record = self._records.get(name)  # Flower's view of all records of a kind is a copy of them
        data = record["data"] if isinstance(record, ConfigRecord) else b""
        return data if isinstance(data, bytes) else b""

    def _put(self, name: str, data: bytes) -> None:
        self._records[name] = ConfigRecord({"data": data})


class InStore:
    """A real silo's memory: in its store, which is open and locked.

    Parameters
    ----------
    store : Store
    run : int
        Flower's number of the run.
    today : datetime.date
    """

    def __init__(self, store: Store, run: int, today: date) -> None:
        self._store, self._run, self._today = store, run, today
        self._session, self._place = f"run-{run}.secure", f"secure/run-{run}"

    def load(self) -> ClientState:
        """Return what was saved last; if that is lost, a state that answers nothing until a session is opened."""
        last = self._store.counters.last(self._session)
        if last is None:
            return ClientState(Counter().encode())
        try:
            data = self._store.secrets.get(f"{self._place}/state")
            state = None if data is None else ClientState.decode(data)
        except (StoreDamaged, SecAggError) as error:
            LOG.warning("What was kept for secure aggregation cannot be read, and is left aside: %s", error)
            state = None
        if state is not None and (at := state.at) and (at.serial, at.position, at.stage) == last.order:
            return state
        opened = self._opened()
        roster, terms = (self._store.state.get(f"{self._place}/{what}") or bytes(HASH) for what in ("roster", "terms"))
        name = run_name(self._run)
        lost = Counter(bytes(SESSION_ID), last.round, last.attempt, Stage.IDLE, name, opened, roster, terms)
        return ClientState(lost.encode())

    def save(self, state: ClientState) -> None:
        """Go forward in the counters, then keep the state; both are on the disk when this returns."""
        at = state.at
        if at.opened > self._opened():  # outlives the state as well, and comes first: before any share may leave
            self._store.advance(Position(f"{self._session}-opened", at.opened), self._today)
        if at.stage == Stage.ADVERTISED:  # outlive the state: a run keeps its roster and its configuration
            self._store.state.put(f"{self._place}/roster", at.roster)
            self._store.state.put(f"{self._place}/terms", at.terms)
        self._use()
        self._store.advance(Position(self._session, at.serial, at.position, at.stage), self._today)
        self._store.secrets.put(f"{self._place}/state", state.encode())

    def _opened(self) -> int:
        """Return the last round of the run that the counters have as opened."""
        last = self._store.counters.last(f"{self._session}-opened")
        return 0 if last is None else last.round

    def vector(self) -> Vector | None:
        """Return the vector that is ready, if one is whole."""
        try:
            count = self._store.secrets.get(f"{self._place}/vector")
            pieces = [self._store.secrets.get(self._piece(at)) for at in range(int.from_bytes(count or b"", "big"))]
        except StoreDamaged as error:
            LOG.warning("The vector that was kept cannot be read, and is left aside: %s", error)
            return None
        whole = b"".join(piece for piece in pieces if piece is not None)
        return Vector.decode(whole) if whole and None not in pieces else None

    def keep(self, vector: Vector) -> None:
        """Keep a vector, in pieces; how many comes last, so that a part is never taken for the whole."""
        self.forget()
        data = vector.encode()
        starts = range(0, len(data), _PIECE)
        for at, start in enumerate(starts):
            self._store.secrets.put(self._piece(at), data[start : start + _PIECE])
        self._store.secrets.put(f"{self._place}/vector", len(starts).to_bytes(4, "big"))

    def forget(self) -> None:
        """Wipe the vector."""
        for name in ("vector", "pieces"):
            self._store.secrets.wipe_all(f"{self._place}/{name}")

    def tidy(self, first_round: int) -> None:
        """Wipe the vector of an earlier round, and all secrets of runs that were not heard of for days.

        A vector of this round or a later one stays: the session may be for another attempt. So do the secrets of a
        run that goes on beside this one. What keeps a run from being answered twice is no secret, and stays for good:
        a run that comes back after that agrees on keys anew, for a round that this silo has not opened.
        """
        ready = self.vector()
        if ready is not None and ready.round < first_round:
            self.forget()
        places = {"/".join(name.split("/")[:2]) for name in self._store.secrets.names() if name.startswith("secure/")}
        for place in places - {self._place}:
            used = self._used(place)
            if used is None:  # from here on it counts
                self._store.state.put(f"{place}/used", self._today.isoformat().encode())
            elif (self._today - used).days >= KEPT_DAYS:
                self._store.secrets.wipe_all(place)
                LOG.info("What %s had kept for secure aggregation was wiped, as it was last used on %s.", place, used)

    def known(self) -> Known | None:
        """Return what this silo knows of the run's models.

        The counter tells a record that is lost, or that was put back, from one that never was.
        """
        last = self._store.counters.last(f"{self._session}-chain")
        try:
            data = self._store.state.get(f"{self._place}/chain")
        except StoreDamaged as error:
            raise ModelChainMismatch(LOST) from error
        if data is None and last is None:
            return None
        known = Known.decode(data or b"")
        if last is not None and known.round < last.round:
            raise ModelChainMismatch(LOST)
        return known

    def know(self, known: Known) -> None:
        """Keep it, then go forward in the counter: killed in between, the record is the newer of the two."""
        self._store.state.put(f"{self._place}/chain", known.encode())
        last = self._store.counters.last(f"{self._session}-chain")
        if last is None or last.round < known.round:
            self._store.advance(Position(f"{self._session}-chain", known.round), self._today)

    def seen(self, origin: str) -> int | None:
        """Return how far it has seen a log, whatever the run."""
        last = self._logs().last(origin)
        return None if last is None else last[0].checkpoint.size

    def see(self, note: Note, key: PublicIdentity, proof: Proofs) -> None:
        """Take a checkpoint; it is on the disk when this returns."""
        self._logs().accept(note, key, proof)

    def _logs(self) -> Logs:
        return Logs(self._store.path / "logs")

    def _use(self) -> None:
        """Note the day, before there is a secret whose age would not be known."""
        if self._used(self._place) != self._today:
            self._store.state.put(f"{self._place}/used", self._today.isoformat().encode())

    def _used(self, place: str) -> date | None:
        """Return the day on which a run was last answered; None if nobody knows."""
        try:
            return date.fromisoformat((self._store.state.get(f"{place}/used") or b"").decode())
        except (StoreDamaged, ValueError):
            return None

    def _piece(self, at: int) -> str:
        return f"{self._place}/pieces/{at}"
