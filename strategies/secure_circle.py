"""A circle of members whose updates are summed under masks: its sessions and attempts, over one round's exchanges.

All members of a run are one circle, or each group of them is. What a circle comes to in a round is a sum, or nothing,
and why; what is made of that is for :mod:`quire.strategies.secure`.

Nothing of a session is in a checkpoint. A run that is resumed agrees on keys anew, which changes no sum: in a seeded
simulation the rounding is seeded as well, and it comes to the model of the run that was never killed, bit for bit, as
long as no silo had missed the keys before. A deployment goes on from the checkpoint with other rounding, as another
run of Flower's, and silos charge for its rounds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flwr.app import Message, RecordDict

from quire.clients import contract
from quire.clients.secure.terms import Terms
from quire.errors import RunFailed
from quire.privacy.identity.roster import Roster as Members
from quire.privacy.randomness import stream
from quire.privacy.secagg.errors import CohortTooSmall, SecAggError
from quire.privacy.secagg.masks import Words
from quire.privacy.secagg.params import thresholds
from quire.privacy.secagg.server_round import ServerRound
from quire.privacy.secagg.server_session import ServerSession
from quire.strategies.chain import Chain
from quire.strategies.courier import NOT_AWAITED, Answer, Courier, carrying
from quire.strategies.log_bound import Bound
from quire.strategies.secure_conduct import Conduct
from quire.strategies.secure_log import AttemptLog, StageLog
from quire.strategies.secure_replies import Beside, take_in
from quire.strategies.secure_round import GONE, HOPELESS, LOST, Round, clause, filled_up
from quire.strategies.secure_session import Sessions
from quire.strategies.transcripts import Transcripts

LOG = logging.getLogger("quire.strategies")


class NoAttemptLeft(RunFailed):
    """A circle that came to nothing in as many attempts as the settings allow.

    Parameters
    ----------
    text : str
        What is said where this ends the run.
    clause : str
        What is said where others go on.
    """

    def __init__(self, text: str, clause: str) -> None:
        super().__init__(text)
        self.clause = clause


class NeverOpens(Exception):
    """A sum that does not open, and never will: silos that gave shares for it take part in no other attempt.

    Parameters
    ----------
    text : str
        Why, as a clause.
    found : bool
        Whether it told of somebody to go on without.
    """

    def __init__(self, text: str, found: bool) -> None:
        super().__init__(text)
        self.found = found


@dataclass(frozen=True)
class Common:
    """What all circles of a run share.

    Attributes
    ----------
    members : Roster
        Who has which keys: the consortium's roster, or a simulation's own.
    run : int
        Flower's number of the run.
    simulated : bool
        Whether silos are simulated, and have to be told who else there is.
    exact : bool
        Whether a simulation sums in clear, without the protocol.
    seed : int
    bound : Bound
    chain : Chain
    transcripts : Transcripts
    """

    members: Members
    run: int
    simulated: bool
    exact: bool
    seed: int
    bound: Bound
    chain: Chain
    transcripts: Transcripts


class Circle:
    """Members of a run who are summed together.

    Parameters
    ----------
    common : Common
    terms : Terms
    members : tuple of int
        Roster indices.

    Raises
    ------
    CohortTooSmall
        If so few could never open a sum.
    """

    def __init__(self, common: Common, terms: Terms, members: tuple[int, ...]) -> None:
        self._limits = thresholds(terms.members, terms.colluders, terms.min_survivors)
        self.terms, self.members = terms, frozenset(members)
        self._common = common
        self.sessions = Sessions(common.members, common.run, self.members, common.simulated, common.exact)
        self._conduct = Conduct(members, terms.colluders)
        self._courier = Courier({}, {}, None)
        self.round: Round | None = None
        self._first: Mapping[int, RecordDict] = {}  # what begins the attempt under way, by roster index
        self._answers: list[Answer] = []

    @property
    def fewest(self) -> int:
        """Silos without whose answers the attempt under way comes to nothing."""
        return self.round.server.limits.min_survivors if self.round and self.round.server else 0

    @property
    def expected(self) -> set[int]:
        """Members that count as asked in the round under way, with stand-ins, without those who are out of the run."""
        return set() if self.round is None else self.round.ever | (set(self.round.asked) - self._conduct.out)

    @property
    def begun(self) -> Round:
        """Return the round under way.

        Raises
        ------
        RunFailed
            If none has begun.
        """
        if self.round is None:
            raise RunFailed("A round of secure aggregation was to be completed that never began.")
        return self.round

    def begin(self, one: Round, courier: Courier) -> None:
        """Make a session if one is due, and prepare the messages that begin a round.

        Raises
        ------
        NoAttemptLeft
            If there is no session to be had in as many attempts as the settings allow.
        """
        self._courier, self.round = courier, one
        self.sessions.check(one.line.round, set(one.asked) - self._conduct.out)
        self._attempt(one)

    def messages(self) -> list[Message]:
        """Write the messages that begin an attempt: when they are sent, as the time to answer runs from here."""
        one = self.begun
        one.log.stages["shares"] = StageLog()  # its clock too, whoever sends the messages
        one.sent = self._courier.messages(one.line, contract.SHARES, self._first)
        return one.sent

    def take(self, replies: Iterable[Message]) -> None:
        """Take the replies to what :meth:`messages` wrote: those that are this circle's."""
        one = self.begun
        self._answers = list(self._courier.read(one.sent, replies, one.log))

    def finish(self, beside: Beside) -> tuple[list[str], Words]:
        """Go through the rest of the round, with other attempts if need be.

        Returns
        -------
        silos : list of str
            Whose updates are in the sum, in roster order.
        total : numpy.ndarray of uint32

        Raises
        ------
        NeverOpens
        NoAttemptLeft
        """
        one = self.begun
        answers: Iterable[Answer] = self._answers
        self._answers = []
        while True:
            try:
                return self._finish(one, answers, beside)
            except SecAggError as error:
                self._came_to_nothing(one, error)
            self._attempt(one)
            answers = self._courier.carry(one.line, self.messages(), one.log)

    def learn(self) -> bool:
        """Draw conclusions from the blame of an attempt whose sum was opened; say whether there are any."""
        found_out = self._conduct.note(self.begun.log.blame)
        if found_out:
            self.sessions.end()
        return found_out

    # ------------------------------------------------------------------------------------- attempts
    def _attempt(self, one: Round) -> None:
        """Begin another attempt and prepare its first messages; one without a session counts as one that failed."""
        while True:
            one.attempts.append(AttemptLog(len(one.attempts) + 1, self.terms.group))
            try:
                without = one.left_out | self._conduct.out
                if self.sessions.due:
                    without |= self._conduct.aside(lambda out: self._suffice(one.left_out | out))
                session = self.sessions.ready(one.line, self._courier, one.agreement, without, one.log)
                one.server = self._server_round(one, session)
            except SecAggError as error:
                self._came_to_nothing(one, error)
                continue
            start = carrying(one.server.start(), **{contract.CONFIG: one.told})
            cohort, common = one.server.cohort, self._common
            self._first = common.bound.beside(common.chain.asked(cohort, start), self._courier.names)
            return

    def _server_round(self, one: Round, session: ServerSession) -> ServerRound:
        cohort, common = self._cohort(one, session), self._common
        about = one.line.round, one.log.number, cohort, one.model, common.bound.root
        server = common.transcripts.begin(session, *about, group=self.terms.group)
        one.ever |= set(cohort)
        one.log.cohort, one.log.threshold = self._named(cohort), server.limits.min_survivors
        return server

    def _cohort(self, one: Round, session: ServerSession) -> tuple[int, ...]:
        """Return those asked who can be, and stand-ins drawn from the seed, so that a resumed run asks the same."""
        able = set(session.members) - one.left_out - self._conduct.out
        source = stream(self._common.seed, "cohort", "stand-in", one.line.round)
        order: list[int] = source.permutation(sorted(self._courier.names)).tolist()
        return filled_up(one.asked, able, order, self.terms.parties)

    def _finish(self, one: Round, answers: Iterable[Answer], beside: Beside) -> tuple[list[str], Words]:
        server, log, common = one.server, one.log, self._common
        if server is None:
            raise CohortTooSmall("There is no attempt.")
        try:
            for index in take_in(answers, server, log, self._courier.names, beside, common.bound):
                common.chain.answered(index)
            common.bound.keep()
            log.failed += common.chain.strays(server.blame, self._courier.names)
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
            self.sessions.end()  # a silo has lost its state, and takes part again with new keys
        return log.u3, total

    def _open(self, one: Round, server: ServerRound, opening: RecordDict) -> Words:
        """Ask for the shares, and those who do not answer again: silos that gave theirs take part in no other try.

        Raises
        ------
        NeverOpens
        """
        slow = {self._courier.indices[failure.silo] for failure in one.log.failed if failure.code == NOT_AWAITED[0]}
        missing, came, tries = set(server.confirmed) | (slow & set(server.u3)), set[int](), self.terms.attempts
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

    def _lost(self, one: Round, why: SecAggError) -> NeverOpens:
        """Note that a round is lost, and return what to raise."""
        names = self._courier.names
        one.log.error = why.code
        self.sessions.end()
        text = f"its sum cannot be opened, because {clause(why, names)} ({self._missing(one)})"
        return NeverOpens(text, self._conduct.note(one.log.blame))

    def _came_to_nothing(self, one: Round, error: SecAggError) -> None:
        """Note why an attempt failed, and whom the next one does without.

        Raises
        ------
        NoAttemptLeft
            If it was the last one.
        """
        log, names = one.log, self._courier.names
        log.error = error.code
        self.sessions.end()
        self._conduct.note(log.blame)
        why = clause(error, names)
        of = ""
        if self.terms.group is not None:  # to the protocol, a group is a roster
            of, why = f" of group {self.terms.group + 1}", why.replace("on the roster", "in the group")
        LOG.warning("Round %d: attempt %d of secure aggregation%s failed: %s.", one.line.round, log.number, of, why)
        if len(one.attempts) >= self.terms.attempts:
            tries = f"{len(one.attempts)} attempt{'s' if len(one.attempts) > 1 else ''}"
            nothing = f"came to nothing in {tries}, the last because {why} ({self._missing(one)})"
            raise NoAttemptLeft(
                f"Round {one.line.round} failed: secure aggregation{of} {nothing}.", f"secure aggregation {nothing}"
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
        left = len(set(self._courier.names) & self.sessions.active() - left_out)
        try:
            self._limits.admit(min(left, self.terms.parties))
        except CohortTooSmall:
            return False
        return True

    def _missing(self, one: Round) -> str:
        """Say who failed, and who of a group never joined, or was left out for what it answered."""
        grouped = self.terms.group is not None
        never = [
            member.name
            for member in self._common.members.members
            if grouped and member.index in self.members and member.index not in self._courier.names
        ]
        return one.missing(self._courier.names, never)

    def _named(self, indices: Iterable[int]) -> list[str]:
        return [self._courier.names[index] for index in indices]
