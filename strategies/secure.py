"""``aggregation=secure`` at the server: sessions, rounds and attempts, over the exchanges that a strategy has anyway.

A round is what Flower's two hooks bracket. ``begin``, from ``configure_train``, sees to it that there are keys and
writes the first messages of the round; ``complete``, from ``aggregate_train``, takes their replies and goes through
the other stages. What comes out is the mean of the updates that survived: no update is ever here.

Nothing of a session is in a checkpoint. A run that is resumed agrees on keys anew, which changes no sum: in a seeded
simulation the rounding is seeded as well, and it comes to the model of the run that was never killed, bit for bit, as
long as no silo had missed the keys before. A deployment goes on from the checkpoint with other rounding, as another
run of Flower's, and silos charge for its rounds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from quire.clients import contract
from quire.clients.arrays import Arrays, fingerprint
from quire.clients.secure.agreement import Agreement, agreement_of, terms_of
from quire.conf.schema import SecureAggregation, Settings
from quire.errors import RunFailed
from quire.privacy.dp.rounding import EncodingError
from quire.privacy.identity.roster import Roster as Members
from quire.privacy.secagg.context import GENESIS
from quire.privacy.secagg.errors import CohortTooSmall, SecAggError
from quire.privacy.secagg.masks import Words
from quire.privacy.secagg.params import thresholds
from quire.privacy.secagg.server_round import ServerRound
from quire.privacy.secagg.server_session import ServerSession
from quire.strategies.cohort import Roster
from quire.strategies.courier import Answer, Courier, Line, carrying
from quire.strategies.distributed import Collected, announce, collected
from quire.strategies.reading import Failure, Unusable
from quire.strategies.report import RoundReport
from quire.strategies.secure_log import AttemptLog, StageLog
from quire.strategies.secure_session import Sessions

LOG = logging.getLogger("quire.strategies")

#: Looks at what a silo sends beside the first message of a round.
Accept = Callable[[str, RecordDict], None]

_LOST = ("StageOrder", "Replay")
_GONE = ("no_reply", "node_gone", "late", "app_crashed", "app_raised")


@dataclass
class _Round:
    """The round under way."""

    line: Line
    asked: list[int]
    arrays: ArrayRecord
    told: ConfigRecord
    model: bytes
    agreement: Agreement
    left_out: set[int] = field(default_factory=set)
    attempts: list[AttemptLog] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)
    server: ServerRound | None = None

    @property
    def log(self) -> AttemptLog:
        return self.attempts[-1]


class SecureRounds:
    """Secure aggregation for a strategy; see :class:`quire.strategies.strategy.FederatedStrategy`.

    Parameters
    ----------
    settings : Settings
    secure : SecureAggregation
        Of the settings.
    members : Roster
        Who has which keys: the consortium's roster, or a simulation's own.
    run : int
        Flower's number of the run.
    simulated : bool
        Whether silos are simulated, and have to be told who else there is.
    """

    def __init__(
        self, settings: Settings, secure: SecureAggregation, members: Members, run: int, simulated: bool
    ) -> None:
        self._members, self._terms = members, terms_of(settings, secure, len(members.members))
        self._sessions = Sessions(members, run, simulated)
        self._courier = Courier({}, {}, None)
        self._round: _Round | None = None

    # ----------------------------------------------------------------------------------- the two hooks
    def begin(
        self,
        grid: Grid,
        roster: Roster,
        cohort: Iterable[str],
        number: int,
        model: Arrays,
        arrays: ArrayRecord,
        told: ConfigRecord,
        timeout: float,
    ) -> list[Message]:
        """Make a session if one is due, and write the messages that begin a round.

        Parameters
        ----------
        grid : flwr.serverapp.Grid
        roster : Roster
            The run's silos.
        cohort : iterable of str
            Those asked in this round.
        number : int
        model : dict of str to numpy.ndarray
        arrays : flwr.app.ArrayRecord
            The same, encoded.
        told : flwr.app.ConfigRecord
            What the messages tell the silos beside the model.
        timeout : float
            Seconds to wait in each exchange.

        Raises
        ------
        RunFailed
            If there is no session to be had in as many attempts as the settings allow.
        """
        indices = {member.name: member.index for member in self._members.members}
        if missing := [name for name in roster.silos.values() if name not in indices]:
            raise RunFailed(
                f"The roster {self._members.roster_id} has no member '{missing[0]}', so that nobody could check its "
                "keys: aggregation=secure needs every silo in it."
            )
        self._courier = Courier(roster.silos, indices, roster.code_hash)
        agreement = self._agreement(model)
        asked = sorted(indices[name] for name in cohort)
        digest = bytes.fromhex(fingerprint(model))
        self._round = _Round(Line(grid, number, timeout), asked, arrays, told, digest, agreement)
        self._sessions.check(number, asked)
        return self._attempt(self._round)

    def announce(self, model: Arrays) -> dict[str, Any]:
        """Say how large distributed noise will be, and return what the journal begins with; see `distributed`."""
        return announce(self._agreement(model))

    def _agreement(self, model: Arrays) -> Agreement:
        try:
            return agreement_of(self._terms, model)
        except EncodingError as error:
            wide = "; aggregation.bits=null takes as many as it needs" if self._terms.noise and self._terms.bits else ""
            raise RunFailed(f"aggregation=secure cannot sum this model: {error}{wide}.") from error

    def complete(self, replies: Iterable[Message], accept: Accept, memory: Mapping[str, np.ndarray]) -> Collected:
        """Take the replies to what :meth:`begin` wrote, and go through the rest of the round.

        Parameters
        ----------
        replies : iterable of flwr.app.Message
        accept : callable
            Looks at what a silo sends beside the first message of a round; raises ``Unusable`` to leave it out.
        memory : mapping of str to numpy.ndarray
            What the server remembers of the rounds before.

        Raises
        ------
        RunFailed
            If no attempt succeeds, naming who was missing.
        """
        one = self._round
        if one is None:
            raise RunFailed("A round of secure aggregation was to be completed that never began.")
        answers = self._courier.read(one.sent, replies, one.log)
        while True:
            try:
                silos, total = self._finish(one, answers, accept)
                break
            except SecAggError as error:
                self._came_to_nothing(one, error)
            messages = self._attempt(one)
            answers = self._courier.carry(one.line, messages, one.log)
        try:
            return collected(one.agreement, total, silos, memory)
        except EncodingError as error:
            raise RunFailed(f"Round {one.line.round} failed: {error}.") from error

    def tell(self, report: RoundReport) -> None:
        """Put into a round's report how it went: stages, dropouts, bytes, seconds, blame, of every attempt."""
        one = self._round
        if one is None:
            return
        report.failed += self.failures()
        report.secure = {
            "members": self._terms.members,
            "colluders": self._terms.colluders,
            "bits": one.agreement.point.bits,
            "length": one.agreement.point.length,
            "session": self._sessions.made_in,
            "attempts": [attempt.as_dict(self._courier.names) for attempt in one.attempts],
        }
        for stage in (stage for attempt in one.attempts for stage in attempt.stages.values()):
            report.bytes_down += stage.bytes_down
            report.bytes_up += stage.bytes_up

    def failures(self) -> list[Failure]:
        """Return who failed in the round under way, or the last one, at which stage and how."""
        found: list[Failure] = []
        for attempt in self._round.attempts if self._round is not None else ():
            found += [failure for failure in attempt.failures(self._courier.names) if failure not in found]
        return found

    # ------------------------------------------------------------------------------------- attempts
    def _attempt(self, one: _Round) -> list[Message]:
        """Begin another attempt and return its first messages; one without a session counts as one that failed."""
        while True:
            one.attempts.append(AttemptLog(len(one.attempts) + 1))
            try:
                session = self._sessions.ready(one.line, self._courier, one.agreement, one.left_out, one.log)
                one.server = self._server_round(one, session)
            except SecAggError as error:
                self._came_to_nothing(one, error)
                continue
            start = carrying(one.server.start())
            start[contract.ARRAYS], start[contract.CONFIG] = one.arrays, one.told
            one.log.stages["shares"] = StageLog()  # its clock runs from here, whoever sends the messages
            one.sent = self._courier.messages(one.line, contract.SHARES, dict.fromkeys(one.server.cohort, start))
            return one.sent

    def _server_round(self, one: _Round, session: ServerSession) -> ServerRound:
        cohort = tuple(index for index in one.asked if index in session.members and index not in one.left_out)
        server = ServerRound(session, one.line.round, one.log.number, cohort, one.model, GENESIS)
        one.log.cohort, one.log.threshold = self._named(cohort), server.limits.min_survivors
        return server

    def _finish(self, one: _Round, answers: Iterable[Answer], accept: Accept) -> tuple[list[str], Words]:
        server, log = one.server, one.log
        if server is None:
            raise CohortTooSmall("There is no attempt.")
        try:
            for answer in answers:
                silo = self._courier.names[answer.index]
                try:
                    accept(silo, answer.content)
                except Unusable as why:
                    log.failed.append(Failure(silo, "shares", why.code, why.words))
                else:
                    server.receive(answer.index, answer.data)
            log.u2 = self._named(server.close_shares())
            requests = {index: carrying(server.mask_request(index)) for index in server.u2}
            self._courier.gather(one.line, server, contract.MASK, requests, log)
            confirm = carrying(server.close_masked())
            log.u3 = self._named(server.u3)
            self._courier.gather(one.line, server, contract.CONFIRM, dict.fromkeys(server.u3, confirm), log)
            opening = carrying(server.close_survivors())
            total = self._opened(one, server, opening)
        finally:
            log.note(server.blame)
        if any(note.code in _LOST for note in log.blame):
            self._sessions.end()  # a silo has lost its state, and takes part again with new keys
        return log.u3, total

    def _opened(self, one: _Round, server: ServerRound, opening: RecordDict) -> Words:
        """Ask for the shares, and those who do not answer once more: silos that gave theirs take part in no other try.

        Raises
        ------
        RunFailed
            If the sum does not open. It never will, so that the round is lost.
        """
        missing = set(server.confirmed)
        for _ in range(self._terms.attempts):
            contents = dict.fromkeys(sorted(missing), opening)
            missing -= self._courier.gather(one.line, server, contract.UNMASK, contents, one.log)
            if len(server.confirmed) - len(missing) >= server.limits.threshold:
                break
        try:
            return server.unmask()
        except SecAggError as error:
            one.log.note(server.blame)
            raise RunFailed(
                f"Round {one.line.round} failed: its sum cannot be opened, because {_clause(error)} "
                f"({self._missing()}); silos have given shares for it and take part in no other attempt of this round."
            ) from error

    def _came_to_nothing(self, one: _Round, error: SecAggError) -> None:
        """Note why an attempt failed, and whom the next one does without.

        Raises
        ------
        RunFailed
            If it was the last one.
        """
        log = one.log
        log.error = error.code
        self._sessions.end()
        LOG.warning("Round %d: attempt %d of secure aggregation failed: %s", one.line.round, log.number, error)
        if len(one.attempts) >= self._terms.attempts:
            tries = f"{len(one.attempts)} attempt{'s' if len(one.attempts) > 1 else ''}"
            raise RunFailed(
                f"Round {one.line.round} failed: secure aggregation came to nothing in {tries}, the last because "
                f"{_clause(error)} ({self._missing()})."
            ) from error
        suspects = log.suspects(self._terms.colluders)
        gone = {self._courier.indices[failure.silo] for failure in log.failed if failure.code in _GONE}
        # Who is gone is not waited for once more, unless it takes them all.
        one.left_out = suspects | gone if self._suffice(one, suspects | gone) else suspects

    def _suffice(self, one: _Round, left_out: set[int]) -> bool:
        try:
            limits = thresholds(self._terms.members, self._terms.colluders, self._terms.min_survivors)
            limits.admit(len(set(one.asked) - left_out))
        except CohortTooSmall:
            return False
        return True

    def _missing(self) -> str:
        named = [f"{failure.silo}, {failure.stage}: {failure.words}" for failure in self.failures()]
        return "; ".join(named[:5]) + (f"; and {len(named) - 5} more" if len(named) > 5 else "") or "nobody was missing"

    def _named(self, indices: Iterable[int]) -> list[str]:
        return [self._courier.names[index] for index in indices]


def _clause(error: SecAggError) -> str:
    text = str(error).rstrip(".")
    return text[0].lower() + text[1:]
