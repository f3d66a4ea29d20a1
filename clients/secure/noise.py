"""The noise that the silos of a run share, worked out by everybody for itself: from settings and the roster's size.

Nothing of it is taken from a server. Imports no torch: a policy is decided on with it.
"""

from __future__ import annotations

from functools import lru_cache

from quire.conf.numbers import colluders_of, records_of
from quire.conf.schema import DistributedPrivacy, RecordDistributedPrivacy, SecureAggregation, Settings
from quire.privacy.dp.accounting import default_delta
from quire.privacy.dp.contract import PrivacyError, Unit
from quire.privacy.dp.distributed import SharedNoise
from quire.privacy.dp.shares import probes_for
from quire.privacy.dp.spending import Budget
from quire.privacy.receipts import NOMINAL_DELTA
from quire.privacy.secagg.errors import CohortTooSmall
from quire.privacy.secagg.params import thresholds


def noise_of(settings: Settings, members: int | None = None) -> SharedNoise:
    """Work out the public numbers of distributed noise; kept in memory.

    Parameters
    ----------
    settings : Settings
        With ``privacy=record_distributed`` or ``silo_distributed``, and ``aggregation=secure``.
    members : int, optional
        Of the roster; by default as many as the run has silos.

    Raises
    ------
    PrivacyError
        If no noise reaches the target, or such a roster leaves no share of it unknown.
    """
    privacy, secure = settings.privacy, settings.aggregation
    if not isinstance(privacy, DistributedPrivacy) or not isinstance(secure, SecureAggregation):
        raise PrivacyError("These settings ask for no distributed noise.")
    silos = settings.partition.silos
    count = silos if members is None else members
    records, largest = records_of(settings, privacy) if isinstance(privacy, RecordDistributedPrivacy) else (0, 0)
    return _noise(
        privacy,
        (count, colluders_of(secure, count), settings.strategy.min_silos),
        settings.strategy.rounds,
        min(settings.silos_asked, count),
        # As many for each member as for each silo of the run: what is divided by is expected of those asked.
        (-(-records * count // silos), largest),
    )


@lru_cache(maxsize=256)
def _noise(
    privacy: DistributedPrivacy, roster: tuple[int, int, int], rounds: int, asked: int, declared: tuple[int, int]
) -> SharedNoise:
    records, largest = declared
    record = isinstance(privacy, RecordDistributedPrivacy)
    # One noise for all: of the silos' own deltas, that of the largest is the strictest.
    delta = privacy.delta or (default_delta(largest) if record else NOMINAL_DELTA)
    try:
        limits = thresholds(*roster)
    except CohortTooSmall as error:
        raise PrivacyError(str(error)) from error
    return SharedNoise.plan(
        Unit.RECORD if record else Unit.SILO,
        privacy.clip,
        limits,
        rounds=rounds,
        targets=[Budget(privacy.epsilon, delta)],
        sampling_rate=privacy.sampling_rate if isinstance(privacy, RecordDistributedPrivacy) else 1.0,
        records=records,
        largest=largest,
        parties=asked,
        probes=probes_for(asked),
    )
