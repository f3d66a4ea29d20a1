"""Which settings would void a privacy guarantee, or cannot have one; each is refused with the reason."""

from __future__ import annotations

import math

from quire.conf.schema import (
    FedNovaStrategy,
    NoPrivacy,
    RecordPrivacy,
    ScaffoldStrategy,
    Settings,
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
    if isinstance(privacy, SiloPrivacy):
        _delta_is_given(privacy)
        _clip_can_follow(settings, privacy)


def _epsilon_is_accounted(privacy: RecordPrivacy | SiloPrivacy) -> None:
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


def _delta_is_given(privacy: SiloPrivacy) -> None:
    if privacy.delta is None and not math.isinf(privacy.epsilon):
        raise SettingsError(
            "privacy=silo needs privacy.delta: below 1/(number of silos), the usual default, means little where silos "
            "are few; 1e-5 is a common choice."
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
