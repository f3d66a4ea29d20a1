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
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from quire.clients import contract
from quire.clients.arrays import Arrays
from quire.clients.secure.agreement import Agreement, agreement_of, terms_of
from quire.conf.schema import SecureAggregation, Settings
from quire.errors import RunFailed
from quire.privacy.dp.rounding import EncodingError
from quire.privacy.identity.roster import Roster as Members
from quire.privacy.randomness import stream
from quire.privacy.secagg.errors import CohortTooSmall, SecAggError
from quire.privacy.secagg.masks import Words
from quire.privacy.secagg.params import thresholds
from quire.privacy.secagg.server_round import ServerRound
from quire.privacy.secagg.server_session import ServerSession
from quire.strategies.chain import Chain
from quire.strategies.cohort import Roster
from quire.strategies.courier import NOT_AWAITED, Answer, Courier, Line, carrying
from quire.strategies.distributed import SETBACKS, Collected, announce, collected
from quire.strategies.exchange import Deadlines
from quire.strategies.log_bound import Bound
from quire.strategies.report import RoundReport
from quire.strategies.rounds import RoundState
from quire.strategies.secure_conduct import Conduct
from quire.strategies.secure_log import AttemptLog, StageLog
from quire.strategies.secure_replies import Beside, take_in
from quire.strategies.secure_round import GONE, HOPELESS, LOST, Round, clause, filled_up
from quire.strategies.secure_session import Sessions
from quire.strategies.secure_setbacks import Setbacks
from quire.strategies.transcripts import Transcripts
from quire.transparency.log import Log

LOG = logging.getLogger("quire.strategies")


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
    log : Log, optional
        The run's transparency log, which every round is bound to.
    """

    def __init__(
        self,
        settings: Settings,
        secure: SecureAggregation,
        members: Members,
        run: int,
        simulated: bool,
        log: Log | None = None,
    ) -> None:
        self._members, self._bound = members, Bound(log, members)
        self._terms = terms_of(settings, secure, len(members.members), self._bound.name)
        self._sessions = Sessions(members, run, simulated, secure.exact)
        self._courier = Courier({}, {}, None)
        self._conduct = Conduct([member.index for member in members.members], self._terms.colluders)
        self._seed, self._setbacks = settings.seed, Setbacks(self._terms.attempts, settings.rounds)
        self._round: Round | None = None
        self._chain, self.transcripts = Chain(self._terms.chain), Transcripts()

    # ----------------------------------------------------------------------------------- the two hooks
    def begin(
        self,
        grid: Grid,
        roster: Roster,
        cohort: Iterable[str],
        state: RoundState,
        arrays: ArrayRecord,
        told: ConfigRecord,
        deadlines: Deadlines,
    ) -> list[Message]:
        """Make a session if one is due, and write the messages that begin a round.

        Parameters
        ----------
        grid : flwr.serverapp.Grid
        roster : Roster
            The run's silos.
        cohort : iterable of str
            Those asked in this round.
        state : RoundState
            What the round trains from.
        arrays : flwr.app.ArrayRecord
            Its model, encoded.
        told : flwr.app.ConfigRecord
            What the messages tell the silos beside the model.
        deadlines : Deadlines
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
        number = state.round + 1
        self._setbacks.begin(number, state.memory)
        agreement = self.agreement(state.model)
        asked = sorted(indices[name] for name in cohort)
        model = self._chain.begin(state, arrays)
        self._round = Round(Line(grid, number, deadlines), asked, told, model, agreement, exact=self._sessions.exact)
        self._sessions.check(number, set(asked) - self._conduct.out)
        return self._attempt(self._round)

    @property
    def fewest(self) -> int:
        """Silos without whose answers the attempt under way comes to nothing."""
        return self._round.server.limits.min_survivors if self._round and self._round.server else 0

    @property
    def kept(self) -> Arrays:
        """What the server has to remember once a round was lost."""
        return self._setbacks.kept

    def announce(self, model: Arrays) -> dict[str, Any]:
        """Say how large distributed noise will be, and return what the journal begins with; see `distributed`."""
        return announce(self.agreement(model))

    def agreement(self, model: Arrays) -> Agreement:
        """Return what server and silos work out alike for this model; RunFailed if it cannot be summed."""
        try:
            return agreement_of(self._terms, model)
        except EncodingError as error:
            wide = "; aggregation.bits=null takes as many as it needs" if self._terms.noise and self._terms.bits else ""
            raise RunFailed(f"aggregation=secure cannot sum this model: {error}{wide}.") from error

    def complete(self, replies: Iterable[Message], beside: Beside, memory: Mapping[str, np.ndarray]) -> Collected:
        """Take the replies to what :meth:`begin` wrote, and go through the rest of the round.

        Parameters
        ----------
        replies : iterable of flwr.app.Message
        beside : Beside
            Takes what a silo sends beside the first message of a round, and is told of the sum once it is open.
        memory : mapping of str to numpy.ndarray
            What the server remembers of the rounds before.

        Raises
        ------
        RoundLost
            If the sum does not open, or is none of honest silos: the model stays as it is, and the run goes on.
        RunFailed
            If no attempt succeeds, naming who was missing; or if too many rounds in a row were lost.
        """
        one = self._round
        if one is None:
            raise RunFailed("A round of secure aggregation was to be completed that never began.")
        answers = self._courier.read(one.sent, replies, one.log)
        while True:
            try:
                silos, total = self._finish(one, answers, beside)
                break
            except SecAggError as error:
                self._came_to_nothing(one, error)
            messages = self._attempt(one)
            answers = self._courier.carry(one.line, messages, one.log)
        beside.opened(silos)
        if found_out := self._conduct.note(one.log.blame):
            self._sessions.end()
        self._setbacks.hold(one, total, len(silos), found_out)
        try:
            found = collected(one.agreement, total, silos, memory)
        except EncodingError as error:
            raise RunFailed(f"Round {one.line.round} failed: {error}.") from error
        found.kept.update(self.kept if SETBACKS in memory else {})
        self._chain.opened(total, one.agreement, len(silos))
        one.clamped = found.metrics.pop(contract.CLAMPED, 0.0)
        return found

    def tell(self, report: RoundReport, failed: bool = False) -> None:
        """Put into a round's report how it went: stages, dropouts, bytes, seconds, blame, of every attempt."""
        one = self._round
        if one is None or one.line.round != report.round:
            return
        self.transcripts.seal(one.attempts, failed)
        about = {"members": self._terms.members, "colluders": self._terms.colluders, "session": self._sessions.made_in}
        one.tell(
            report, self._courier.names, one.ever | (set(one.asked) - self._conduct.out), **about, **self._bound.about()
        )

    # ------------------------------------------------------------------------------------- attempts
    def _attempt(self, one: Round) -> list[Message]:
        """Begin another attempt and return its first messages; one without a session counts as one that failed."""
        while True:
            one.attempts.append(AttemptLog(len(one.attempts) + 1))
            try:
                without = one.left_out | self._conduct.out
                if self._sessions.due:
                    without |= self._conduct.aside(lambda out: self._suffice(one.left_out | out))
                session = self._sessions.ready(one.line, self._courier, one.agreement, without, one.log)
                one.server = self._server_round(one, session)
            except SecAggError as error:
                self._came_to_nothing(one, error)
                continue
            one.log.stages["shares"] = StageLog()  # its clock runs from here, whoever sends the messages
            start = carrying(one.server.start(), **{contract.CONFIG: one.told})
            told = self._bound.beside(self._chain.asked(one.server.cohort, start), self._courier.names)
            one.sent = self._courier.messages(one.line, contract.SHARES, told)
            return one.sent

    def _server_round(self, one: Round, session: ServerSession) -> ServerRound:
        cohort = self._cohort(one, session)
        server = self.transcripts.begin(session, one.line.round, one.log.number, cohort, one.model, self._bound.root)
        one.ever |= set(cohort)
        one.log.cohort, one.log.threshold = self._named(cohort), server.limits.min_survivors
        return server

    def _cohort(self, one: Round, session: ServerSession) -> tuple[int, ...]:
        """Return those asked who can be, and stand-ins drawn from the seed, so that a resumed run asks the same."""
        able = set(session.members) - one.left_out - self._conduct.out
        source = stream(self._seed, "cohort", "stand-in", one.line.round)
        order: list[int] = source.permutation(sorted(self._courier.names)).tolist()
        return filled_up(one.asked, able, order, self._terms.parties)

    def _finish(self, one: Round, answers: Iterable[Answer], beside: Beside) -> tuple[list[str], Words]:
        server, log = one.server, one.log
        if server is None:
            raise CohortTooSmall("There is no attempt.")
        try:
            for index in take_in(answers, server, log, self._courier.names, beside, self._bound):
                self._chain.answered(index)
            self._bound.keep()
            log.failed += self._chain.strays(server.blame, self._courier.names)
            log.u2 = self._named(server.close_shares())
            requests = {index: carrying(server.mask_request(index)) for index in server.u2}
            self._courier.gather(one.line, server, contract.MASK, requests, log, needed=self.fewest)
            confirm = carrying(server.close_masked())
            log.u3 = self._named(server.u3)
            signers = dict.fromkeys(server.u3, confirm)
            threshold = server.limits.threshold
            self._courier.gather(one.line, server, contract.CONFIRM, signers, log, threshold, needed=threshold)
            opening = carrying(server.close_survivors())
            total = self._open(one, server, opening)
        finally:
            log.note(server.blame)
        if any(note.code in LOST for note in log.blame):
            self._sessions.end()  # a silo has lost its state, and takes part again with new keys
        return log.u3, total

    def _open(self, one: Round, server: ServerRound, opening: RecordDict) -> Words:
        """Ask for the shares, and those who do not answer again: silos that gave theirs take part in no other try.

        Raises
        ------
        RoundLost
            If the sum does not open, which it then never will.
        RunFailed
            If that goes on and on.
        """
        slow = {self._courier.indices[failure.silo] for failure in one.log.failed if failure.code == NOT_AWAITED[0]}
        missing, came, tries = set(server.confirmed) | (slow & set(server.u3)), set[int](), self._terms.attempts
        while True:
            contents, enough = dict.fromkeys(sorted(missing), opening), max(1, server.limits.threshold - len(came))
            came |= self._courier.gather(one.line, server, contract.UNMASK, contents, one.log, enough)
            missing, tries = missing - came, tries - 1
            try:
                return server.unmask()
            except SecAggError as error:
                one.log.note(server.blame)
                if not tries or not missing or any(note.code in HOPELESS for note in server.blame):
                    raise self._lost(one, error) from error

    def _lost(self, one: Round, why: SecAggError) -> Exception:
        """Note that a round is lost, and return what to raise."""
        names, number = self._courier.names, one.line.round
        one.log.error = why.code
        self._sessions.end()
        text = f"its sum cannot be opened, because {clause(why, names)} ({one.missing(names)})"
        return self._setbacks.lost(number, text, self._conduct.note(one.log.blame))

    def _came_to_nothing(self, one: Round, error: SecAggError) -> None:
        """Note why an attempt failed, and whom the next one does without.

        Raises
        ------
        RunFailed
            If it was the last one.
        """
        log, names = one.log, self._courier.names
        log.error = error.code
        self._sessions.end()
        self._conduct.note(log.blame)
        why = clause(error, names)
        LOG.warning("Round %d: attempt %d of secure aggregation failed: %s.", one.line.round, log.number, why)
        if len(one.attempts) >= self._terms.attempts:
            tries = f"{len(one.attempts)} attempt{'s' if len(one.attempts) > 1 else ''}"
            raise RunFailed(
                f"Round {one.line.round} failed: secure aggregation came to nothing in {tries}, the last because "
                f"{why} ({one.missing(names)})."
            ) from error
        suspects = log.suspects()
        gone = {self._courier.indices[failure.silo] for failure in log.failed if failure.code in GONE}
        # Who was gone, or sent what does not hold, is not waited for once more, unless that takes too many.
        for left_out in (one.left_out | suspects | gone, one.left_out | suspects, suspects):
            if self._suffice(left_out | self._conduct.out):
                one.left_out = left_out
                return
        one.left_out = set()

    def _suffice(self, left_out: set[int]) -> bool:
        """Whether those who are left can be a cohort."""
        left = len(set(self._courier.names) & self._sessions.active() - left_out)
        try:
            limits = thresholds(self._terms.members, self._terms.colluders, self._terms.min_survivors)
            limits.admit(min(left, self._terms.parties))
        except CohortTooSmall:
            return False
        return True

    def _named(self, indices: Iterable[int]) -> list[str]:
        return [self._courier.names[index] for index in indices]
