"""What silos send under distributed noise: sums never wrap, hostile floats move nothing further, the noise is there."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from noise_support import goodness, source

from quire.privacy.dp.contract import Unit
from quire.privacy.dp.distributed import SharedNoise
from quire.privacy.dp.probes import ProbeTest
from quire.privacy.dp.rounding import EncodingError, clipped_sum
from quire.privacy.dp.shares import add_share, encoding_of, mean_of, probes_for, watch, words
from quire.privacy.dp.wire import pack, unpack

CLIP = 1.0
floats = st.floats(width=64)  # NaN, infinities, denormals and all


def shared(unit=Unit.RECORD, members=10, colluders=3, min_survivors=7, noise=1.0, batch=8, **changes):
    rate, denominator = (0.05, 0.05 * 1430) if unit is Unit.RECORD else (1.0, float(members))
    values = {"parties": members, "rounds": 100, "denominator": denominator, "probes": probes_for(members)} | changes
    batch = batch if unit is Unit.RECORD else 1
    return SharedNoise(
        unit, CLIP, members, colluders, min_survivors, noise_multiplier=noise, sampling_rate=rate, batch=batch, **values
    )


def summed(encoding, vectors, label, spoil=lambda drawn, party: drawn):
    """Return the sum of the parties' packed words, each with its share of the noise."""
    total = np.zeros(encoding.length, dtype=np.uint32)
    for party, vector in enumerate(vectors):
        plain, _ = words(encoding, vector, source(label, "rounding", party))
        noisy = add_share(encoding, plain, source(label, "noise", party))
        noisy = plain + spoil((noisy - plain).view(np.int32), party).astype(np.int32).view(np.uint32)
        total += unpack(pack(noisy, encoding.bits), encoding.bits, encoding.length)
    return total


@settings(deadline=None, max_examples=60)
@given(hnp.arrays(np.float64, st.tuples(st.integers(0, 6), st.just(17)), elements=floats), st.integers(0, 5), st.data())
def test_neighbouring_batches_differ_by_at_most_the_sensitivity(rows, seed, data):
    """One record more or less, the same rounding: the integers differ by Delta2 at most, whatever the floats are."""
    encoding = encoding_of(shared(), 17)
    extra = data.draw(hnp.arrays(np.float64, 17, elements=floats))
    with np.errstate(all="ignore"):
        before, _ = clipped_sum(rows, CLIP)
        after, _ = clipped_sum(np.vstack([rows, extra]), CLIP)
    one, _ = words(encoding, before, source("coupled", seed))
    other, _ = words(encoding, after, source("coupled", seed))
    moved = (other - one).view(np.int32).astype(np.int64)
    assert int(moved @ moved) <= encoding.delta2_squared
    assert not moved[17:].any()


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 1 - 2**-30, 2**-30])
@pytest.mark.parametrize("dimension", [1, 7, 1000, 100_000])
def test_hostile_fractional_parts_do_not_lengthen_the_difference(dimension, fraction):
    """The sum sits just where rounding moves the most, and the record adds half a unit in every coordinate."""
    encoding = encoding_of(shared(), dimension)
    extra = np.full(dimension, CLIP / math.sqrt(dimension))
    extra = (np.floor(extra * encoding.scale) - 0.5) / encoding.scale if dimension > 1 else extra
    before = (np.arange(dimension) % 5 + fraction) / encoding.scale
    one, _ = words(encoding, before, source("fractions", dimension))
    other, _ = words(encoding, before + extra, source("fractions", dimension))
    moved = (other - one).view(np.int32).astype(np.int64)
    assert 0 < int(moved @ moved) <= encoding.delta2_squared


@settings(deadline=None, max_examples=60)
@given(hnp.arrays(np.float64, 17, elements=floats), st.integers(0, 5))
def test_a_silo_s_integers_are_never_longer_than_the_sensitivity(update, seed):
    encoding = encoding_of(shared(Unit.SILO), 17)
    with np.errstate(all="ignore"):
        plain, clamped = words(encoding, update, source("silo", seed))
    integers = plain.view(np.int32).astype(np.int64)
    assert int(integers @ integers) <= encoding.delta2_squared
    assert clamped == 0
    if not np.isfinite(update).all():
        assert not integers.any()


@settings(deadline=None, max_examples=40)
@given(
    hnp.arrays(np.float64, st.tuples(st.integers(7, 10), st.just(9)), elements=st.floats(-4.0, 4.0)),
    st.sampled_from(list(Unit)),
    st.integers(0, 3),
)
def test_without_noise_the_mean_is_right_to_the_grid(vectors, unit, seed):
    noise = shared(unit, noise=0.0)
    encoding = encoding_of(noise, 9)
    if unit is Unit.SILO:
        vectors = np.array([clipped_sum(vector[None], CLIP)[0] for vector in vectors])
    mean, probes = mean_of(noise, encoding, summed(encoding, vectors, f"grid {seed}"))
    # Rounding towards zero, after too many redraws, moves a coordinate by less than one as well.
    error = np.abs(mean - vectors.sum(axis=0) / noise.denominator)
    assert error.max() <= len(vectors) / encoding.scale / noise.denominator * (1 + 1e-9)
    assert not probes.any()
    assert watch(ProbeTest(), encoding, probes, len(vectors)) == ProbeTest()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(2, 60),
    st.integers(1, 5000),
    st.floats(0.5, 40.0),
    st.integers(1, 500),
    st.sampled_from(list(Unit)),
    st.sampled_from([-1, 1]),
)
def test_the_sum_cannot_wrap(members, dimension, z, batch, unit, sign):
    """All parties at the bound in one coordinate, and all noise at twelve standard deviations to the same side."""
    noise = shared(unit, members, 0, members, z, batch)
    try:
        encoding = encoding_of(noise, dimension)
    except EncodingError:
        return
    vector = np.zeros(dimension)
    vector[0] = sign * 1e12
    plain, _ = words(encoding, vector, source("wrap"))
    tail = math.floor(12 * math.sqrt(members * encoding.noise_variance))
    largest = members * int(plain.view(np.int32)[0]) + sign * tail
    total = np.zeros(encoding.length, dtype=np.uint32)
    total[0] = np.array([largest]).astype(np.int64).astype(np.uint32)[0]
    decoded, _ = encoding.decode(unpack(pack(total, encoding.bits), encoding.bits, encoding.length))
    assert round(decoded[0] * encoding.scale) == largest


def test_the_width_is_computed():
    """A6: ten silos of a million parameters, 72 records each: clamped at what they can reach, 24 bits are too few."""
    million = 10**6
    assert encoding_of(shared(batch=72), million).bits == 32
    assert encoding_of(shared(batch=8), million).bits == 24
    assert encoding_of(shared(Unit.SILO), million).bits == 24
    rotated = shared(Unit.SILO, colluders=0, min_survivors=9, kappa=2.0)
    assert encoding_of(rotated, million, 16, "0f" * 32).bits == 16
    with pytest.raises(EncodingError, match="need 17 bits"):  # against three colluders the noise itself is too wide
        encoding_of(shared(Unit.SILO, kappa=2.0), million, 16, "0f" * 32)
    with pytest.raises(EncodingError, match="do not hold"):
        encoding_of(shared(batch=20_000), 10**8)
    with pytest.raises(EncodingError, match="need 25 bits"):
        encoding_of(shared(batch=72), million, 24)


def test_a_share_too_small_to_be_added_up_is_refused():
    with pytest.raises(EncodingError, match="below 256"):
        encoding_of(shared(noise=0.05, kappa=4.0), 100)


@pytest.mark.parametrize(("unit", "bits", "kappa", "limit"), [
    (Unit.RECORD, None, None, 1.01),
    (Unit.RECORD, 32, 16.0, 1.01),
    (Unit.SILO, None, 16.0, 1.01),
    (Unit.SILO, 16, 2.0, 1.04),
])  # fmt: skip
@pytest.mark.parametrize("survivors", [7, 10])
def test_the_error_of_the_released_sum_is_that_of_the_gaussian_mechanism(unit, bits, kappa, limit, survivors):
    """A8: against z C sqrt(survivors / (U_min - c_dp)), at d = 20,000; two standard errors are 0.01."""
    dimension = 20_000
    noise = shared(unit, noise=1.7, kappa=kappa)
    encoding = encoding_of(noise, dimension, bits, "0f" * 32 if bits == 16 else None)
    vectors = np.random.default_rng(4).normal(size=(survivors, dimension)) / math.sqrt(dimension)
    if unit is Unit.SILO:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) * (1 + 1e-9)
    label = f"error {unit} {survivors}"
    mean, probes = mean_of(noise, encoding, summed(encoding, vectors, label))
    error = (mean - vectors.sum(axis=0) / noise.denominator).std() / noise.noise(survivors)
    assert 0.985 < error <= limit + 0.01
    promised = math.sqrt(encoding.delta2_squared) / (encoding.scale * CLIP)  # what the encoding itself costs
    assert promised <= limit
    test = watch(ProbeTest(), encoding, probes, survivors)
    assert not test.alarm


def test_a_sum_of_shares_is_distributed_as_one_discrete_gaussian():
    """Chi-squared against the exact probabilities of N_Z(0, survivors sigma_c^2)."""
    noise = shared(noise=1.0, probes=1024, kappa=4.0)
    encoding = encoding_of(noise, 50_000)
    total = summed(encoding, np.zeros((7, 50_000)), "shape")
    decoded, probes = encoding.decode(total)
    integers = np.concatenate([np.rint(decoded * encoding.scale).astype(np.int64), probes])
    assert goodness(integers, 7 * encoding.noise_variance) > 1e-4
    assert goodness(integers, 6.8 * encoding.noise_variance) < 1e-4  # the test can fail


def test_a_repeated_attempt_draws_fresh_noise_and_the_same_source_the_same():
    encoding = encoding_of(shared(), 1000)
    plain, _ = words(encoding, np.ones(1000), source("attempt"))
    one, again = (add_share(encoding, plain, source("attempt", attempt)) for attempt in (1, 1))
    other = add_share(encoding, plain, source("attempt", 2))
    assert (one == again).all()
    assert (one != other).mean() > 0.99
    assert (one[-encoding.probes :] != 0).mean() > 0.99
    spent = source("attempt", 3)
    assert (add_share(encoding, plain, spent) != add_share(encoding, plain, spent)).mean() > 0.99


def watched(label, spoil, survivors=10, rounds=5):
    noise = shared()
    encoding = encoding_of(noise, 16)
    test = ProbeTest()
    for number in range(rounds):
        total = summed(encoding, np.zeros((survivors, 16)), f"{label} {number}", spoil)
        test = watch(test, encoding, mean_of(noise, encoding, total)[1], survivors)
    return test


BUGS = {
    "a tenth too small": lambda drawn, party: np.rint(0.9 * drawn),
    "missing square root": lambda drawn, party: np.rint(drawn / math.sqrt(3)),
    "one silo of ten adds none": lambda drawn, party: drawn * (party != 4),
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("bug", BUGS)
def test_seeded_bugs_are_found_within_five_rounds(bug, seed):
    """With the 2,048 probes that ten parties have; with 1,024, one missing share is missed in 13 of 100 runs."""
    test = watched(f"{bug} {seed}", BUGS[bug])
    assert test.too_little is not None
    assert test.too_little <= 5
    assert test.too_much is None


@pytest.mark.parametrize("survivors", [7, 10])
def test_honest_silos_raise_no_alarm(survivors):
    assert not watched("honest", lambda drawn, party: drawn, survivors, rounds=10).alarm
