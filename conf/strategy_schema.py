"""What can be set of strategies: one frozen dataclass for each option of the group ``strategy``."""

# No `from __future__ import annotations` here: the types are read at run time, and must not need an eval.
from dataclasses import dataclass

from quire.conf.setting import setting


@dataclass(frozen=True)
class FedAvgStrategy:
    """Federated averaging (McMahan et al. 2017, arXiv 1602.05629, algorithm 1)."""

    name: str
    rounds: int = setting("rounds of training", ge=1, le=1_000_000)
    fraction: float = setting("share of the silos asked to train in a round", gt=0.0, le=1.0)
    fraction_evaluate: float = setting("share of the silos asked to evaluate (0: none)", ge=0.0, le=1.0)
    evaluate_every: int = setting("evaluate after every so many rounds, and after the last", ge=1, le=1_000_000)
    min_silos: int = setting("a round with fewer good replies than this fails", ge=1, le=100_000)
    deadline: float = setting("seconds that the server waits for the replies of one exchange", gt=0.0, le=1e7)
    deadlines: tuple[str, ...] = setting(
        "seconds for single exchanges, as in [confirm:60]; to wait for approval: [approval:3600]", max_items=16
    )
    server_lr: float = setting("step that the server takes along the mean update", gt=0.0)


@dataclass(frozen=True)
class FedProxStrategy(FedAvgStrategy):
    """FedAvg with a proximal term in every silo (Li et al. 2020, arXiv 1812.06127, algorithm 2)."""

    mu: float = setting("weight of the proximal term mu/2 * |w - w_global|^2", ge=0.0)


@dataclass(frozen=True)
class FedAvgMStrategy(FedAvgStrategy):
    """FedAvg with server momentum (Hsu et al. 2019, arXiv 1909.06335, section 4.3)."""

    momentum: float = setting("how much of the server's last step is kept", ge=0.0, lt=1.0)


@dataclass(frozen=True)
class FedAdagradStrategy(FedAvgStrategy):
    """FedAdagrad (Reddi et al. 2021, arXiv 2003.00295, algorithm 2)."""

    tau: float = setting("degree of adaptivity: large means that all coordinates move alike", gt=0.0)


@dataclass(frozen=True)
class FedAdamStrategy(FedAdagradStrategy):
    """FedAdam (Reddi et al. 2021, arXiv 2003.00295, algorithm 2)."""

    beta_1: float = setting("how slowly the first moment forgets", ge=0.0, lt=1.0)
    beta_2: float = setting("how slowly the second moment forgets", ge=0.0, lt=1.0)


@dataclass(frozen=True)
class FedYogiStrategy(FedAdamStrategy):
    """FedYogi (Reddi et al. 2021, arXiv 2003.00295, algorithm 2)."""


@dataclass(frozen=True)
class FedNovaStrategy(FedAvgStrategy):
    """FedNova (Wang et al. 2020, arXiv 2007.07481): updates normalised by the silo's own number of steps."""


@dataclass(frozen=True)
class ScaffoldStrategy(FedAvgStrategy):
    """SCAFFOLD (Karimireddy et al. 2020, arXiv 1910.06378): control variates against the drift of unlike silos."""


@dataclass(frozen=True)
class QFedAvgStrategy(FedAvgStrategy):
    """q-FedAvg (Li et al. 2020, arXiv 1905.10497, algorithm 2): silos that the model serves badly count for more."""

    q: float = setting("how much more: 0 is FedAvg, and large means that the worst silo alone decides", ge=0.0, le=10.0)
    lipschitz: float | None = setting("the paper's L, of which a step is 1/L; null: 1 over training.lr", gt=0.0)
