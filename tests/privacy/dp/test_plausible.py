"""How large an honest sum can be: never refused where it is honest, refused where it is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chi2, poisson

from quire.privacy.csprng import Csprng
from quire.privacy.dp.contract import Unit
from quire.privacy.dp.distributed import SharedNoise
from quire.privacy.dp.plausible import (
    TAIL_BITS,
    BeyondHonest,
    check_shared_sum,
    largest_norm,
    noise_at_most,
    records_at_most,
)
from quire.privacy.dp.rounding import EncodingError, clip_to
from quire.privacy.dp.shares import add_share, encoding_of, words
from quire.privacy.dp.spending import Budget
from quire.privacy.dp.wire import to_ring
from quire.privacy.secagg.fixedpoint import METRIC_BITS, FixedPoint
from quire.privacy.secagg.params import thresholds
from quire.privacy.secagg.plausible import check_sum

TINY = 2.0**-TAIL_BITS


def noise_of(unit: Unit, epsilon: float = 4.0, clip: float = 0.5) -> SharedNoise:
    record = {"sampling_rate": 0.2, "records": 500, "largest": 100} if unit is Unit.RECORD else {}
    limits = thresholds(5, 1, 4)
    return SharedNoise.plan(unit, clip, limits, rounds=10, targets=[Budget(epsilon, 1e-5)], probes=64, **record)


@pytest.mark.parametrize("expected", [1e-3, 0.5, 3.0, 60.0, 1e4, 1e7])
def test_so_many_records_are_drawn_once_in_a_trillion_rounds(expected: float) -> None:
    most = records_at_most(expected)
    assert poisson.sf(math.floor(most), expected) <= TINY
    assert binom.sf(math.floor(most), max(1000, int(10 * expected)), expected / max(1000, int(10 * expected))) <= TINY
    assert most <= 2 * expected + 30 or expected < 100  # and it is no licence


@pytest.mark.parametrize("dimension", [1, 2, 31, 1000, 10**7])
def test_noise_is_longer_once_in_a_trillion_rounds(dimension: int) -> None:
    assert chi2.sf(noise_at_most(1.0, dimension) ** 2, dimension) <= TINY
    assert noise_at_most(4.0, dimension) == pytest.approx(2.0 * noise_at_most(1.0, dimension))
    assert noise_at_most(1.0, 10**7) <= 1.01 * math.sqrt(10**7)


@settings(max_examples=30, deadline=None)
@given(
    unit=st.sampled_from(list(Unit)),
    dimension=st.sampled_from([1, 3, 50, 300]),
    rotation=st.sampled_from([None, "ab" * 32]),
    epsilon=st.sampled_from([0.5, 4.0, math.inf]),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_honest_silos_come_to_at_their_most_is_taken(
    unit: Unit, dimension: int, rotation: str | None, epsilon: float, seed: int
) -> None:
    """All vectors at the clip and aligned, and for the record unit a batch as large as is expected of the largest."""
    noise = noise_of(unit, epsilon)
    encoding = encoding_of(noise, dimension, None, rotation)
    vector = np.random.default_rng(seed).normal(size=dimension)
    vector = clip_to(vector * 1e9, noise.clip)[0] * (noise.batch if unit is Unit.RECORD else 1)
    total = np.zeros(encoding.length, np.uint32)
    for place in range(noise.parties):
        source = Csprng(np.random.default_rng([seed, place]).bytes(32))
        total += add_share(encoding, words(encoding, vector, source)[0], source)
    check_shared_sum(noise, encoding, total, noise.parties)


@pytest.mark.parametrize("unit", list(Unit))
def test_what_is_longer_is_refused_and_the_probes_do_not_count(unit: Unit) -> None:
    noise = noise_of(unit)
    encoding = encoding_of(noise, 100)
    most, integers = largest_norm(noise, encoding, 5), np.zeros(encoding.length, np.int64)
    assert most < 2 ** (encoding.bits - 1)  # else a bound that no sum reaches would be tested
    integers[0] = math.floor(most)
    integers[100:] = 2 ** (encoding.bits - 1) - 1
    check_shared_sum(noise, encoding, to_ring(integers), 5)
    integers[0] = -math.ceil(most) - 1
    with pytest.raises(EncodingError, match="as long as the clipped vectors of 5 silos"):
        check_shared_sum(noise, encoding, to_ring(integers), 5)
    with pytest.raises(EncodingError, match="integers"):
        check_shared_sum(noise, encoding, to_ring(integers[:-1]), 5)


# --------------------------------------------------------------------------------------------- without shared noise
POINTS = [
    FixedPoint(20, 5, 24, 1.0, 100, (("loss", 10.0),)),
    FixedPoint(20, 5, 16, 1.0, 1000, ()),
    FixedPoint(20, 3, 32, 8.0, 10**6, (("loss", 1000.0), ("clamped", 1.0)), "cd" * 32),
]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_what_honest_silos_sum_is_taken_whatever_their_data(data: st.DataObject, seed: int) -> None:
    point, source = data.draw(st.sampled_from(POINTS)), np.random.default_rng(seed)
    total, weights = np.zeros(point.length, np.uint32), []
    silos = data.draw(st.integers(1, point.parties))
    for place in range(silos):
        vector = data.draw(st.sampled_from([1e-9, 1.0, 1e30])) * source.choice([-1.0, 1.0, 0.3], point.size)
        weights.append(data.draw(st.sampled_from([0, 1, 2, point.max_weight])))
        metrics = {name: data.draw(st.sampled_from([-1e9, 0.0, bound, 1e9])) for name, bound in point.metrics}
        coin = Csprng(np.random.default_rng([seed, place]).bytes(32))
        total += point.encode(vector, weights[-1], metrics, coin).words
    if sum(weights):
        assert 0.0 <= check_sum(point, total, silos) <= 1.0
    else:
        with pytest.raises(EncodingError, match="no mean") as caught:
            check_sum(point, total, silos)
        assert not isinstance(caught.value, BeyondHonest)  # nobody trained, which is no attack


@pytest.mark.parametrize("point", POINTS)
def test_a_coordinate_a_weight_or_a_metric_that_cannot_be_is_refused(point: FixedPoint) -> None:
    def summed() -> np.ndarray:
        metrics = dict(point.metrics)
        return point.encode(np.ones(point.size), point.max_weight, metrics, Csprng(bytes(32))).words

    check_sum(point, summed(), point.parties)
    far = summed()
    far[0] = point.limit + point.parties + 1
    with pytest.raises(EncodingError, match=r"aggregation\.bound"):
        check_sum(point, far, point.parties)
    light = summed()  # the same vector at the least weight: a mean far beyond the bound
    light[point.body : point.length] = 0
    light[point.body] = 1
    with pytest.raises(EncodingError, match=r"aggregation\.bound"):
        check_sum(point, light, point.parties)
    heavy = np.zeros(point.length, np.uint32)
    digits = len(point._spread(point.max_weight, point.max_weight.bit_length()))
    heavy[point.body + digits - 1] = 2 ** (point.bits - 1) - 1
    with pytest.raises(EncodingError, match="weigh"):
        check_sum(point, heavy, point.parties)
    if point.metrics:
        told = summed()
        told[point.body + digits : point.body + digits + len(point._spread(1, METRIC_BITS + 1))] *= 3
        with pytest.raises(EncodingError, match="beyond what one silo may tell"):
            check_sum(point, told, point.parties)
