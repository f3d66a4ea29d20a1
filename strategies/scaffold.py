"""SCAFFOLD (Karimireddy et al. 2020, arXiv 1910.06378) as a Flower strategy."""

from __future__ import annotations

from typing import Any

from quire.strategies.aggregators import PlainMean
from quire.strategies.algorithms import Controlled
from quire.strategies.rounds import Aggregator
from quire.strategies.strategy import FederatedStrategy


class Scaffold(FederatedStrategy):
    """Corrects the drift of unlike silos by control variates; all silos count alike.

    The server's variate is sent in a record ``told``, by parameter name. A silo adds it, minus its own, to its
    gradients, and replies with a record ``update`` that holds new model minus global model and, under
    ``control/NAME``, the change of its own variate, which it keeps. :mod:`quire.clients.local` shows how.

    Parameters
    ----------
    server_lr : float
        Step along the mean update.
    aggregator : Aggregator, optional
        How updates become one mean; weights are equal.
    **options
        Of :class:`~quire.strategies.strategy.FederatedStrategy`: fractions, ``min_silos``, ``seed``.
    """

    def __init__(self, *, server_lr: float = 1.0, aggregator: Aggregator | None = None, **options: Any) -> None:
        super().__init__(Controlled(server_lr), aggregator or PlainMean(), **options)
