"""How large the noise of a run will be beside its signal: told before the run starts, from public numbers alone.

The largest signal there can be is one at the clip, the same in every round: every silo's update at the clip and all of
them aligned, or every record's gradient. Real signals are smaller. The noise of a round is beside it by its L2 norm,
``z sqrt(surplus d) / units``. Over a run signals add up and noise does so in squares only, so that the run's figure is
that of a round over the square root of the rounds. As z grows with that square root too, fewer rounds barely help:
more silos, a smaller model or a larger epsilon do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from quire.privacy.dp.distributed import SharedNoise

#: From here on the noise is said to drown the signal: over the whole run its norm is a quarter of the largest signal.
DROWNING = 0.25


@dataclass(frozen=True)
class Forecast:
    """Noise beside signal, with all parties surviving.

    Attributes
    ----------
    coordinate : float
        Standard deviation of the noise on a coordinate of one round's mean, over the clip.
    step : float
        Norm of the noise on one round's mean over the clip, the norm of the largest signal.
    run : float
        The same over the whole run: ``step / sqrt(rounds)``.
    parties, dimension, rounds : int
        What it was reckoned for.
    parties_needed : int
        Parties with which ``run`` would be ``DROWNING``, of which as large a part must survive and may collude; record
        unit: with as many records each.
    dimension_needed : int
        Parameters with which it would be; 0 if one is too many.
    """

    coordinate: float
    step: float
    run: float
    parties: int
    dimension: int
    rounds: int
    parties_needed: int
    dimension_needed: int

    @property
    def drowned(self) -> bool:
        """Whether the noise will drown the signal."""
        return self.run > DROWNING


def forecast(noise: SharedNoise, dimension: int) -> Forecast:
    """Say how large the noise will be for a model of so many parameters."""
    coordinate = noise.noise() / noise.clip
    step = coordinate * math.sqrt(dimension)
    run = step / math.sqrt(noise.rounds)
    return Forecast(
        coordinate,
        step,
        run,
        noise.parties,
        dimension,
        noise.rounds,
        math.ceil(noise.parties * run / DROWNING),
        math.floor(dimension * (DROWNING / run) ** 2) if run else dimension,
    )
