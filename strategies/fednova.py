"""FedNova (Wang et al. 2020, arXiv 2007.07481) as a Flower strategy."""

from __future__ import annotations

from typing import Any

from quire.strategies.aggregators import PlainMean
from quire.strategies.algorithms import Normalised
from quire.strategies.rounds import Aggregator
from quire.strategies.strategy import FederatedStrategy


class FedNova(FederatedStrategy):
    """Averages updates that each silo has divided by the length of its own course.

    A silo replies with a record ``update`` (new model minus global model, divided by its number of SGD steps) that
    also holds this number as ``nova/steps``, a float64 scalar. Quire's silos do; :mod:`quire.clients.local` shows how.

    Parameters
    ----------
    server_lr : float
        Step along the mean update.
    aggregator : Aggregator, optional
        How updates become one mean; by default weighted by rows.
    **options
        Of :class:`~quire.strategies.strategy.FederatedStrategy`: fractions, ``min_silos``, ``seed``.
    """

    def __init__(self, *, server_lr: float = 1.0, aggregator: Aggregator | None = None, **options: Any) -> None:
        super().__init__(Normalised(server_lr), aggregator or PlainMean(), **options)
