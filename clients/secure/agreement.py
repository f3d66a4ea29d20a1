"""What server and silos agree on before anything is masked: each works it out for itself, from the same settings.

Imports no torch: every stage but training needs this.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from quire.clients.arrays import Arrays
from quire.clients.contract import CLAMPED, STEPS
from quire.clients.secure.noise import noise_of
from quire.clients.secure.public import metrics_of, rotation_of
from quire.conf.asked import is_chained
from quire.conf.numbers import colluders_of, max_rows_of
from quire.conf.schema import DistributedPrivacy, SecureAggregation, Settings
from quire.privacy.csprng import Csprng
from quire.privacy.dp.contract import Unit
from quire.privacy.dp.distributed import SharedNoise
from quire.privacy.dp.encoding import Encoding
from quire.privacy.dp.plausible import check_shared_sum
from quire.privacy.dp.rounding import EncodingError, clip_to
from quire.privacy.dp.shares import encoding_of, mean_of, words
from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.receipts import settings_hash
from quire.privacy.secagg.fixedpoint import METRIC_BITS, Encoded, FixedPoint, Layout
from quire.privacy.secagg.masks import Words
from quire.privacy.secagg.messages import SESSION_ID, Config
from quire.privacy.secagg.plausible import check_sum
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
        Of the roster; who may side with the server; the fewest whose sum may be opened.
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

    @cached_property
    def application(self) -> bytes:
        """What a session's configuration says for the layers above the protocol, in its one spelling."""
        told = {"format": _FORMAT, **asdict(self)}
        return json.dumps(told, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


@dataclass(frozen=True)
class Agreement:
    """How updates of one model are summed in one run.

    Attributes
    ----------
    terms : Terms
    names : tuple of str
        The arrays of an update, in the order in which they are laid out.
    layout : Layout
    point : FixedPoint or Encoding
        How a vector becomes words: ``Encoding`` under distributed noise.
    """

    terms: Terms
    names: tuple[str, ...]
    layout: Layout
    point: FixedPoint | Encoding

    def config(self, run: int, first_round: int) -> Config:
        """Return the configuration of a session that begins with a round."""
        terms = self.terms
        return Config(
            run=run_name(run),
            first_round=first_round,
            rounds=terms.rekey_every,
            attempts=terms.attempts,
            members=terms.members,
            colluders=terms.colluders,
            min_survivors=terms.min_survivors,
            bits=self.point.bits,
            length=self.point.length,
            application=terms.application,
        )

    def encode(self, update: Arrays, rows: int, metrics: Mapping[str, float], source: Csprng) -> Encoded:
        """Turn a silo's update, rows and metrics into the words that are masked.

        What the strategy sends beside the model's arrays is a number, and summed as a metric. So is the share of
        coordinates that are cut, where metrics may be told.

        Raises
        ------
        EncodingError
            If something is not finite, missing, or not of the model's form; or under distributed noise.
        """
        if isinstance(self.point, Encoding):
            raise EncodingError("under distributed noise no update is encoded without its share")
        beside = {name: float(part) for name, part in update.items() if name not in self.names}
        flat = self.layout.flatten([update[name] for name in self.names])
        if self.terms.norm_bound is not None and np.isfinite(flat).all():  # of others the encoding says that they are
            flat = clip_to(flat, self.terms.norm_bound)[0]
        told = {**metrics, **beside}
        counted = CLAMPED if any(name == CLAMPED for name, _ in self.point.metrics) else None
        return self.point.encode(flat, min(rows, self.point.max_weight), told, source, counted)

    def nothing(self) -> Words:
        """Return the words of a silo that has nothing to add: no update, at no weight."""
        return np.zeros(self.point.length, dtype=np.uint32)

    def encode_shared(self, vector: NDArray[np.float64], source: Csprng) -> tuple[Words, int]:
        """Turn what a silo adds under distributed noise into words, without noise; and say how many were cut.

        Raises
        ------
        EncodingError
            If the vector is not of the model's form, or there is no distributed noise.
        """
        if not isinstance(self.point, Encoding):
            raise EncodingError("these settings ask for no distributed noise")
        return words(self.point, vector, source)

    def decode(self, total: np.ndarray) -> tuple[Arrays, dict[str, float]]:
        """Turn the sum over the survivors into the weighted means of updates, in float64, and of metrics.

        Under distributed noise the mean is over a public number, whoever survived.

        Raises
        ------
        EncodingError
            If the survivors have no weight.
        """
        if isinstance(self.point, Encoding):
            return self._shaped(self.decode_shared(total)[0]), {}
        mean = self.point.decode(total)
        arrays, metrics = self._shaped(mean.vector), dict(mean.metrics)
        if STEPS in metrics:
            arrays[STEPS] = np.array(metrics.pop(STEPS))
        if CLAMPED in metrics:
            # Rounding alone is not to look like a coordinate that was cut: half a level for each silo, at most.
            rounding = self.terms.parties * self.point.max_weight / (2**METRIC_BITS * mean.weight)
            metrics[CLAMPED] = metrics[CLAMPED] if metrics[CLAMPED] > 2.0 * rounding else 0.0
        return arrays, metrics

    def decode_shared(self, total: np.ndarray) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Turn the sum under distributed noise into the mean update, as one vector, and the probes.

        Raises
        ------
        EncodingError
            If there is no distributed noise.
        """
        if not isinstance(self.point, Encoding) or self.terms.noise is None:
            raise EncodingError("these settings ask for no distributed noise")
        mean, probes = mean_of(self.terms.noise, self.point, total)
        return self.terms.step * mean, probes

    def check(self, total: np.ndarray, silos: int | None = None) -> float:
        """Refuse a sum that honest silos cannot have come to, and so one that would throw the model anywhere.

        Parameters
        ----------
        total : numpy.ndarray of uint32
        silos : int, optional
            How many there are in it; by default as many as a round asks.

        Returns
        -------
        float
            How far it reaches towards what is allowed: 1 at most.

        Raises
        ------
        BeyondHonest
            If it is beyond :func:`quire.privacy.dp.plausible.largest_norm`, or without distributed noise beyond what
            :func:`quire.privacy.secagg.plausible.check_sum` allows.
        EncodingError
            If it is no sum of so many silos, or all of them add nothing.
        """
        count = self.terms.parties if silos is None else silos
        if isinstance(self.point, Encoding) and self.terms.noise is not None:
            return check_shared_sum(self.terms.noise, self.point, total, count)
        if isinstance(self.point, Encoding):
            raise EncodingError("a sum under distributed noise cannot be checked without the noise's numbers")
        return check_sum(self.point, total, count, self.terms.norm_bound)

    def _shaped(self, vector: NDArray[np.float64]) -> Arrays:
        arrays: Arrays = {}
        at = 0
        for name, (shape, _) in zip(self.names, self.layout.entries, strict=True):
            size = math.prod(shape)
            arrays[name] = vector[at : at + size].reshape(shape)
            at += size
        return arrays


def terms_of(settings: Settings, secure: SecureAggregation, members: int, log: LogName | None = None) -> Terms:
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

    Raises
    ------
    PrivacyError
        If no distributed noise keeps to what the settings ask for.
    """
    # Every message of every silo asks for them: kept where a simulation takes the short cut, which is there for speed.
    return (_kept if secure.exact else _terms)(settings, secure, members, log)


def _terms(settings: Settings, secure: SecureAggregation, members: int, log: LogName | None) -> Terms:
    if isinstance(settings.privacy, DistributedPrivacy):
        return _noisy_terms(settings, secure, members, log)
    told, parties = settings_hash(settings.as_dict()), settings.silos_asked
    max_weight = max_rows_of(settings, secure)
    return Terms(
        settings=told,
        members=members,
        colluders=colluders_of(secure, members),
        min_survivors=settings.strategy.min_silos,
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


def agreement_of(terms: Terms, model: Arrays) -> Agreement:
    """Work out what is agreed for a model.

    Raises
    ------
    EncodingError
        If the model has arrays without a mean.
    """
    names = tuple(model)
    layout = Layout.of([model[name] for name in names])
    if not layout.size:
        raise EncodingError("a model without parameters has no mean")
    if terms.noise is not None:
        return Agreement(terms, names, layout, encoding_of(terms.noise, layout.size, terms.bits, terms.rotation))
    if terms.bits is None:
        raise EncodingError("how wide a coordinate is does not follow from the model without distributed noise")
    point = FixedPoint(
        layout.size, terms.parties, terms.bits, terms.bound, terms.max_weight, terms.metrics, terms.rotation
    )
    return Agreement(terms, names, layout, point)


def run_name(run: int) -> bytes:
    """Return the 16 bytes by which sessions know the run with this number of Flower's."""
    return tagged_hash("quire/secure/run/1", str(run).encode())[:SESSION_ID]
