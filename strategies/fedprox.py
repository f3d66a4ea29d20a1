"""FedProx (Li et al. 2020, arXiv 1812.06127) as a Flower strategy."""

from __future__ import annotations

from typing import Any

from quire.strategies.aggregators import PlainMean
from quire.strategies.algorithms import Proximal
from quire.strategies.rounds import Aggregator
from quire.strategies.strategy import FederatedStrategy


class FedProx(FederatedStrategy):
    """FedAvg whose silos add a proximal term mu/2 * |w - w_global|^2 to their loss.

    The term is the silo's to apply: the server sends ``proximal-mu``, as Flower's own FedProx does. Quire's silos
    read mu from the run's settings instead, which they check themselves.

    Parameters
    ----------
    mu : float
        Weight of the proximal term, at least 0.
    server_lr : float
        Step along the mean update; 1 averages the silos' models.
    aggregator : Aggregator, optional
        How updates become one mean; by default weighted by rows.
    **options
        Of :class:`~quire.strategies.strategy.FederatedStrategy`: fractions, ``min_silos``, ``seed``.
    """

    def __init__(
        self, *, mu: float, server_lr: float = 1.0, aggregator: Aggregator | None = None, **options: Any
    ) -> None:
        if mu < 0.0:
            raise ValueError("mu must be at least 0")
        super().__init__(Proximal(server_lr, mu), aggregator or PlainMean(), **options)
