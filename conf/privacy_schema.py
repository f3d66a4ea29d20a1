"""The settings of privacy and aggregation: who is protected from whom, and how updates become one mean."""

# No `from __future__ import annotations` here: the types are read at run time, and must not need an eval.
from dataclasses import dataclass

from quire.conf.setting import setting


@dataclass(frozen=True)
class NoPrivacy:
    """Updates leave the silo as they are: the server sees each of them."""

    name: str


@dataclass(frozen=True)
class RecordPrivacy:
    """DP-SGD in every silo: (epsilon, delta) for each record, calibrated by each silo for itself."""

    name: str
    epsilon: float = setting("budget of the whole run; inf clips without noise and claims nothing", gt=0.0, inf=True)
    delta: float | None = setting("null: min(1e-5, 1/(10 N)), N the silo's public number of records", gt=0.0, lt=1.0)
    clip: float = setting("L2 norm that the gradient of one record is clipped to", gt=0.0, le=1e9)
    noise: str = setting(
        "discrete: exact integer noise, no floating-point leak; gaussian: floats, as Opacus adds them",
        choices=("discrete", "gaussian"),
    )
    gradients: str = setting(
        "how gradients are clipped one by one: Opacus' hooks, ghost clipping, or ghost where the model allows",
        choices=("auto", "hooks", "ghost"),
    )


@dataclass(frozen=True)
class SiloPrivacy:
    """One silo's whole update is the unit: clipped by the silo, noise added once, by a server that is trusted."""

    name: str
    epsilon: float = setting("budget of the whole run; inf clips without noise and claims nothing", gt=0.0, inf=True)
    delta: float | None = setting("has to be given: below 1/number of silos says little for few silos", gt=0.0, lt=1.0)
    clip: float = setting("L2 norm that a silo's update is clipped to (where adaptive begins)", gt=0.0, le=1e9)
    clipping: str = setting("a fixed clip, or one that follows the updates' norms", choices=("fixed", "adaptive"))
    quantile: float = setting("clipping=adaptive: share of the updates that should not be clipped", gt=0.0, lt=1.0)
    weights: str = setting("how silos count: alike, or by public records up to a cap", choices=("uniform", "capped"))
    cap: int = setting("weights=capped: records beyond which a silo counts no more", ge=1, le=1_000_000_000)


@dataclass(frozen=True)
class PlainAggregation:
    """The server averages the updates that it sees, in float64 and in roster order."""

    name: str
