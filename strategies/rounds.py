"""The round core, pure: a state and the silos' updates in, the next state out.

A strategy is an :class:`Algorithm` (what silos are told, how the mean update moves the model) put together with an
:class:`Aggregator` (how updates become one mean). Neither knows of Flower, of files or of clocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from quire.errors import RunFailed

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class RoundState:
    """What the server carries from round to round.

    Attributes
    ----------
    round : int
        Rounds completed.
    model : dict of str to numpy.ndarray
        The global model, in the dtype that silos train in.
    memory : dict of str to numpy.ndarray
        What algorithm and aggregator remember beside the model (moments of a server optimiser, a clip that moves);
        float64.
    """

    round: int
    model: Arrays
    memory: Arrays = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Update:
    """One silo's validated reply: its new model minus the global one, and its weight in the mean."""

    silo: str
    arrays: Arrays
    weight: float


class Algorithm:
    """What silos are told in a round, and how the mean of their updates moves the model.

    A subclass has to say how the model moves, in :meth:`step`; the rest has the defaults of FedAvg.
    """

    #: True where silos keep something from round to round that the next round needs.
    silos_remember: ClassVar[bool] = False
    #: True where every silo counts alike in the mean, whatever its number of rows.
    uniform: ClassVar[bool] = False
    #: What it remembers from round to round: for each of these, ``MOMENT/NAME`` for every array of the model.
    moments: ClassVar[tuple[str, ...]] = ()

    def client_config(self) -> Mapping[str, float | int]:
        """Return what a message tells the silos, beside model and round."""
        return {}

    def told(self, state: RoundState) -> Arrays:
        """Return arrays that are sent along with the model."""
        return {}

    def reply_form(self, model: Arrays) -> Arrays:
        """Return arrays with the names, shapes and dtypes that every update must have."""
        return model

    def objection(self, update: Arrays) -> str | None:
        """Say in words why an update of the right form cannot be, or None."""
        return None

    def step(self, state: RoundState, mean: Arrays, share: float) -> RoundState:
        """Move the model by the mean update and count the round.

        Parameters
        ----------
        state : RoundState
        mean : dict of str to numpy.ndarray of float64
            Mean of the updates, of the form of :meth:`reply_form`.
        share : float
            Share of all silos of the run that the mean is taken over, in (0, 1].
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Cohort:
    """Who was asked to train in a round, whatever came back.

    Attributes
    ----------
    round : int
    silos : tuple of str
        In roster order.
    records : mapping of str to int
        The public number of records that each silo's operator declares; empty where they declare none.
    """

    round: int
    silos: tuple[str, ...]
    records: Mapping[str, int] = field(default_factory=dict)


class Fold(Protocol):
    """Takes updates in one by one, in roster order, and keeps none of them for long."""

    def add(self, update: Update) -> None:
        """Take the next silo's update in."""

    def mean(self) -> Arrays:
        """Return the mean of all that were taken in, in float64."""


class Told(Protocol):
    """What an aggregator adds to the report of a round."""

    released: dict[str, float]
    byzantine: dict[str, int]
    suspicion: dict[str, dict[str, Any]]


class Aggregator:
    """How the updates of a cohort become one mean update."""

    def at(self, state: RoundState) -> Aggregator:
        """Return the aggregator as it stands in the round that follows a state; a fixed one always is itself."""
        return self

    def without(self, exposed: int) -> Aggregator:
        """Return the aggregator for a round in which so many silos showed that they are not honest, and are left out.

        What counts is an answer that honest code does not send. A silo that does not answer may be honest.
        """
        return self

    def client_config(self, cohort: Cohort) -> Mapping[str, float | int]:
        """Return what a message tells the cohort, beside what the algorithm does.

        Raises
        ------
        RunFailed
            If such a cohort cannot be aggregated, so that nobody is asked in vain.
        """
        return {}

    def reply_form(self, form: Arrays) -> Arrays:
        """Return arrays with the form that every update must have, given what the algorithm needs of it."""
        return form

    def objection(self, update: Arrays) -> str | None:
        """Say in words why an update of the right form cannot be taken into the mean, or None."""
        return None

    def mean(self, updates: Sequence[Update], cohort: Cohort) -> Arrays:
        """Return the mean update in float64, for the algorithm. ``updates`` are in roster order and not empty."""
        raise NotImplementedError

    def fold(self) -> Fold | None:
        """Return what can take a cohort's updates in as they come, to the same bits as :meth:`mean`; None if all of
        them have to be there at once.
        """
        return None

    def combine(self, updates: Sequence[Update], cohort: Cohort) -> tuple[Arrays, Arrays]:
        """Return the mean update, and what the aggregator itself remembers until the next round."""
        return self.mean(updates, cohort), {}

    def released(self, memory: Arrays) -> dict[str, float]:
        """Return, for the journal, the numbers that a round released beside the model.

        Parameters
        ----------
        memory : dict of str to numpy.ndarray
            That of the state after the round.
        """
        return {}

    def tell(self, report: Told, memory: Arrays) -> None:
        """Add to the report of a round what is to be known of it.

        Parameters
        ----------
        report : Told
        memory : dict of str to numpy.ndarray
            That of the state after the round.
        """
        report.released = self.released(memory)


def weighed(update: Update, algorithm: Algorithm) -> Update:
    """Return an update with the weight that it has under an algorithm."""
    return Update(update.silo, update.arrays, 1.0) if algorithm.uniform else update


def advance(
    state: RoundState,
    updates: Sequence[Update],
    algorithm: Algorithm,
    aggregator: Aggregator,
    share: float = 1.0,
    cohort: Cohort | None = None,
    fold: Fold | None = None,
) -> RoundState:
    """Complete one round.

    Parameters
    ----------
    state : RoundState
    updates : sequence of Update
        In roster order, so that floating-point sums do not depend on who answered first. Not empty.
    algorithm : Algorithm
    aggregator : Aggregator
        As it stands in this round, see :meth:`Aggregator.at`.
    share : float
        Share of all silos of the run that replied, in (0, 1].
    cohort : Cohort, optional
        Who was asked; by default those who replied.
    fold : Fold, optional
        What has taken in all of the updates by now, by :func:`weighed`: they need no longer hold their arrays.

    Returns
    -------
    RoundState
        With ``round`` one higher.
    """
    cohort = cohort or Cohort(state.round + 1, tuple(update.silo for update in updates))
    if fold is not None:
        return algorithm.step(state, fold.mean(), share)
    mean, kept = aggregator.combine([weighed(update, algorithm) for update in updates], cohort)
    after = algorithm.step(state, mean, share)
    return RoundState(after.round, after.model, {**after.memory, **kept}) if kept else after


def checked(state: RoundState, updates: int) -> RoundState:
    """Return a state whose model is finite.

    To be asked before anybody is told of the state, so that the last good one stays the last.

    Parameters
    ----------
    state : RoundState
    updates : int
        Whose mean moved the model there.

    Raises
    ------
    RunFailed
        If it is not.
    """
    if all(np.isfinite(array).all() for array in state.model.values()):
        return state
    raise RunFailed(
        f"Round {state.round} failed: the mean of {updates} finite updates moves the model to values that "
        "are not finite; one of the silos sends updates beyond all measure."
    )
