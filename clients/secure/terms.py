"""What server and silos agree on before any model is seen: from the settings and the number of members alone."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache

from quire.clients.secure.noise import noise_of
from quire.clients.secure.public import metrics_of, rotation_of
from quire.conf.asked import is_chained
from quire.conf.numbers import colluders_of, max_rows_of, parties_of
from quire.conf.schema import DistributedPrivacy, SecureAggregation, Settings
from quire.privacy.dp.contract import Unit
from quire.privacy.dp.distributed import SharedNoise
from quire.privacy.receipts import settings_hash
from quire.privacy.secagg.fixedpoint import FixedPoint
from quire.privacy.secagg.groups import LEAST_IN_GROUP, size_of
from quire.transparency.shown import LogName

_FORMAT = "quire-secure-1"


@dataclass(frozen=True)
class Terms:
    """What follows from the settings and the number of members alone: known before any model is seen.

    Attributes
    ----------
    settings : str
        Hash of the settings.
    members, colluders, min_survivors : int
        Of the roster, or of one group of it; who may side with the server; the fewest whose sum may be opened.
    rekey_every, attempts : int
        Rounds of a session, attempts of a round.
    parties : int
        How many vectors are added at most.
    bits : int or None
        How wide a coordinate is; None: what distributed noise takes, which depends on the model.
    bound : float
    norm_bound : float or None
        What a silo clips its update to, where nothing else clips it.
    max_weight : int
    metrics : tuple of (str, float)
        What is averaged beside the update, and how large it may be.
    rotation : str or None
        Key of the random rotation.
    noise : SharedNoise or None
        The noise that all silos share; then ``bound``, ``max_weight`` and ``metrics`` are not used.
    step : float
        What a decoded mean is multiplied by: under the record unit, where it is a gradient, minus the learning rate.
    chain : bool
        Whether silos recompute every model from the sum before it; see :mod:`quire.clients.secure.chain`.
    selftest : bool
        Whether all silos add their shares of the noise to nothing.
    log : LogName or None
        The transparency log that every round is bound to; None where the server keeps none.
    group : int or None
        Which group of the roster; None where all members are summed together.
    """

    settings: str
    members: int
    colluders: int
    min_survivors: int
    rekey_every: int
    attempts: int
    parties: int
    bits: int | None
    bound: float
    norm_bound: float | None
    max_weight: int
    metrics: tuple[tuple[str, float], ...]
    rotation: str | None
    noise: SharedNoise | None = None
    step: float = 1.0
    chain: bool = False
    selftest: bool = False
    log: LogName | None = None
    group: int | None = None

    @cached_property
    def application(self) -> bytes:
        """What a session's configuration says for the layers above the protocol, in its one spelling."""
        told = {"format": _FORMAT, **asdict(self)}
        return json.dumps(told, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def terms_of(
    settings: Settings, secure: SecureAggregation, members: int, log: LogName | None = None, group: int = 0
) -> Terms:
    """Work out what is agreed whatever the model.

    Parameters
    ----------
    settings : Settings
    secure : SecureAggregation
        Of the settings.
    members : int
        How many the roster lists.
    log : LogName, optional
        The one thing here that follows from no settings: what the server says, the same to all silos.
    group : int
        Where the settings ask for groups: the number of the one that is agreed in.

    Raises
    ------
    PrivacyError
        If no distributed noise keeps to what the settings ask for.
    """
    # Every message of every silo asks for them: kept where a simulation takes the short cut, which is there for speed.
    return (_kept if secure.exact else _terms)(settings, secure, members, log, group)


def _terms(settings: Settings, secure: SecureAggregation, members: int, log: LogName | None, group: int) -> Terms:
    if isinstance(settings.privacy, DistributedPrivacy):
        return _noisy_terms(settings, secure, members, log)
    told, parties = settings_hash(settings.as_dict()), parties_of(settings, secure, members)
    max_weight, grouped, least = max_rows_of(settings, secure), secure.groups is not None, settings.strategy.min_silos
    return Terms(
        settings=told,
        members=size_of(members, secure.groups or 1, group),
        colluders=colluders_of(secure, members),
        min_survivors=max(least, LEAST_IN_GROUP) if grouped else least,
        rekey_every=secure.rekey_every,
        attempts=secure.attempts,
        parties=parties,
        bits=secure.bits or FixedPoint.plan(1, parties, secure.bound, secure.resolution, max_weight).bits,
        bound=secure.bound,
        norm_bound=secure.norm_bound,
        max_weight=max_weight,
        metrics=metrics_of(settings, max_weight),
        rotation=rotation_of(settings, secure),
        chain=is_chained(settings.as_dict()),
        log=log,
        group=group if grouped else None,
    )


_kept = lru_cache(maxsize=16)(_terms)


def _noisy_terms(settings: Settings, secure: SecureAggregation, members: int, log: LogName | None) -> Terms:
    told, noise = settings_hash(settings.as_dict()), noise_of(settings, members)
    return Terms(
        settings=told,
        members=members,
        colluders=noise.colluders,
        min_survivors=settings.strategy.min_silos,
        rekey_every=secure.rekey_every,
        attempts=secure.attempts,
        parties=noise.parties,
        bits=secure.bits,
        bound=noise.clip,
        norm_bound=None,
        max_weight=1,
        metrics=(),
        rotation=rotation_of(settings, secure),
        noise=noise,
        step=-settings.training.lr if noise.unit is Unit.RECORD else 1.0,
        chain=is_chained(settings.as_dict()),
        selftest=settings.selftest,
        log=log,
    )
