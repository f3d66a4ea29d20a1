"""Server optimisers as Flower strategies: FedAvgM, FedAdagrad, FedAdam, FedYogi."""

from __future__ import annotations

from typing import Any

from quire.strategies.aggregators import PlainMean
from quire.strategies.rounds import Aggregator, Algorithm
from quire.strategies.server_optimizers import Adagrad, Adam, Adaptive, Momentum, Yogi
from quire.strategies.strategy import FederatedStrategy


class _ServerOptimizer(FederatedStrategy):
    def __init__(self, algorithm: Algorithm, aggregator: Aggregator | None, options: dict[str, Any]) -> None:
        super().__init__(algorithm, aggregator or PlainMean(), **options)


class FedAvgM(_ServerOptimizer):
    """FedAvg with server momentum (Hsu et al. 2019, arXiv 1909.06335, section 4.3).

    Parameters
    ----------
    server_lr : float
        Step of the server.
    momentum : float
        How much of the last step is kept, in [0, 1).
    aggregator : Aggregator, optional
        How updates become one mean; by default weighted by rows.
    **options
        Of :class:`~quire.strategies.strategy.FederatedStrategy`: fractions, ``min_silos``, ``seed``.
    """

    def __init__(
        self, *, server_lr: float = 1.0, momentum: float = 0.9, aggregator: Aggregator | None = None, **options: Any
    ) -> None:
        super().__init__(Momentum(server_lr, momentum), aggregator, options)


class FedAdagrad(_ServerOptimizer):
    """FedAdagrad (Reddi et al. 2021, arXiv 2003.00295, algorithm 2); parameters as for :class:`FedAdam`."""

    def __init__(
        self, *, server_lr: float = 0.1, tau: float = 1e-3, aggregator: Aggregator | None = None, **options: Any
    ) -> None:
        super().__init__(Adagrad(server_lr=server_lr, tau=tau), aggregator, options)


class FedAdam(_ServerOptimizer):
    """FedAdam (Reddi et al. 2021, arXiv 2003.00295, algorithm 2).

    Parameters
    ----------
    server_lr : float
        Step of the server.
    beta_1, beta_2 : float
        How slowly the first and the second moment forget, in [0, 1).
    tau : float
        Degree of adaptivity.
    aggregator : Aggregator, optional
        How updates become one mean; by default weighted by rows.
    **options
        Of :class:`~quire.strategies.strategy.FederatedStrategy`: fractions, ``min_silos``, ``seed``.
    """

    _adaptive: type[Adaptive] = Adam

    def __init__(
        self,
        *,
        server_lr: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        tau: float = 1e-3,
        aggregator: Aggregator | None = None,
        **options: Any,
    ) -> None:
        super().__init__(self._adaptive(server_lr, beta_1, beta_2, tau), aggregator, options)


class FedYogi(FedAdam):
    """FedYogi (Reddi et al. 2021, arXiv 2003.00295, algorithm 2); parameters as for :class:`FedAdam`."""

    _adaptive = Yogi
