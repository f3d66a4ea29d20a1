"""Which settings would void a privacy guarantee, or cannot have one; each is refused with the reason."""

from __future__ import annotations

import math

from quire.conf.numbers import records_of
from quire.conf.schema import (
    DistributedPrivacy,
    FedNovaStrategy,
    FedProxStrategy,
    NoPrivacy,
    RecordDistributedPrivacy,
    RecordPrivacy,
    ScaffoldStrategy,
    SecureAggregation,
    Settings,
    SiloDistributedPrivacy,
    SiloPrivacy,
    SyntheticData,
)
from quire.errors import SettingsError

#: Fewest silos asked in a round for which the clip may follow their norms: the noised count of clipped updates says
#: nothing about fewer (Andrew et al. 2021, arXiv 1905.03871, section 2.2, take noise of a twentieth of the cohort).
ADAPTIVE_SILOS = 500

#: The largest finite epsilon: as :data:`quire.privacy.dp.lattice.MAX_EPSILON`, up to which the accounting of discrete
#: noise holds. Settings know nothing of mechanisms, so it stands here once more.
MAX_EPSILON = 44.0


def check_privacy(settings: Settings, rows: int | None) -> None:
    """Refuse settings whose privacy cannot be what they claim.

    Parameters
    ----------
    settings : Settings
    rows : int or None
        Rows of the data set that simulated silos share; None where silos have their own.

    Raises
    ------
    SettingsError
        With the first contradiction found.
    """
    privacy = settings.privacy
    if isinstance(privacy, NoPrivacy):
        return
    _epsilon_is_accounted(privacy)
    _preprocessing_is_public(settings)
    _nothing_leaves_beside_the_update(settings)
    if isinstance(privacy, RecordPrivacy):
        _batches_are_drawn(settings, rows)
    if isinstance(privacy, SiloPrivacy | SiloDistributedPrivacy):
        _delta_is_given(privacy)
    if isinstance(privacy, SiloPrivacy):
        _clip_can_follow(settings, privacy)
    if isinstance(privacy, DistributedPrivacy):
        _noise_is_shared(settings)
        _noise_can_be_tested(settings, privacy)
    if isinstance(privacy, RecordDistributedPrivacy):
        _rows_pass_alone(privacy)
        _one_step_a_round(settings)
        records_of(settings, privacy)


def _epsilon_is_accounted(privacy: RecordPrivacy | SiloPrivacy | DistributedPrivacy) -> None:
    if MAX_EPSILON < privacy.epsilon < math.inf:
        raise SettingsError(
            f"privacy.epsilon={privacy.epsilon:g} is more than {MAX_EPSILON:g}, up to which what is accounted for "
            "holds, and would protect nobody: lower it, or take privacy.epsilon=inf, which claims nothing."
        )


def _preprocessing_is_public(settings: Settings) -> None:
    how = "public" if isinstance(settings.data, SyntheticData) else settings.data.preprocessing
    if how != "public":
        raise SettingsError(
            f"data.preprocessing={how} fits constants to private rows, which privacy={settings.privacy.name} does not "
            "account for: take data.preprocessing=public, which scales by the bounds in the schema."
        )


def _nothing_leaves_beside_the_update(settings: Settings) -> None:
    if isinstance(settings.strategy, FedNovaStrategy | ScaffoldStrategy):
        what = "number of steps" if isinstance(settings.strategy, FedNovaStrategy) else "control variate"
        raise SettingsError(
            f"strategy={settings.strategy.name} sends each silo's {what} in clear, which privacy="
            f"{settings.privacy.name} does not account for: take fedavg, fedprox or one of the server optimisers."
        )


def _batches_are_drawn(settings: Settings, rows: int | None) -> None:
    if rows is None:
        return  # each silo knows its own number of records, and refuses for itself
    if settings.training.batch_size * settings.partition.silos > rows:
        raise SettingsError(
            f"training.batch_size={settings.training.batch_size} is larger than the mean silo: {rows} rows are shared "
            f"by partition.silos={settings.partition.silos}; privacy=record draws batches out of a silo's records, so "
            "lower the batch size or take fewer silos."
        )


def _noise_is_shared(settings: Settings) -> None:
    name, strategy = settings.privacy.name, settings.strategy
    if not isinstance(settings.aggregation, SecureAggregation):
        raise SettingsError(
            f"privacy={name} gives each silo a share of the noise, too small to protect an update that is seen on its "
            f"own: take aggregation=secure, which opens sums only, or privacy={name.partition('_')[0]}."
        )
    if strategy.fraction != 1.0:  # and not by what it rounds to
        raise SettingsError(
            f"strategy.fraction={strategy.fraction!r} is not 1, and privacy={name} asks all silos in every round: "
            "asking fewer spares no epsilon, for who is asked is known; set strategy.fraction=1."
        )


def _noise_can_be_tested(settings: Settings, privacy: DistributedPrivacy) -> None:
    if not privacy.selftest:
        return
    rounds, scored = settings.strategy.rounds, settings.strategy.fraction_evaluate
    if math.isinf(privacy.epsilon):
        raise SettingsError("privacy.selftest tests the noise, and epsilon=inf has none: set privacy.epsilon.")
    if privacy.selftest > rounds:
        raise SettingsError(
            f"privacy.selftest={privacy.selftest} is more rounds than the run has whose noise is tested "
            f"(strategy.rounds={rounds}): lower it, or set strategy.rounds."
        )
    if scored:
        raise SettingsError(
            f"privacy.selftest reads no rows, and strategy.fraction_evaluate={scored:g} would score a model on "
            "them: set strategy.fraction_evaluate=0."
        )


def _rows_pass_alone(privacy: RecordDistributedPrivacy) -> None:
    # Composed by every silo for itself, so that no server can have its silos do without.
    if privacy.gradients not in ("auto", "rows"):
        raise SettingsError(
            f"privacy.gradients={privacy.gradients} passes rows together, and a model of the server's making could let "
            f"rounding carry what clipping bounds, which privacy={privacy.name} does not account for: take "
            "privacy.gradients=rows."
        )


def _one_step_a_round(settings: Settings) -> None:
    training, said = settings.training, "privacy=record_distributed takes one noisy step a round, at the server"
    if isinstance(settings.strategy, FedProxStrategy):
        raise SettingsError(
            f"{said}, so that strategy=fedprox, which keeps a silo's own steps near the global model, would do "
            "nothing: take fedavg or a server optimiser."
        )
    if training.steps > 1:
        raise SettingsError(f"{said}, and training.steps={training.steps}: leave it out, and take more rounds.")
    if training.momentum:
        raise SettingsError(f"{said}, so training.momentum would do nothing: take strategy=fedavgm.")
    if training.weight_decay:
        raise SettingsError(f"{said}, of clipped gradients alone, so training.weight_decay would do nothing: set it 0.")


def _delta_is_given(privacy: SiloPrivacy | SiloDistributedPrivacy) -> None:
    if privacy.delta is None and not math.isinf(privacy.epsilon):
        raise SettingsError(
            f"privacy={privacy.name} needs privacy.delta: below 1/(number of silos), the usual default, means little "
            "where silos are few; 1e-5 is a common choice."
        )


def _clip_can_follow(settings: Settings, privacy: SiloPrivacy) -> None:
    asked = settings.silos_asked
    if privacy.clipping == "adaptive" and asked < ADAPTIVE_SILOS:
        raise SettingsError(
            f"privacy.clipping=adaptive follows a noised count of clipped updates, which says nothing about {asked} "
            f"silos a round: it needs {ADAPTIVE_SILOS}; take privacy.clipping=fixed."
        )
    if privacy.clipping == "adaptive" and math.isinf(privacy.epsilon):
        raise SettingsError("privacy.clipping=adaptive needs a finite privacy.epsilon: take privacy.clipping=fixed.")
