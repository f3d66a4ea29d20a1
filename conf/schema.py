"""What can be set: one frozen dataclass for each option of each group.

The YAML files beside this module hold the *values*; the dataclasses here hold the *types and limits*. The
registry :data:`GROUPS` is closed: a group or an option that is not in it does not exist, whatever lies on disk.
This module imports neither Hydra nor anything of Quire's but the leaves beside it: a silo reads it at no cost.
"""

# No `from __future__ import annotations` here: the types are read at run time, and must not need an eval.
import dataclasses
from dataclasses import dataclass
from typing import Any

from quire.conf.asked import silos_asked
from quire.conf.attack_schema import ATTACKS, SUSPICIONS
from quire.conf.attack_schema import Attack as Attack
from quire.conf.attack_schema import NoAttack as NoAttack
from quire.conf.attack_schema import NoSuspicion as NoSuspicion
from quire.conf.compression_schema import EightBitCompression as EightBitCompression
from quire.conf.compression_schema import NoCompression as NoCompression
from quire.conf.compression_schema import TopKCompression as TopKCompression
from quire.conf.privacy_schema import SEEN as SEEN
from quire.conf.privacy_schema import DistributedPrivacy as DistributedPrivacy
from quire.conf.privacy_schema import NoPrivacy as NoPrivacy
from quire.conf.privacy_schema import PlainAggregation as PlainAggregation
from quire.conf.privacy_schema import RecordDistributedPrivacy as RecordDistributedPrivacy
from quire.conf.privacy_schema import RecordPrivacy as RecordPrivacy
from quire.conf.privacy_schema import SecureAggregation as SecureAggregation
from quire.conf.privacy_schema import SiloDistributedPrivacy as SiloDistributedPrivacy
from quire.conf.privacy_schema import SiloPrivacy as SiloPrivacy
from quire.conf.robust_schema import BulyanAggregation as BulyanAggregation
from quire.conf.robust_schema import CenteredClippingAggregation as CenteredClippingAggregation
from quire.conf.robust_schema import GeometricMedianAggregation as GeometricMedianAggregation
from quire.conf.robust_schema import KrumAggregation as KrumAggregation
from quire.conf.robust_schema import MedianAggregation as MedianAggregation
from quire.conf.robust_schema import MultiKrumAggregation as MultiKrumAggregation
from quire.conf.robust_schema import NormBoundAggregation as NormBoundAggregation
from quire.conf.robust_schema import RobustAggregation as RobustAggregation
from quire.conf.robust_schema import TrimmedMeanAggregation as TrimmedMeanAggregation
from quire.conf.setting import setting
from quire.conf.strategy_schema import FedAdagradStrategy as FedAdagradStrategy
from quire.conf.strategy_schema import FedAdamStrategy as FedAdamStrategy
from quire.conf.strategy_schema import FedAvgMStrategy as FedAvgMStrategy
from quire.conf.strategy_schema import FedAvgStrategy as FedAvgStrategy
from quire.conf.strategy_schema import FedNovaStrategy as FedNovaStrategy
from quire.conf.strategy_schema import FedProxStrategy as FedProxStrategy
from quire.conf.strategy_schema import FedYogiStrategy as FedYogiStrategy
from quire.conf.strategy_schema import QFedAvgStrategy as QFedAvgStrategy
from quire.conf.strategy_schema import ScaffoldStrategy as ScaffoldStrategy
from quire.conf.training_schema import SgdTraining as SgdTraining

PREPROCESSING = ("public", "per_silo", "federated")
PREPROCESSING_HELP = (
    "how features are scaled: by public bounds (the only kind that differential privacy accepts), by each silo's own "
    "training rows, or by the summed moments of all silos'"
)


# ---------------------------------------------------------------------------------------------------- task
@dataclass(frozen=True)
class TaskSettings:
    """What is learned: the rows' schema, the model, the loss, the metrics."""

    name: str
    model: str = setting(
        "the model that is trained: cnn for images only, linear also where a number is learned",
        choices=("logistic", "mlp", "cnn", "linear", "plugin"),
    )
    hidden: tuple[int, ...] = setting("widths of the hidden dense layers (mlp, cnn)", ge=1, le=65_536, max_items=16)
    silo_label: str = setting("what a silo is called in reports, such as hospital or bank", word=True)
    plugin: str = setting(
        "for task.model=plugin and task=plugin: which of the models, or tasks, that every party has approved", word=True
    )


# ---------------------------------------------------------------------------------------------------- data
@dataclass(frozen=True)
class SklearnData:
    """A data set that ships inside scikit-learn, shared out over simulated silos."""

    name: str
    dataset: str = setting("which data set", choices=("breast_cancer", "digits", "diabetes"))
    preprocessing: str = setting(PREPROCESSING_HELP, choices=PREPROCESSING)
    test_fraction: float = setting("share of each silo's rows kept for testing", gt=0.0, lt=1.0)
    validation_fraction: float = setting(
        "share of a silo's training rows kept for validation: rounds are then scored on them", ge=0.0, lt=1.0
    )


@dataclass(frozen=True)
class SyntheticData:
    """Gaussian blobs of any size, for benchmarks and smoke tests."""

    name: str
    rows: int = setting("rows in all, over all silos", ge=2, le=100_000_000)
    features: int = setting("features of a row", ge=1, le=1_000_000)
    classes: int = setting("classes", ge=2, le=100_000)
    test_fraction: float = setting("share of each silo's rows kept for testing", gt=0.0, lt=1.0)
    validation_fraction: float = setting(
        "share of a silo's training rows kept for validation: rounds are then scored on them", ge=0.0, lt=1.0
    )


@dataclass(frozen=True)
class FilesData:
    """Each silo reads its own rows: where and how, its own silo.yaml says, which never travels."""

    name: str
    preprocessing: str = setting(PREPROCESSING_HELP, choices=PREPROCESSING)
    test_fraction: float = setting("share of a silo's rows kept for testing, where its file names none", gt=0.0, lt=1.0)
    validation_fraction: float = setting(
        "share of a silo's training rows kept for validation: rounds are then scored on them", ge=0.0, lt=1.0
    )


# ----------------------------------------------------------------------------------------------- partition
@dataclass(frozen=True)
class IidPartition:
    """Rows dealt out at random: every silo sees the same population."""

    name: str
    silos: int = setting("number of silos", ge=1, le=100_000)


@dataclass(frozen=True)
class DirichletPartition:
    """Label shares drawn from a Dirichlet distribution (Hsu et al. 2019, arXiv 1909.06335, section 3)."""

    name: str
    silos: int = setting("number of silos", ge=1, le=100_000)
    alpha: float = setting("concentration: small means silos that differ, large means alike", gt=0.0, le=1e6)
    min_rows: int = setting("fewest rows a silo may get", ge=2, le=100_000_000)


@dataclass(frozen=True)
class ShardsPartition:
    """Rows sorted by label and dealt out in shards (McMahan et al. 2017, arXiv 1602.05629, section 3)."""

    name: str
    silos: int = setting("number of silos", ge=1, le=100_000)
    shards_per_silo: int = setting("shards a silo gets: few means few classes in a silo", ge=1, le=100_000)


@dataclass(frozen=True)
class NaturalPartition:
    """Nothing is shared out: every silo has the rows it has (data=files)."""

    name: str
    silos: int = setting("number of silos; `quire run silos=FOLDER` counts them by itself", ge=1, le=100_000)


# ------------------------------------------------------------------------------------------------- runtime
@dataclass(frozen=True)
class InlineRuntime:
    """All silos in this process: no Ray, no daemon, faults on demand."""

    name: str
    threads: int = setting("torch threads inside a silo", ge=1, le=1024)
    join_timeout: float = setting("seconds to wait until every silo has joined", gt=0.0, le=1e7)
    faults: tuple[str, ...] = setting("faults to inject, each kind:stage:round:silo[:seconds]")
    workers: int = setting(
        "processes that share the silos' work: 1 is this process itself, 0 takes one for each core; no result depends "
        "on it",
        ge=0,
        le=1024,
    )
    device: str = setting(
        "where silos train: auto takes CUDA or an Apple GPU (MPS) where there is one",
        choices=("cpu", "auto", "cuda", "mps"),
    )


@dataclass(frozen=True)
class BatchedRuntime(InlineRuntime):
    """As inline, and small models of several silos trained together: faster, the last bits of a sum aside the same."""


@dataclass(frozen=True)
class FlowerRuntime:
    """Flower's own Simulation Runtime (Ray), driven through ``flwr run``."""

    name: str
    threads: int = setting("torch threads inside a silo", ge=1, le=1024)
    join_timeout: float = setting("seconds to wait until every silo has joined", gt=0.0, le=1e7)
    cpus_per_silo: int = setting("cores that Ray reserves for a silo at work", ge=1, le=1024)


# -------------------------------------------------------------------------------------------------- output
@dataclass(frozen=True)
class OutputSettings:
    """What a run leaves behind and shows while it runs. Stays with the launcher."""

    name: str
    baselines: bool = setting(
        "train models to compare with: pooled, local-only and, beside privacy or masks, the same federation in clear"
    )
    report: bool = setting("write report.html")
    transcripts: bool = setting("keep what secure aggregation received, for an audit: a round's updates, masked")
    progress: str = setting("how progress is shown", choices=("auto", "rich", "plain", "none"))


# ------------------------------------------------------------------------------------------------ tracking
@dataclass(frozen=True)
class NoTracking:
    """No tracker: the run folder holds it all."""

    name: str


@dataclass(frozen=True)
class TensorboardTracking:
    """TensorBoard event files, in the run's own folder. Stays with the launcher."""

    name: str


@dataclass(frozen=True)
class MlflowTracking:
    """MLflow, in a local database unless told otherwise. Stays with the launcher."""

    name: str
    uri: str = setting("where MLflow keeps runs: a local database, or a server that is then contacted")
    experiment: str = setting("the experiment that runs are filed under")


GROUPS: dict[str, dict[str, type]] = {
    "task": dict.fromkeys(
        ("breast_cancer", "digits", "diabetes", "tabular", "images", "plugin", "synthetic"), TaskSettings
    ),
    "data": {"sklearn": SklearnData, "files": FilesData, "synthetic": SyntheticData},
    "partition": {
        "iid": IidPartition,
        "dirichlet": DirichletPartition,
        "shards": ShardsPartition,
        "natural": NaturalPartition,
    },
    "strategy": {
        "fedavg": FedAvgStrategy,
        "fedprox": FedProxStrategy,
        "fedavgm": FedAvgMStrategy,
        "fedadagrad": FedAdagradStrategy,
        "fedadam": FedAdamStrategy,
        "fedyogi": FedYogiStrategy,
        "fednova": FedNovaStrategy,
        "scaffold": ScaffoldStrategy,
        "qfedavg": QFedAvgStrategy,
    },
    "training": {"sgd": SgdTraining},
    "runtime": {"inline": InlineRuntime, "batched": BatchedRuntime, "flower": FlowerRuntime},
    "privacy": {
        "none": NoPrivacy,
        "record": RecordPrivacy,
        "silo": SiloPrivacy,
        "record_distributed": RecordDistributedPrivacy,
        "silo_distributed": SiloDistributedPrivacy,
    },
    "aggregation": {
        "plain": PlainAggregation,
        "secure": SecureAggregation,
        "median": MedianAggregation,
        "trimmed_mean": TrimmedMeanAggregation,
        "krum": KrumAggregation,
        "multi_krum": MultiKrumAggregation,
        "bulyan": BulyanAggregation,
        "geometric_median": GeometricMedianAggregation,
        "centered_clipping": CenteredClippingAggregation,
        "norm_bound": NormBoundAggregation,
    },
    "attack": ATTACKS,
    "suspicion": SUSPICIONS,
    "compression": {"none": NoCompression, "eight_bit": EightBitCompression, "top_k": TopKCompression},
    "output": {"default": OutputSettings},
    "tracking": {"none": NoTracking, "tensorboard": TensorboardTracking, "mlflow": MlflowTracking},
}


@dataclass(frozen=True)
class Settings:
    """Everything that one run is told, composed from the groups.

    Equal settings compare equal and hash equal. ``overrides`` is the canonical string that composes to this
    object, the only thing that travels to the silos.
    """

    task: TaskSettings
    data: SklearnData | FilesData | SyntheticData
    partition: IidPartition | DirichletPartition | ShardsPartition | NaturalPartition
    strategy: FedAvgStrategy
    training: SgdTraining
    runtime: InlineRuntime | FlowerRuntime
    privacy: NoPrivacy | RecordPrivacy | SiloPrivacy | RecordDistributedPrivacy | SiloDistributedPrivacy
    aggregation: PlainAggregation | SecureAggregation
    attack: NoAttack
    suspicion: NoSuspicion
    compression: NoCompression | EightBitCompression | TopKCompression
    output: OutputSettings
    tracking: NoTracking | TensorboardTracking | MlflowTracking
    seed: int = setting("seed of the simulation", ge=0, lt=2**63)
    charter: str | None = setting("hash of the charter that the run is under", digest=True)
    overrides: str = ""

    @property
    def silos_asked(self) -> int:
        """How many silos are asked to train in a round, if all are there."""
        return silos_asked(self.strategy.fraction, self.partition.silos, self.strategy.min_silos)

    @property
    def selftest(self) -> bool:
        """Whether silos read no rows, and add nothing but their shares of the noise."""
        return isinstance(self.privacy, DistributedPrivacy) and self.privacy.selftest > 0

    @property
    def rounds(self) -> int:
        """How many rounds there are: the strategy's, for which noise is calibrated, or those of a self-test of it."""
        planned = self.strategy.rounds
        tested = self.privacy.selftest if isinstance(self.privacy, DistributedPrivacy) else 0
        return tested or planned

    def as_dict(self) -> dict[str, Any]:
        """Return nested plain dicts, lists and scalars, ready for YAML or JSON; without ``overrides``."""
        tree: dict[str, Any] = _plain(dataclasses.asdict(self))
        del tree["overrides"]
        return tree


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
