"""q-FedAvg (Li et al. 2020, arXiv 1905.10497) as a Flower strategy."""

from __future__ import annotations

from typing import Any

from quire.strategies.aggregators import PlainMean
from quire.strategies.algorithms import Reweighted
from quire.strategies.rounds import Aggregator
from quire.strategies.strategy import FederatedStrategy


class QFedAvg(FederatedStrategy):
    """Federated averaging in which a silo counts for more, the worse the model serves it.

    Silos are told ``fair-q`` in the config. A silo replies with a record ``update`` that holds F^q times its update
    and, under ``fair/divisor``, a float64 scalar: F^q + q F^(q-1) L |update|^2, with its loss F at the global model.
    :mod:`quire.clients.local` shows how.

    Parameters
    ----------
    q : float
        0 is FedAvg.
    lipschitz : float, optional
        The paper's L. Silos of Quire have it from the settings; 1 over their learning rate if it is None.
    server_lr : float
        Step along the update; 1 is the paper's.
    aggregator : Aggregator, optional
        How updates become one mean; by default weighted by rows.
    **options
        Of :class:`~quire.strategies.strategy.FederatedStrategy`: fractions, ``min_silos``, ``seed``.
    """

    def __init__(
        self,
        *,
        q: float = 1.0,
        lipschitz: float | None = None,
        server_lr: float = 1.0,
        aggregator: Aggregator | None = None,
        **options: Any,
    ) -> None:
        super().__init__(Reweighted(server_lr, q), aggregator or PlainMean(), **options)
        self.lipschitz = lipschitz
