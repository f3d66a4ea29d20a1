"""From a party's vector to bytes and back from the sum: exact where it has to be, never wrapping, strict in reading."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from noise_support import source

from quire.privacy.dp.contract import Unit
from quire.privacy.dp.encoding import Encoding
from quire.privacy.dp.rotation import padded_length, rotate, unrotate, walsh_hadamard
from quire.privacy.dp.rounding import ROUNDING_FAILURE, EncodingError
from quire.privacy.dp.wire import WIDTHS, bits_needed, centred, pack, to_ring, unpack

KEY = "0f" * 32
ring = hnp.arrays(np.uint32, st.integers(0, 50))


def planned(unit=Unit.SILO, dimension=100, **changes):
    return Encoding.plan(unit, dimension, 1.0, **{"parties": 5, "noise_multiplier": 1.0, **changes})


@given(ring, st.sampled_from(WIDTHS))
def test_packing_keeps_the_low_bits(words, bits):
    packed = pack(words, bits)
    assert len(packed) == len(words) * bits // 8
    back = unpack(packed, bits, len(words))
    assert back.dtype == np.uint32
    assert (back == words.astype(np.uint64) % 2**bits).all()
    assert packed == b"".join((int(word) % 2**bits).to_bytes(bits // 8, "little") for word in words)


@given(st.binary(max_size=40), st.sampled_from(WIDTHS), st.integers(0, 14))
def test_bytes_of_another_length_are_refused(data, bits, count):
    if len(data) == count * bits // 8:
        assert pack(unpack(data, bits, count), bits) == data
    else:
        with pytest.raises(EncodingError, match="not"):
            unpack(data, bits, count)


@pytest.mark.parametrize("bits", [0, 8, 20, 64, -16])
def test_other_widths_are_refused(bits):
    for work in (lambda: pack(np.zeros(2, np.uint32), bits), lambda: unpack(b"", bits, 0)):
        with pytest.raises(EncodingError, match="16, 24 or 32"):
            work()


@given(st.lists(hnp.arrays(np.int64, 8, elements=st.integers(-(2**40), 2**40)), min_size=1, max_size=6))
def test_cutting_to_fewer_bits_and_adding_commute(vectors):
    for bits in WIDTHS:
        late = pack(np.sum([to_ring(vector) for vector in vectors], axis=0, dtype=np.uint32), bits)
        early = np.sum([unpack(pack(to_ring(vector), bits), bits, 8) for vector in vectors], axis=0, dtype=np.uint32)
        assert pack(early, bits) == late


@given(st.sampled_from(WIDTHS), st.data())
def test_centring_returns_what_fits(bits, data):
    half = 2 ** (bits - 1)
    values = np.array(data.draw(st.lists(st.integers(-half, half - 1), max_size=20)), dtype=np.int64)
    assert (centred(to_ring(values), bits) == values).all()
    assert (centred(to_ring(values + 2**bits), bits) == values).all()


@given(st.integers(1, 200), st.integers(0, 50))
def test_a_rotation_keeps_lengths_and_is_undone(dimension, seed):
    vector = np.random.default_rng(seed).normal(size=dimension)
    key = bytes([seed]) * 32
    rotated = rotate(vector, key)
    assert len(rotated) == padded_length(dimension) < 2 * dimension or dimension == 1
    assert np.linalg.norm(rotated) == pytest.approx(np.linalg.norm(vector), rel=1e-12)
    assert unrotate(rotated, key, dimension) == pytest.approx(vector, abs=1e-12)


@pytest.mark.parametrize("length", [1, 2, 4, 8, 64, 128])
def test_the_transform_is_that_of_the_matrix(length):
    matrix = np.array([[1.0]])
    while len(matrix) < length:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    vector = np.random.default_rng(length).normal(size=length)
    before = vector.copy()
    assert walsh_hadamard(vector) == pytest.approx(matrix @ vector / math.sqrt(length), abs=1e-12)
    assert (vector == before).all()


def test_a_rotation_spreads_a_single_spike_over_all_coordinates():
    spike = np.zeros(1000)
    spike[17] = 1.0
    assert np.abs(rotate(spike, bytes(32))) == pytest.approx(np.full(1024, 1024**-0.5))


def released(encoding, vectors, present=None):
    """What a server gets: every party's integers and noise, cut to the wire's bits, added."""
    total = np.zeros(encoding.length, dtype=np.uint32)
    for party, vector in enumerate(vectors[:present]):
        drawn = source("party", party, encoding.bits)
        integers = encoding.encode(vector, drawn).integers + encoding.noise(drawn)
        total += unpack(pack(to_ring(integers), encoding.bits), encoding.bits, encoding.length)
    return encoding.decode(total)


@pytest.mark.parametrize(
    ("bits", "kappa", "rotation"), [(32, 16.0, None), (24, 16.0, None), (16, 2.0, KEY), (24, 16.0, KEY)]
)
@pytest.mark.parametrize("unit", list(Unit))
def test_the_sum_comes_back_with_just_the_noise_that_was_promised(unit, bits, kappa, rotation):
    encoding = planned(unit, 10_000, bits=bits, kappa=kappa, rotation=rotation, noise_shares=3)
    vectors = np.random.default_rng(3).normal(size=(5, 10_000))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    decoded, probes = released(encoding, list(vectors))
    error = (decoded - vectors.sum(axis=0)).std() / math.sqrt(5 / 3)
    assert error == pytest.approx(1.0, abs=0.06 if kappa == 2.0 else 0.03)
    assert probes.std() == pytest.approx(math.sqrt(5 * encoding.noise_variance), rel=0.1)
    assert len(decoded) == 10_000


def test_without_noise_the_sum_is_right_to_the_grid():
    encoding = planned(noise_multiplier=0.0, dimension=1000)
    vectors = [np.random.default_rng(seed).normal(size=1000) / 100 for seed in range(5)]
    decoded, probes = released(encoding, vectors)
    assert np.abs(decoded - np.sum(vectors, axis=0)).max() <= 5 / encoding.scale
    assert not probes.any()


@pytest.mark.parametrize("dimension", [1, 7, 1000])
@pytest.mark.parametrize("unit", list(Unit))
@pytest.mark.parametrize("sign", [1, -1])
def test_equal_vectors_at_the_bound_and_extreme_noise_do_not_wrap(unit, dimension, sign):
    """All parties send the largest coordinates there are, and all noise reaches twelve standard deviations."""
    encoding = planned(unit, dimension, parties=10, batch=30 if unit is Unit.RECORD else 1, noise_multiplier=4.0)
    vector = np.zeros(dimension)
    vector[0] = sign * 1e9
    integers = encoding.encode(vector, source("worst")).integers
    limit = encoding.bound if unit is Unit.RECORD else 16 * math.sqrt(dimension)
    assert abs(int(integers[0])) >= math.floor(limit)
    tail = math.floor(12 * math.sqrt(encoding.noise_variance * 10))
    largest = sign * (10 * encoding.bound + tail)
    total = to_ring(np.full(encoding.length, largest))
    decoded, _ = encoding.decode(total)
    assert decoded[0] * encoding.scale == pytest.approx(largest)


@given(st.integers(1, 1000), st.integers(1, 10**6), st.integers(0, 10**10))
def test_the_width_is_the_least_that_holds_the_sum(parties, bound, variance):
    bits = bits_needed(parties, bound, variance)
    reach = parties * bound + 12 * math.sqrt(variance * parties)
    assert 2**bits >= 2 * reach + 1
    assert 2 ** (bits - 1) < 2 * reach + 4


def test_the_width_is_computed_and_a_narrower_one_refused():
    """The figures of the specification: kappa = 16, a million coordinates, z = 1."""
    assert planned(dimension=10**6, parties=10).bits == 24
    assert planned(dimension=10**6, parties=100).bits == 24
    assert bits_needed(10, 16_008, 16_008**2 // 9) == 20
    batch_of_72 = planned(Unit.RECORD, 10**6, parties=10, batch=72)
    assert batch_of_72.bits == 32
    assert bits_needed(10, batch_of_72.bound, batch_of_72.noise_variance) == 25
    with pytest.raises(EncodingError, match="25 bits"):
        planned(Unit.RECORD, 10**6, parties=10, batch=72, bits=24)
    assert planned(Unit.RECORD, 10**6, parties=10, batch=72, bound=500_000).bits == 24
    with pytest.raises(EncodingError, match="do not hold"):
        planned(Unit.RECORD, 10**6, parties=1000, batch=100_000)


def test_clamping_is_counted():
    encoding = planned(Unit.RECORD, 3, bound=10, noise_multiplier=3.0)
    vector = np.array([5.0, -5.0, 0.01])
    encoded = encoding.encode(vector, source("clamp"))
    assert encoded.integers[:2].tolist() == [10, -10]
    assert encoded.clamped == 2


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_silo_s_broken_vector_becomes_zero_and_a_broken_sum_is_refused(broken):
    vector = np.ones(100)
    vector[5] = broken
    encoded = planned().encode(vector, source("broken"))
    assert not encoded.finite
    assert not encoded.integers.any()
    with pytest.raises(EncodingError, match="not finite"):
        planned(Unit.RECORD).encode(vector, source("broken"))


def test_shapes_and_types_are_checked():
    for wrong in (np.ones(99), np.ones((10, 10)), np.ones(100, dtype=np.float32)):
        with pytest.raises(EncodingError, match="100 float64"):
            planned().encode(wrong, source("shape"))
    with pytest.raises(EncodingError, match="integers"):
        planned().decode(np.zeros(100, dtype=np.uint32))


def test_fresh_sources_give_fresh_noise():
    encoding = planned()
    assert (encoding.noise(source("a")) != encoding.noise(source("b"))).mean() > 0.9
    assert len(encoding.noise(source("a"))) == encoding.length == 1124


def test_a_share_that_is_too_small_for_sums_is_refused():
    with pytest.raises(EncodingError, match="below 256"):
        planned(dimension=1, kappa=1.0, noise_multiplier=1.0)
    assert planned(dimension=1, kappa=1.0, parties=1).noise_variance < 256  # alone it is one discrete Gaussian


def test_what_a_release_adds_to_delta():
    assert planned(Unit.SILO).failure == 0.0
    assert planned(Unit.RECORD).failure == ROUNDING_FAILURE == 2.0**-60


@pytest.mark.parametrize("rotation", [None, KEY])
@pytest.mark.parametrize("unit", list(Unit))
def test_an_encoding_survives_json(unit, rotation):
    encoding = planned(unit, rotation=rotation, noise_shares=2)
    assert Encoding.from_json(json.loads(json.dumps(encoding.to_json()))) == encoding


@pytest.mark.parametrize(
    "change",
    [
        {"noise_variance": 300},
        {"delta2_squared": 1},
        {"unit": "patient"},
        {"clip": 0.0},
        {"clip": math.nan},
        {"clip": "1.0"},
        {"parties": 5.0},
        {"parties": True},
        {"noise_shares": 6},
        {"noise_shares": 0},
        {"noise_multiplier": -1.0},
        {"bits": 8},
        {"bits": 16, "bound": 2**20},
        {"probes": -1},
        {"rotation": "xy"},
        {"rotation": 7},
        {"rotation": KEY.upper()},
        {"kappa": 0.1},
        {"dimension": 0},
        {"extra": 1},
    ],
    ids=str,
)
def test_an_encoding_with_a_number_changed_is_refused(change):
    with pytest.raises(EncodingError):
        Encoding.from_json(planned().to_json() | change)


def test_an_encoding_with_a_field_missing_is_refused():
    for name in planned().to_json():
        left = {key: value for key, value in planned().to_json().items() if key != name}
        with pytest.raises(EncodingError, match="exactly"):
            Encoding.from_json(left)
