"""FedAvg (McMahan et al. 2017, arXiv 1602.05629) as a Flower strategy."""

from __future__ import annotations

from typing import Any

from quire.strategies.aggregators import PlainMean
from quire.strategies.algorithms import Averaging
from quire.strategies.rounds import Aggregator
from quire.strategies.strategy import FederatedStrategy


class FedAvg(FederatedStrategy):
    """Federated averaging.

    Parameters
    ----------
    server_lr : float
        Step along the mean update; 1 averages the silos' models.
    aggregator : Aggregator, optional
        How updates become one mean; by default weighted by rows.
    **options
        Of :class:`~quire.strategies.strategy.FederatedStrategy`: fractions, ``min_silos``, ``seed``.
    """

    def __init__(self, *, server_lr: float = 1.0, aggregator: Aggregator | None = None, **options: Any) -> None:
        super().__init__(Averaging(server_lr), aggregator or PlainMean(), **options)
