"""The settings of privacy and aggregation: who is protected from whom, and how updates become one mean."""

# No `from __future__ import annotations` here: the types are read at run time, and must not need an eval.
from dataclasses import dataclass
from typing import ClassVar

from quire.conf.setting import setting

SELFTEST_HELP = (
    "rounds of a self-test of the noise in the place of the run: silos read no rows, and add nothing but their shares"
)


@dataclass(frozen=True)
class NoPrivacy:
    """Updates leave the silo as they are: the server sees each of them."""

    name: str


@dataclass(frozen=True)
class RecordPrivacy:
    """DP-SGD in every silo: (epsilon, delta) for each record, calibrated by each silo for itself."""

    name: str
    epsilon: float = setting("budget of the whole run, at most 44; inf clips without noise or claim", gt=0.0, inf=True)
    delta: float | None = setting("null: min(1e-5, 1/(10 N)), N the silo's public number of records", gt=0.0, lt=1.0)
    clip: float = setting("L2 norm that the gradient of one record is clipped to", ge=1e-6, le=1e6)
    noise: str = setting(
        "discrete: exact integer noise, no floating-point leak; gaussian: floats, as Opacus adds them",
        choices=("discrete", "gaussian"),
    )
    gradients: str = setting(
        "how gradients are clipped one by one: rows passed alone, Opacus' hooks, ghost clipping; auto: ghost or hooks",
        choices=("auto", "rows", "hooks", "ghost"),
    )


@dataclass(frozen=True)
class SiloPrivacy:
    """One silo's whole update is the unit: clipped by the silo, noise added once, by a server that is trusted."""

    name: str
    epsilon: float = setting("budget of the whole run, at most 44; inf clips without noise or claim", gt=0.0, inf=True)
    delta: float | None = setting("has to be given: below 1/number of silos says little for few silos", gt=0.0, lt=1.0)
    clip: float = setting("L2 norm that a silo's update is clipped to (where adaptive begins)", ge=1e-6, le=1e6)
    clipping: str = setting("a fixed clip, or one that follows the updates' norms", choices=("fixed", "adaptive"))
    quantile: float = setting("clipping=adaptive: share of the updates that should not be clipped", gt=0.0, lt=1.0)
    weights: str = setting("how silos count: alike, or by public records up to a cap", choices=("uniform", "capped"))
    cap: int = setting("weights=capped: records beyond which a silo counts no more", ge=1, le=1_000_000_000)


@dataclass(frozen=True)
class RecordDistributedPrivacy:
    """DP-FedSGD under the masks: each silo adds a share of the noise, and only the noisy sum is ever seen."""

    name: str
    epsilon: float = setting("budget of the whole run, at most 44; inf clips without noise or claim", gt=0.0, inf=True)
    delta: float | None = setting("null: min(1e-5, 1/(10 N)), N the silo's public number of records", gt=0.0, lt=1.0)
    clip: float = setting("L2 norm that the gradient of one record is clipped to", ge=1e-6, le=1e6)
    sampling_rate: float = setting(
        "probability of a record to be in a round's batch, the same at all silos", gt=0.0, le=1.0
    )
    records: int | None = setting(
        "declared records of all silos together; null: from the shipped data set (has to be given for data=files)",
        ge=2,
        le=1_000_000_000_000,
    )
    largest: int | None = setting(
        "declared records of the largest silo; null: from the shipped data set (has to be given for data=files)",
        ge=2,
        le=1_000_000_000_000,
    )
    gradients: str = setting(
        "how gradients are clipped one by one: rows passed alone (auto, rows); hooks and ghost pass rows together, "
        "and are refused, since silos do not trust the server that chooses the model",
        choices=("auto", "rows", "hooks", "ghost"),
    )
    selftest: int = setting(SELFTEST_HELP, ge=0, le=64)


@dataclass(frozen=True)
class SiloDistributedPrivacy:
    """One silo's whole update is the unit: each silo clips its own, and adds a share of the noise under the masks."""

    name: str
    epsilon: float = setting("budget of the whole run, at most 44; inf clips without noise or claim", gt=0.0, inf=True)
    delta: float | None = setting("has to be given: below 1/number of silos says little for few silos", gt=0.0, lt=1.0)
    clip: float = setting("L2 norm that a silo's update is clipped to", ge=1e-6, le=1e6)
    selftest: int = setting(SELFTEST_HELP, ge=0, le=64)


#: Noise that no single party adds.
DistributedPrivacy = RecordDistributedPrivacy | SiloDistributedPrivacy


@dataclass(frozen=True)
class PlainAggregation:
    """The server averages the updates that it sees, in float64 and in roster order."""

    #: What the server sees, which is what silos' policies and charters decide about: one of :data:`SEEN`.
    seen: ClassVar[str] = "plain"

    name: str


@dataclass(frozen=True)
class SecureAggregation:
    """Updates are summed under masks (SecAgg-Q): the server learns a sum over many silos, and of none its own part."""

    seen: ClassVar[str] = "secure"

    name: str
    colluders: int | None = setting(
        "members of the roster that may side with a lying server, with groups of each; null: a third of them, none of "
        "two or three (has to be given with groups)",
        ge=0,
        le=2000,
    )
    bits: int | None = setting(
        "bits of a coordinate on the wire; null: the fewest that keep to the resolution, with a sum that cannot wrap",
        choices=(16, 24, 32),
    )
    bound: float = setting(
        "largest coordinate of an update, in magnitude; what lies beyond is cut to it and counted at the silo",
        gt=0.0,
        le=1e9,
    )
    norm_bound: float | None = setting(
        "L2 norm that silos clip their updates to, and by which the alarm then measures the sum; null: only the bound",
        gt=0.0,
        le=1e9,
    )
    resolution: float = setting(
        "bits=null: largest rounding step of a coordinate, for a silo of max_rows rows", gt=0.0, le=1e9
    )
    rotation: bool = setting("spread large coordinates by a random rotation before rounding: for 16 bits")
    max_rows: int | None = setting(
        "rows beyond which a silo counts no more; null: all rows of the data set (has to be given for data=files)",
        ge=1,
        le=1_000_000_000,
    )
    rekey_every: int = setting("rounds after which silos agree on keys anew", ge=1, le=1000)
    attempts: int = setting("how often a round is tried, with fresh masks and those still there", ge=1, le=8)
    groups: int | None = setting(
        "groups of silos that are summed apart, and combined so that bad groups do not count; null: one sum of all",
        ge=3,
        le=600,
    )
    byzantine: int | None = setting(
        "groups: silos that may send anything (f), each of which spoils a group; null: as many as the groups allow, "
        "with none to spare for one that is lost",
        ge=1,
        le=300,
    )
    combine: str = setting(
        "groups: of each coordinate of the groups' means the median, or the mean without the f smallest and largest",
        choices=("median", "trimmed_mean"),
    )
    simulate: str = setting(
        "in a simulation: the whole protocol, or exact_sum, the same sums and the same model in clear, with NO secure "
        "aggregation: for sweeps",
        choices=("protocol", "exact_sum"),
    )

    @property
    def exact(self) -> bool:
        """Whether vectors are summed in clear: the short cut, which no real silo takes."""
        return self.simulate == "exact_sum"


#: What a server may see of updates: each by itself, or sums.
SEEN = (PlainAggregation.seen, SecureAggregation.seen)
