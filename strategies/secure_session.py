"""Sessions of secure aggregation at the server: when silos have to agree on keys, and the three exchanges of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from flwr.app import ConfigRecord

from quire.clients import contract
from quire.clients.secure.agreement import Agreement
from quire.privacy.identity.roster import Roster
from quire.privacy.secagg.exact_sum import ExactSession
from quire.privacy.secagg.messages import SESSION_ID
from quire.privacy.secagg.server_session import ServerSession
from quire.strategies.courier import Courier, Line, carrying
from quire.strategies.secure_log import AttemptLog

#: Rounds after which a session is made anew for the sake of a silo that is not in it.
REJOIN = 5


class Sessions:
    """The sessions of one circle of a run, one after the other.

    Parameters
    ----------
    members : Roster
        Who has which keys.
    run : int
        Flower's number of the run.
    circle : frozenset of int
        Those of them who agree on keys with each other, by roster index.
    simulated : bool
        Whether silos are simulated, and have to be told who else there is.
    exact : bool
        Whether their vectors are summed in clear, without keys: in a simulation only.

    Attributes
    ----------
    exact : bool
    made_in : int
        The round in which the last one was made.
    """

    def __init__(self, members: Roster, run: int, circle: frozenset[int], simulated: bool, exact: bool = False) -> None:
        self._members, self._run, self._circle, self._simulated = members, run, circle, simulated
        self.exact = exact and simulated
        self._kind: type[ServerSession] = ExactSession if self.exact else ServerSession
        self._session: ServerSession | None = None
        self._valid: frozenset[int] = frozenset()
        self.made_in = 0

    def end(self) -> None:
        """See to it that the next attempt has new keys."""
        self._session = None

    @property
    def due(self) -> bool:
        """Whether the next attempt has new keys."""
        return self._session is None

    def check(self, number: int, asked: Iterable[int]) -> None:
        """End a session that a round can no longer use, or that has long been without one of those asked.

        A run keeps its roster; what changes with time is whose keys on it count, and with that the session.
        """
        session = self._session
        if session is None:
            return
        over = number >= session.config.first_round + session.config.rounds
        absent = not set(asked) <= set(session.members)
        if over or self.active() != self._valid or (absent and number - self.made_in >= REJOIN):
            self.end()

    def ready(
        self, line: Line, courier: Courier, agreement: Agreement, left_out: set[int], log: AttemptLog
    ) -> ServerSession:
        """Return the session, made first if there is none.

        Parameters
        ----------
        line : Line
        courier : Courier
        agreement : Agreement
        left_out : set of int
            Members that are not asked.
        log : AttemptLog
            Learns of the exchanges and of blame.

        Raises
        ------
        SecAggError
            If too few members answer.
        """
        if self._session is not None:
            return self._session
        self._valid = self.active()
        identities = {member.index: member.identity for member in self._members.members if member.index in self._valid}
        config = agreement.config(self._run, line.round)
        session = self._kind(os.urandom(SESSION_ID), config, identities, bytes.fromhex(self._members.hash))
        names = [member.name for member in self._members.members]
        told = ConfigRecord({contract.ROSTER: names} if self._simulated else {})
        asked = [index for index in courier.names if index in identities and index not in left_out]
        try:
            opening = carrying(session.open(), **{contract.CONFIG: told})
            courier.gather(line, session, contract.OPEN, dict.fromkeys(asked, opening), log)
            adverts = carrying(session.adverts())
            courier.gather(line, session, contract.PAIRS, dict.fromkeys(session.advertised, adverts), log)
            halves = {index: carrying(session.pair_keys(index)) for index in session.close_pairs()}
            courier.gather(line, session, contract.READY, halves, log)
            session.close()
        finally:
            log.note(session.blame)
        self._session, self.made_in = session, line.round
        return session

    def active(self) -> frozenset[int]:
        """Return the members of the circle whose keys count now, as the silos themselves see it."""
        return self._circle & {member.index for member in self._members.active(int(time.time()))}
