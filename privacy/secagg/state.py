"""What a silo remembers between stages, as bytes, and the counter that keeps it from answering twice.

The counter is to be written down, and synced, *before* a reply leaves. It holds no secret. A state goes with exactly
one counter: if the state in the store is older or newer than the counter, one of the two was rolled back, and the
session is over. Secrets are in the state alone; keep it encrypted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Self

from quire.privacy.secagg.errors import Replay, SessionExpired, StageOrder
from quire.privacy.secagg.messages import HASH, SESSION_ID, Config
from quire.privacy.secagg.shamir import SHARE_SIZE
from quire.privacy.secagg.wire import Fixed, Indices, Message, Number, Records, Variable

#: A reply of more bytes than this is not kept: a masked vector, and the sealed halves for more than a hundred members.
KEPT = 2**17


class Stage(IntEnum):
    """The last thing that a silo answered."""

    IDLE = 0
    ADVERTISED = 1
    PAIRED = 2
    READY = 3
    SHARED = 4
    MASKED = 5
    CONFIRMED = 6
    UNMASKED = 7


@dataclass(frozen=True, repr=False)
class Counter(Message):
    """How far a silo has come.

    Attributes
    ----------
    sid : bytes
        The session.
    serial : int
        How many sessions this silo has answered.
    position : int
        The attempt within the session: 0 before the first, then ``(round - first_round) * attempts + attempt``.
    stage : int
        A :class:`Stage`.
    run : bytes
        The run that this counter is of, once a session was opened: it enters no session of another one. A silo keeps
        a counter for each run. A server that gives one run two names gets two runs, and it is for the ledger to say
        whether there may be two.
    opened : int
        The last round of the run for which this silo gave away shares; 0 if none. It outlives every session of the
        run, and never goes back.
    roster : bytes
        Hash of the roster that the run's sessions are under; zeros while it is not known.
    terms : bytes
        Hash of the configuration that the run's sessions have, apart from their first round; zeros while it is not
        known. A run keeps both: that no vector gets into two opened sums is a count with one n and one c.
    """

    sid: bytes = bytes(SESSION_ID)
    serial: int = 0
    position: int = 0
    stage: int = Stage.IDLE
    run: bytes = bytes(SESSION_ID)
    opened: int = 0
    roster: bytes = bytes(HASH)
    terms: bytes = bytes(HASH)
    KIND = 32
    FORM = {  # noqa: RUF012
        "sid": Fixed(SESSION_ID),
        "serial": Number(8),
        "position": Number(4),
        "stage": Number(1),
        "run": Fixed(SESSION_ID),
        "opened": Number(4),
        "roster": Fixed(HASH),
        "terms": Fixed(HASH),
    }


@dataclass(frozen=True, repr=False)
class ClientState(Message):
    """Everything that a silo keeps between two stages. Its representation shows no content.

    Attributes
    ----------
    counter : bytes
        The encoded counter that this state goes with.
    config : bytes
        The session's configuration; empty if there is no session.
    session : bytes
        h0, once the adverts are known.
    members : tuple of int
        Members of the session, this silo among them.
    key_seed : bytes
        What this silo's key pair is made from; empty from ``READY`` on.
    halves : dict
        What this silo sealed to the others; empty from ``READY`` on.
    keys : dict
        The pairs' keys, moved on to ``moved`` attempts.
    context, cohort, u2, u3, self_seed, seeds, shares
        Of the attempt under way: ctx, the sets, this silo's self-mask seed, the pairs' mask seeds and keys for
        shares, and the shares that this silo holds of every dealer.
    asked, reply : bytes
        Hash of the last request that was answered, and the bytes that answered it, for the case that they were lost
        on the way; empty where they are too many to be kept.
    """

    counter: bytes
    config: bytes = b""
    session: bytes = b""
    members: tuple[int, ...] = ()
    key_seed: bytes = b""
    halves: dict[int, tuple[bytes]] = field(default_factory=dict)
    keys: dict[int, tuple[bytes]] = field(default_factory=dict)
    moved: int = 0
    round: int = 0
    context: bytes = b""
    cohort: tuple[int, ...] = ()
    u2: tuple[int, ...] = ()
    u3: tuple[int, ...] = ()
    self_seed: bytes = b""
    seeds: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    shares: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    asked: bytes = b""
    reply: bytes = b""
    KIND = 33
    FORM = {  # noqa: RUF012
        "counter": Variable(128),
        "config": Variable(70000),
        "session": Variable(HASH),
        "members": Indices(),
        "key_seed": Variable(96),
        "halves": Records(Fixed(32)),
        "keys": Records(Fixed(32)),
        "moved": Number(4),
        "round": Number(4),
        "context": Variable(HASH),
        "cohort": Indices(),
        "u2": Indices(),
        "u3": Indices(),
        "self_seed": Variable(32),
        "seeds": Records(Fixed(32), Fixed(32)),
        "shares": Records(Fixed(SHARE_SIZE), Fixed(SHARE_SIZE)),
        "asked": Variable(HASH),
        "reply": Variable(KEPT),
    }

    @property
    def at(self) -> Counter:
        """Return the counter that this state goes with."""
        return Counter.decode(self.counter)

    @property
    def settings(self) -> Config:
        """Return the session's configuration.

        Raises
        ------
        StageOrder
            If there is no session.
        """
        if not self.config:
            raise StageOrder("There is no session: it has to be opened first.")
        return Config.decode(self.config)

    def expect(self, stage: Stage, context: bytes | None = None) -> Counter:
        """Return the counter if this stage was the last one that was answered.

        Raises
        ------
        StageOrder
            If another one was: what comes next has come already, or something is missing before it.
        Replay
            If the message is of another attempt than the one under way.
        """
        counter = self.at
        if counter.stage != stage:
            last = Stage(counter.stage).name.lower()
            raise StageOrder(f"This message follows the stage {stage.name.lower()}, and the last one was {last}.")
        if context is not None and context != self.context:
            raise Replay("This message is of another session, round or attempt than the one under way.")
        return counter

    def advanced(self, counter: Counter, **changes: Any) -> Self:
        """Return the state after a stage was answered."""
        return replace(self, counter=counter.encode(), **changes)

    def without_attempt(self) -> Self:
        """Return the state with the secrets of the attempt under way erased; the session goes on.

        Erased means no longer kept: Python does not overwrite memory, and the store has to drop the old bytes.
        """
        return replace(self, context=b"", cohort=(), u2=(), u3=(), self_seed=b"", seeds={}, shares={})

    def erased(self) -> ClientState:
        """Return the state with every secret erased. The counter stays, so that nothing can be answered again."""
        return ClientState(replace(self.at, stage=Stage.IDLE).encode())


def load(state: bytes | None, counter: bytes | None) -> ClientState:
    """Read what was stored after the last stage.

    Parameters
    ----------
    state : bytes or None
        The encoded state; None if it is lost, as after a crash where its key was held in memory only. What the
        session had is then lost as well, and a new one has to be opened.
    counter : bytes or None
        The encoded counter, from a place that is not restored together with the state; None for a silo that has never
        answered anything.

    Raises
    ------
    Replay
        If state and counter do not go together: one of them was rolled back.
    MalformedMessage
        If either is damaged.
    """
    if counter is None:
        if state is not None:
            raise Replay("There is a state without its counter, so that nobody knows how old it is.")
        return ClientState(Counter().encode())
    known = Counter.decode(counter)
    if state is None:
        return ClientState(replace(known, stage=Stage.IDLE).encode())
    loaded = ClientState.decode(state)
    if loaded.counter != counter:
        raise Replay("The stored state is not the one that goes with the counter: one of the two was rolled back.")
    return loaded


def position(config: Config, round_number: int, attempt: int) -> int:
    """Return how many attempts of a session there can have been up to this one, itself included.

    Raises
    ------
    SessionExpired
        If the session's keys were not made for this round or attempt.
    """
    within = round_number - config.first_round
    if not (0 <= within < config.rounds and 1 <= attempt <= config.attempts):
        raise SessionExpired(f"The session does not reach to attempt {attempt} of round {round_number}.")
    return within * config.attempts + attempt
