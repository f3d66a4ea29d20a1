"""What server and silos agree on before anything is masked: each works it out for itself, from the same settings.

Imports no torch: every stage but training needs this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quire.clients.arrays import Arrays
from quire.clients.contract import CLAMPED, STEPS
from quire.clients.secure.terms import Terms
from quire.privacy.csprng import Csprng
from quire.privacy.dp.encoding import Encoding
from quire.privacy.dp.plausible import check_shared_sum
from quire.privacy.dp.rounding import EncodingError, clip_to
from quire.privacy.dp.shares import encoding_of, mean_of, words
from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.secagg.fixedpoint import METRIC_BITS, Encoded, FixedPoint, Layout
from quire.privacy.secagg.masks import Words
from quire.privacy.secagg.messages import SESSION_ID, Config
from quire.privacy.secagg.plausible import check_sum


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
