"""An aggregator that watches: it scores every update, and leaves those of silos in quarantine out of another's mean.

What it knows of each silo lies in the state's memory, so that a run that goes on from a checkpoint goes on the same.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from quire.conf.attack_rules import FEWEST_COMPARED
from quire.errors import RunFailed
from quire.strategies.robust.aggregators import too_large
from quire.strategies.rounds import Aggregator, Arrays, Cohort, RoundState, Told, Update
from quire.strategies.suspicion.evidence import Event, Rule, Standing, grown, settled
from quire.strategies.suspicion.scores import Score, scored

LOG = logging.getLogger("quire.strategies")

_MEMORY = "suspicion/"


class Ballot(Protocol):
    """Lets silos vote on whether an update does harm."""

    def harmless(
        self, state: RoundState, cohort: Cohort, base: Arrays, means: Mapping[str, Arrays], voters: Collection[str]
    ) -> dict[str, str]:
        """Return, for each silo that the others cleared, how they voted, in words.

        Parameters
        ----------
        state : RoundState
            Before the round.
        cohort : Cohort
        base : dict of str to numpy.ndarray
            The mean without any of the suspects.
        means : mapping of str to dict of str to numpy.ndarray
            For each suspect the mean with it.
        voters : collection of str
        """


@dataclass(eq=False)
class Watched(Aggregator):
    """Scores updates, and takes the mean of those that are trusted.

    Attributes
    ----------
    inner : Aggregator
        Whose mean is taken.
    rule : Rule
    min_silos : int
        Fewest updates of which a mean is taken.
    vote : bool
        Whether the other silos are asked before one is left out.
    ballot : Ballot or None
        Asks them.
    """

    inner: Aggregator
    rule: Rule
    min_silos: int = 1
    vote: bool = False
    ballot: Ballot | None = field(default=None, repr=False)
    _state: RoundState | None = field(default=None, repr=False)
    _about: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False)

    def at(self, state: RoundState) -> Watched:
        """Return it as it stands in the round that follows a state."""
        return replace(self, inner=self.inner.at(state), _state=state, _about={})

    def without(self, exposed: int) -> Watched:
        """Return it with the aggregator inside as that stands then."""
        return replace(self, inner=self.inner.without(exposed))

    def client_config(self, cohort: Cohort) -> Mapping[str, float | int]:
        """Return what the aggregator inside does."""
        return self.inner.client_config(cohort)

    def reply_form(self, form: Arrays) -> Arrays:
        """Return what the aggregator inside does."""
        return self.inner.reply_form(form)

    def objection(self, update: Arrays) -> str | None:
        """Refuse what the aggregator inside does, and numbers whose squares are beyond float64."""
        return self.inner.objection(update) or too_large(update)

    def mean(self, updates: Sequence[Update], cohort: Cohort) -> Arrays:
        """Return the mean of those that are trusted, float64."""
        return self.combine(updates, cohort)[0]

    def released(self, memory: Arrays) -> dict[str, float]:
        """Return what the aggregator inside does."""
        return self.inner.released(memory)

    def tell(self, report: Told, memory: Arrays) -> None:
        """Add to the report how each silo was scored, and whether it is in the mean."""
        self.inner.tell(report, memory)
        report.suspicion = self._about

    def combine(self, updates: Sequence[Update], cohort: Cohort) -> tuple[Arrays, Arrays]:
        """Return the mean of those that are trusted, and how every silo stands.

        Raises
        ------
        RunFailed
            If fewer are left than a mean needs.
        """
        before = self._standings()
        standings = {update.silo: before.get(update.silo, Standing()) for update in updates}
        scores = self._scores(updates, standings)
        standings |= {silo: grown(standings[silo], score.z, self.rule) for silo, score in scores.items()}
        votes = self._votes(updates, standings, cohort)
        events: dict[str, Event] = {}
        room = self._room(standings)
        for silo in sorted(
            standings, key=lambda one: -standings[one].evidence
        ):  # the worst first; ties in roster order
            standings[silo], event = settled(standings[silo], cohort.round, self.rule, room > 0, silo in votes)
            room -= event is Event.QUARANTINED
            events[silo] = event
        trusted = [update for update in updates if not standings[update.silo].since]
        if len(trusted) < self.min_silos:
            raise RunFailed(
                f"Round {cohort.round} failed: {len(updates) - len(trusted)} of {len(updates)} silos that answered are "
                f"in quarantine, and {self.min_silos} are needed outside it."
            )
        self._tell(cohort.round, scores, standings, events, votes)
        mean, kept = self.inner.combine(trusted, cohort)
        known = {**before, **standings}
        return mean, {**kept, **{_MEMORY + silo: _packed(one) for silo, one in known.items()}}

    def _standings(self) -> dict[str, Standing]:
        memory = self._state.memory if self._state is not None else {}
        return {
            name.removeprefix(_MEMORY): Standing(float(packed[0]), int(packed[1]), int(packed[2]), int(packed[3]))
            for name, packed in memory.items()
            if name.startswith(_MEMORY)
        }

    def _scores(self, updates: Sequence[Update], standings: Mapping[str, Standing]) -> dict[str, Score]:
        compared = [not standings[update.silo].since for update in updates]
        if sum(compared) < FEWEST_COMPARED:
            return {}
        found = scored([update.arrays for update in updates], compared, self.rule.allowance)
        return {update.silo: score for update, score in zip(updates, found, strict=True)}

    def _room(self, standings: Mapping[str, Standing]) -> int:
        """Return how many more may be left out: always fewer than half, and never more than a mean can do without."""
        inside = sum(one.since > 0 and not self.rule.over(one) for one in standings.values())
        fewest = max(self.min_silos, int(getattr(self.inner, "fewest", 1)))
        return min((len(standings) - 1) // 2, len(standings) - fewest) - inside

    def _votes(self, updates: Sequence[Update], standings: Mapping[str, Standing], cohort: Cohort) -> dict[str, str]:
        """Ask the other silos about those that would be put into quarantine now."""
        outside = [update for update in updates if not standings[update.silo].since]
        suspects = [update for update in outside if standings[update.silo].evidence >= self.rule.bound]
        others = [update for update in outside if standings[update.silo].evidence < self.rule.bound]
        needed = max(1, int(getattr(self.inner, "fewest", 1)))
        if self.ballot is None or self._state is None or not suspects or len(others) < needed:
            return {}
        base = self.inner.mean(others, cohort)
        order = {update.silo: place for place, update in enumerate(updates)}
        means = {
            suspect.silo: self.inner.mean(sorted([*others, suspect], key=lambda one: order[one.silo]), cohort)
            for suspect in suspects
        }
        return self.ballot.harmless(self._state, cohort, base, means, [update.silo for update in others])

    def _tell(
        self,
        number: int,
        scores: Mapping[str, Score],
        standings: Mapping[str, Standing],
        events: Mapping[str, Event],
        votes: Mapping[str, str],
    ) -> None:
        for silo, standing in standings.items():
            score, event = scores.get(silo), events[silo]
            about: dict[str, Any] = {"evidence": standing.evidence, "in_mean": not standing.since}
            if score is not None:
                about |= {"norm": score.norm, "cosine": score.cosine}
                about |= {"size_z": score.size_z, "direction_z": score.direction_z}
            if standing.since:
                about["since"] = standing.since
            if event is not Event.NONE:
                about |= {"event": str(event), "reason": _reason(event, score, self.rule, votes.get(silo))}
                LOG.warning("Round %d: %s is %s: %s", number, silo, _SAID[event], about["reason"])
            self._about[silo] = about


_SAID = {
    Event.SUSPECTED: "suspected, and stays in the mean",
    Event.QUARANTINED: "left out of the mean from now on",
    Event.SPARED: "suspected, and stays in the mean",
    Event.CLEARED: "suspected, and stays in the mean",
    Event.READMITTED: "let into the mean again",
}


def _reason(event: Event, score: Score | None, rule: Rule, vote: str | None) -> str:
    if event is Event.READMITTED:
        return "its updates lay within the allowance for long enough"
    words = score.reason if score is not None else "its earlier updates lay apart"
    if event is Event.SPARED:
        return f"{words}; without it too few would be left, or no majority"
    return f"{words}; {vote}" if event is Event.CLEARED and vote else words


def _packed(standing: Standing) -> np.ndarray:
    return np.array([standing.evidence, float(standing.quiet), float(standing.since), float(standing.times)])
