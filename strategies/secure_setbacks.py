"""Rounds that come to no step: their sum does not open, or it does and honest silos cannot have come to it.

The second is the aggregate-norm alarm. A sum names nobody, so nobody is left out because of it: the model stays as it
is, and the next round asks all again. Both kinds are counted alike, and end the run when they go on and on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from quire.errors import RunFailed
from quire.privacy.dp.plausible import BeyondHonest
from quire.privacy.dp.rounding import EncodingError
from quire.privacy.secagg.masks import Words
from quire.strategies.distributed import SETBACKS
from quire.strategies.rounds import Arrays
from quire.strategies.secure_round import Round, RoundLost

LOG = logging.getLogger("quire.strategies")


class Setbacks:
    """How often in a row the rounds of one run came to nothing.

    Parameters
    ----------
    attempts : int
        So many rounds in a row that were lost, and told of nobody to go on without, end the run.
    rounds : int
        Of the run: the last one may not be lost if none before it moved the model.
    """

    def __init__(self, attempts: int, rounds: int) -> None:
        self._attempts, self._rounds = attempts, rounds
        self._moved: bool | None = None  # whether a sum of the run was taken; None before the first round
        self._in_vain = 0

    def begin(self, number: int, memory: Mapping[str, np.ndarray]) -> None:
        """Learn which round begins, and of a run that is resumed what the rounds before it came to.

        Parameters
        ----------
        number : int
            The round's.
        memory : mapping of str to numpy.ndarray
            What the server remembers; see :attr:`kept`.
        """
        if self._moved is None:
            told = memory.get(SETBACKS)
            self._in_vain, self._moved = (0, number > 1) if told is None else (int(told[0]), bool(told[1]))

    @property
    def kept(self) -> Arrays:
        """What the server has to remember, once a round of the run was lost."""
        return {SETBACKS: np.array([self._in_vain, bool(self._moved)], dtype=np.int64)}

    def lost(self, number: int, text: str, found: bool, none: str = "no sum of this run was opened") -> Exception:
        """Count a round that was lost, and return what to raise.

        Parameters
        ----------
        number : int
            The round's.
        text : str
            Why, as a clause.
        found : bool
            Whether it told of somebody to go on without.
        none : str
            What is said where no round of the run came to a step.

        Returns
        -------
        RoundLost or RunFailed
        """
        self._in_vain = 0 if found else self._in_vain + 1
        if self._in_vain >= self._attempts:
            return RunFailed(f"Round {number} failed: {text}; {self._in_vain} rounds in a row were lost.")
        if number >= self._rounds and not self._moved:
            return RunFailed(f"Round {number} failed: {text}; {none}.")
        LOG.warning("Round %d is lost: %s.", number, text)
        return RoundLost(f"{text}.")

    def hold(self, one: Round, total: Words, silos: int, found: bool) -> None:
        """Hold an opened sum against what honest silos can come to, before anything moves by it.

        Parameters
        ----------
        one : Round
            Learns how far the sum reaches, and whether it is rejected.
        total : numpy.ndarray of uint32
        silos : int
            How many there are in it.
        found : bool
            See :meth:`lost`.

        Raises
        ------
        RoundLost
            If it is beyond: the model stays as it is, and the run goes on.
        RunFailed
            If that goes on and on, or all silos add nothing.
        """
        number = one.line.round
        try:
            one.reach = one.agreement.check(total, silos)
        except BeyondHonest as error:
            one.rejected = True
            text = f"its sum was opened and rejected, because {error}; a sum does not tell who"
            raise self.lost(number, text, found, "no round of this run has moved its model") from error
        except EncodingError as error:
            raise RunFailed(f"Round {number} failed: {error}.") from error
        self.moved()

    def moved(self) -> None:
        """Learn that a round came to a step."""
        self._moved, self._in_vain = True, 0
