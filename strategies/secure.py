"""``aggregation=secure`` at the server: the rounds of a run, over the exchanges that a strategy has anyway.

A round is what Flower's two hooks bracket. ``begin``, from ``configure_train``, sees to it that there are keys and
writes the first messages of the round; ``complete``, from ``aggregate_train``, takes their replies and goes through
the other stages, which are those of a circle (:mod:`quire.strategies.secure_circle`). All silos are one circle, or each
group of them is one. What comes out is the mean of the updates that survived, or of groups what their means combine to
(:mod:`quire.strategies.secure_groups`): no update is ever here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid

from quire.clients import contract
from quire.clients.arrays import Arrays
from quire.clients.secure.agreement import Agreement, agreement_of
from quire.clients.secure.terms import Terms, terms_of
from quire.conf.schema import SecureAggregation, Settings
from quire.errors import RunFailed
from quire.privacy.dp.rounding import EncodingError
from quire.privacy.identity.roster import Roster as Members
from quire.privacy.secagg.errors import CohortTooSmall
from quire.privacy.secagg.groups import dealt
from quire.strategies.chain import Chain
from quire.strategies.cohort import Roster
from quire.strategies.courier import Courier, Line
from quire.strategies.distributed import SETBACKS, Collected, announce, collected
from quire.strategies.exchange import Deadlines
from quire.strategies.log_bound import Bound
from quire.strategies.report import RoundReport
from quire.strategies.rounds import RoundState
from quire.strategies.secure_circle import Circle, Common, NeverOpens, NoAttemptLeft
from quire.strategies.secure_groups import Outcome, Rule, combined, lacking, outcome_of
from quire.strategies.secure_replies import Beside
from quire.strategies.secure_round import Round, tell
from quire.strategies.secure_setbacks import Setbacks
from quire.strategies.transcripts import Transcripts
from quire.strategies.turns import Turns
from quire.transparency.log import Log

LOG = logging.getLogger("quire.strategies")
S = TypeVar("S")
T = TypeVar("T")


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
    transcripts : Transcripts, optional
        Keeps what is received, for an audit.

    Raises
    ------
    RunFailed
        If the members of the roster make groups that are too small.
    """

    def __init__(
        self,
        settings: Settings,
        secure: SecureAggregation,
        members: Members,
        run: int,
        simulated: bool,
        log: Log | None = None,
        transcripts: Transcripts | None = None,
    ) -> None:
        self._members, self._bound, self._rule = members, Bound(log, members), Rule.of(secure)
        self._transcripts, exact = transcripts or Transcripts(), secure.exact and simulated
        groups = dealt([member.index for member in members.members], secure.groups or 1)
        terms = [terms_of(settings, secure, len(members.members), self._bound.name, one.number) for one in groups]
        self._terms, self._chain, self._exact = terms[0], Chain(terms[0].chain), exact
        common = Common(members, run, simulated, exact, settings.seed, self._bound, self._chain, self._transcripts)
        self._circles = [_circle(common, *about) for about in zip(terms, (one.members for one in groups), strict=True)]
        self._setbacks = Setbacks(self._terms.attempts, settings.rounds)
        # Simulated silos answer at once, and in order: there is nothing to gain, and a seeded run stays as it is.
        self._turns = None if simulated else Turns()
        self._outcomes: list[Outcome] = []
        self._names: dict[int, str] = {}

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
            If there is no session to be had in as many attempts as the settings allow, in any group.
        """
        indices = {member.name: member.index for member in self._members.members}
        if missing := [name for name in roster.silos.values() if name not in indices]:
            raise RunFailed(
                f"The roster {self._members.roster_id} has no member '{missing[0]}', so that nobody could check its "
                "keys: aggregation=secure needs every silo in it."
            )
        self._names = {indices[name]: name for name in roster.silos.values()}
        number = state.round + 1
        self._setbacks.begin(number, state.memory)
        self._outcomes = []
        model, asked = self._chain.begin(state, arrays), sorted(indices[name] for name in cohort)
        line = Line(grid, number, deadlines, time.sleep if self._turns is None else self._turns.sleep)

        def begin(circle: Circle) -> NoAttemptLeft | None:
            there = {node: name for node, name in roster.silos.items() if indices[name] in circle.members}
            courier = Courier(there, indices, roster.code_hash)
            agreement = self._agreement(circle.terms, state.model)
            part = [index for index in asked if index in circle.members]
            one = Round(line, part, told, model, agreement, exact=self._exact)
            try:
                circle.begin(one, courier)
            except NoAttemptLeft as why:
                return why
            return None

        whys = self._side_by_side(begin, self._circles)
        self._outcomes = [Outcome(group, why=_within(why)) for group, why in enumerate(whys) if why is not None]
        if (last := whys[-1]) is not None and None not in whys:
            raise last
        # Not before all groups have their keys, which takes a while: time to answer runs from here.
        begun = (circle for circle, why in zip(self._circles, whys, strict=True) if why is None)
        return [message for circle in begun for message in circle.messages()]

    @property
    def fewest(self) -> int:
        """Silos without whose answers the attempts under way come to nothing."""
        least = sorted(circle.fewest for circle in self._circles if circle.fewest)
        # Whatever alarms there will be: of f bad groups all may be found out, and one good one is left.
        return sum(least if self._rule is None else least[: self._rule.byzantine + 1])

    @property
    def kept(self) -> Arrays:
        """What the server has to remember once a round was lost."""
        return self._setbacks.kept

    def announce(self, model: Arrays) -> dict[str, Any]:
        """Say how large distributed noise will be, and return what the journal begins with; see `distributed`."""
        return announce(self.agreement(model))

    def agreement(self, model: Arrays) -> Agreement:
        """Return what server and silos work out alike for this model, in the first group if there are several.

        Raises
        ------
        RunFailed
            If it cannot be summed.
        """
        return self._agreement(self._terms, model)

    def _agreement(self, terms: Terms, model: Arrays) -> Agreement:
        try:
            return agreement_of(terms, model)
        except EncodingError as error:
            wide = "; aggregation.bits=null takes as many as it needs" if terms.noise and terms.bits else ""
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
        if self._rule is None:
            return self._one_sum(self._circles[0], replies, beside, memory)
        return self._of_groups(self._rule, list(replies), beside, memory)

    def _one_sum(
        self, circle: Circle, replies: Iterable[Message], beside: Beside, memory: Mapping[str, np.ndarray]
    ) -> Collected:
        number = 0 if circle.round is None else circle.round.line.round
        circle.take(replies)
        try:
            silos, total = circle.finish(beside)
        except NeverOpens as why:
            raise self._setbacks.lost(number, str(why), why.found) from why
        one = circle.begun
        beside.opened(silos)
        self._setbacks.hold(one, total, len(silos), circle.learn())
        try:
            found = collected(one.agreement, total, silos, memory)
        except EncodingError as error:
            raise RunFailed(f"Round {number} failed: {error}.") from error
        found.kept.update(self.kept if SETBACKS in memory else {})
        self._chain.opened(total, one.agreement, len(silos))
        one.clamped = found.metrics.pop(contract.CLAMPED, 0.0)
        return found

    def _of_groups(
        self, rule: Rule, replies: list[Message], beside: Beside, memory: Mapping[str, np.ndarray]
    ) -> Collected:
        """Finish all groups, and combine what they come to."""
        number, given_up = self._circles[0].begun.line.round, {one.group for one in self._outcomes}
        going_on = [(at, circle) for at, circle in enumerate(self._circles) if at not in given_up]
        for _, circle in going_on:
            circle.take(replies)

        def finish(about: tuple[int, Circle]) -> bool:
            at, circle = about
            try:
                silos, total = circle.finish(beside)
            except (NeverOpens, NoAttemptLeft) as why:
                self._outcomes.append(Outcome(at, why=_within(why)))
                return isinstance(why, NeverOpens) and why.found
            self._outcomes.append(outcome_of(circle.begun.agreement, at, silos, total))
            return circle.learn()

        found_out = any(self._side_by_side(finish, going_on))
        self._outcomes.sort(key=lambda one: one.group)
        for one in self._outcomes:
            if one.mean is None:
                LOG.warning("Round %d goes on without group %d: %s.", number, one.group + 1, one.why)
        in_a_sum = {silo for one in self._outcomes for silo in one.silos}
        beside.opened([name for name in self._names.values() if name in in_a_sum])
        if why_not := lacking(rule, self._outcomes):
            raise self._setbacks.lost(number, why_not, found_out, "no round of this run has moved its model")
        self._setbacks.moved()
        mean, metrics = combined(rule, self._outcomes)
        self._circles[0].begun.clamped = metrics.pop(contract.CLAMPED, 0.0)
        used = [silo for one in self._outcomes if one.mean is not None for silo in one.silos]
        return Collected(mean, metrics, used, dict(self.kept) if SETBACKS in memory else {})

    def _side_by_side(self, step: Callable[[S], T], circles: Sequence[S]) -> list[T]:
        """Take a step with every circle: while one waits for its silos, others go on."""
        if self._turns is None or len(circles) == 1:
            return [step(one) for one in circles]
        return self._turns.side_by_side([partial(step, one) for one in circles])

    def tell(self, report: RoundReport, failed: bool = False) -> None:
        """Put into a round's report how it went: stages, dropouts, bytes, seconds, blame, of every attempt."""
        # A run can end before every group has begun the round: what others have of the round before is told already.
        circles = [one for one in self._circles if one.round is not None and one.round.line.round == report.round]
        if not circles:
            return
        rounds = [circle.begun for circle in circles]
        self._transcripts.seal([log for one in rounds for log in one.attempts], failed)
        about = {"members": len(self._members.members), "colluders": self._terms.colluders}
        made = {"session": max(circle.sessions.made_in for circle in circles)}
        asked = {index for circle in circles for index in circle.expected}
        tell(rounds, report, self._names, asked, **about, **made, **self._bound.about(), **self._told())

    def _told(self) -> dict[str, Any]:
        """Return what the journal says of the groups of a round; nothing where all silos are summed together."""
        if self._rule is None:
            return {}
        return {"groups": [one.as_dict() for one in self._outcomes]}


def _circle(common: Common, terms: Terms, members: tuple[int, ...]) -> Circle:
    try:
        return Circle(common, terms, members)
    except CohortTooSmall as error:
        of = "" if terms.group is None else f" in group {terms.group + 1}"
        raise RunFailed(f"The members of the roster cannot be summed under masks{of}: {error}") from error


def _within(why: Exception) -> str:
    """Return why a group came to nothing, as a clause."""
    return why.clause if isinstance(why, NoAttemptLeft) else str(why).rstrip(".")
