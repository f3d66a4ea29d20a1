"""The round core, pure: a state and the silos' updates in, the next state out.

A strategy is an :class:`Algorithm` (what silos are told, how the mean update moves the model) put together with an
:class:`Aggregator` (how updates become one mean). Neither knows of Flower, of files or of clocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

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
        What the algorithm remembers beside the model (moments of a server optimiser); float64.
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


class Aggregator(Protocol):
    """How the updates of a cohort become one mean update."""

    def mean(self, updates: Sequence[Update]) -> Arrays:
        """Return the mean update in float64. ``updates`` are in roster order and not empty."""


def advance(
    state: RoundState, updates: Sequence[Update], algorithm: Algorithm, aggregator: Aggregator, share: float = 1.0
) -> RoundState:
    """Complete one round.

    Parameters
    ----------
    state : RoundState
    updates : sequence of Update
        In roster order, so that floating-point sums do not depend on who answered first. Not empty.
    algorithm : Algorithm
    aggregator : Aggregator
    share : float
        Share of all silos of the run that replied, in (0, 1].

    Returns
    -------
    RoundState
        With ``round`` one higher.
    """
    if algorithm.uniform:
        updates = [Update(update.silo, update.arrays, 1.0) for update in updates]
    return algorithm.step(state, aggregator.mean(updates), share)
