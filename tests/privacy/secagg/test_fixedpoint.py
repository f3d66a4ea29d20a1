"""The encoding without noise: the sum cannot wrap, the weights are exact, the mean is within the stated bound."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from secagg_network import source

from quire.privacy.dp.rounding import EncodingError
from quire.privacy.dp.wire import centred, pack, unpack
from quire.privacy.secagg.fixedpoint import BLOCK, METRIC_BITS, FixedPoint, Layout

KEY = "ab" * 32


def total_of(encoding, vectors, weights, metrics, seed=0):
    total = np.zeros(encoding.length, dtype=np.uint32)
    for at, (vector, weight, values) in enumerate(zip(vectors, weights, metrics, strict=True)):
        words = encoding.encode(vector, weight, values, source(seed, at)).words
        total += unpack(pack(words, encoding.bits), encoding.bits, len(words))
    return total


@settings(max_examples=150, deadline=None)
@given(
    bits=st.sampled_from([16, 24, 32]),
    bound=st.sampled_from([1e-3, 1.0, 40.0]),
    max_weight=st.sampled_from([1, 7, 1000, 2**33]),
    data=st.data(),
)
def test_the_mean_is_the_plain_weighted_mean_within_the_stated_bound(bits, bound, max_weight, data):
    silos = data.draw(st.integers(1, 8))
    size = data.draw(st.integers(1, 6))
    parties = silos + data.draw(st.integers(0, 5))
    encoding = FixedPoint(size, parties, bits, bound, max_weight, (("loss", 5.0), ("accuracy", 1.0)))
    numbers = st.floats(-bound, bound)
    vectors = [data.draw(arrays(np.float64, size, elements=numbers)) for _ in range(silos)]
    weights = [data.draw(st.integers(0, max_weight)) for _ in range(silos)]
    weights[0] = max(1, weights[0])
    metrics = [{"loss": data.draw(st.floats(-5, 5)), "accuracy": data.draw(st.floats(0, 1))} for _ in range(silos)]
    mean = encoding.decode(total_of(encoding, vectors, weights, metrics))
    assert mean.weight == sum(weights)
    plain = np.average(vectors, axis=0, weights=weights)
    assert np.abs(mean.vector - plain).max() <= encoding.error(mean.weight, silos)
    for name, largest in encoding.metrics:
        value = np.average([item[name] for item in metrics], weights=weights)
        coarse = silos * largest * 2.0 ** (1 - METRIC_BITS) * max_weight / mean.weight
        assert abs(mean.metrics[name] - value) <= coarse + 1e-9 * largest


@pytest.mark.parametrize("bits", [16, 24, 32])
@pytest.mark.parametrize("parties", [1, 2, 3, 100, 1000])
@pytest.mark.parametrize("sign", [1, -1])
def test_all_parties_at_the_bound_with_full_weight_do_not_wrap(bits, parties, sign):
    encoding = FixedPoint(3, parties, bits, 2.0, 12345, (("loss", 1.0),))
    words = encoding.encode(np.full(3, sign * 1e9), 12345, {"loss": 7.0 * sign}, source(1)).words
    total = (words.astype(np.uint64) * parties).astype(np.uint32)
    mean = encoding.decode(total)
    np.testing.assert_allclose(mean.vector, sign * 2.0)
    assert (mean.weight, mean.metrics["loss"]) == (12345 * parties, sign)


def test_one_more_integer_would_wrap():
    encoding = FixedPoint(1, 10, 16, 1.0, 1)
    assert 10 * encoding.limit < 2**15 <= 10 * (encoding.limit + 1) + 8
    assert centred(np.array([10 * encoding.limit], dtype=np.uint32), 16)[0] == 10 * encoding.limit


def test_the_width_is_the_least_that_keeps_the_step():
    for step, bits in ((1e-1, 16), (1e-5, 24), (1e-7, 32)):
        encoding = FixedPoint.plan(4, 10, 1.0, step, 100)
        assert encoding.bits == bits
        assert encoding.bound / encoding.limit <= step
    with pytest.raises(EncodingError):
        FixedPoint.plan(4, 10, 1.0, 1e-12, 100)


def test_what_lies_beyond_the_bound_is_clamped_and_counted():
    encoding = FixedPoint(4, 2, 32, 1.0, 1)
    encoded = encoding.encode(np.array([0.5, 2.0, -3.0, 1.0]), 1, {}, source(1))
    assert encoded.clamped == 2
    np.testing.assert_allclose(encoding.decode(encoded.words).vector, [0.5, 1.0, -1.0, 1.0], atol=1e-8)


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(0, 50), weight=st.integers(1, 9), rotation=st.sampled_from([None, KEY]))
def test_the_share_that_was_clamped_is_a_metric_like_others(cut, weight, rotation):
    encoding = FixedPoint(50, 2, 24, 1.0, 9, (("cut", 1.0), ("loss", 5.0)), rotation=rotation)
    vectors = [np.zeros(50), np.where(np.arange(50) < cut, 90.0, 0.5)]
    total, share = np.zeros(encoding.length, np.uint32), []
    for at, (vector, size) in enumerate(zip(vectors, (9, weight), strict=True)):
        encoded = encoding.encode(vector, size, {"loss": 2.0}, source(at), counted="cut")
        total += encoded.words
        share.append(encoded.clamped / encoding.body)
    assert rotation or share == [0.0, cut / 50]
    expected = np.average(share, weights=[9, weight])
    assert encoding.decode(total).metrics["cut"] == pytest.approx(expected, abs=1e-9)


def test_what_overflows_when_it_is_rotated_has_no_encoding():
    encoding = FixedPoint(BLOCK, 2, 24, 1.0, 9, rotation=KEY)
    with pytest.raises(EncodingError, match="overflows"):
        encoding.encode(np.full(BLOCK, 1.7e308), 1, {}, source(1))


def test_rounding_is_unbiased():
    encoding = FixedPoint(20_000, 100, 16, 1.0, 1)
    encoded = encoding.encode(np.full(20_000, 0.1234 / encoding.scale), 1, {}, source(3))
    mean = centred(encoded.words, 16)[:20_000].mean()
    assert abs(mean - 0.1234) < 5 * np.sqrt(0.1234 * 0.8766 / 20_000)


@pytest.mark.parametrize("size", [1, BLOCK, BLOCK + 1, 10_000])
def test_a_rotation_comes_back_and_costs_one_block_at_most(size):
    silos = 3
    encoding = FixedPoint(size, silos, 16, 0.3, 10, rotation=KEY)
    assert size <= encoding.body < size + BLOCK
    vectors = [np.zeros(size) for _ in range(silos)]
    for at, vector in enumerate(vectors):
        vector[0] = at + 1.0  # one coordinate far beyond the bound: the rotation spreads it over its block
    assert encoding.encode(vectors[0], 10, {}, source(9)).clamped == 0
    mean = encoding.decode(total_of(encoding, vectors, [10, 5, 10], [{}] * 3))
    difference = mean.vector - np.average(vectors, axis=0, weights=[10, 5, 10])
    for start in range(0, size, BLOCK):
        assert np.linalg.norm(difference[start : start + BLOCK]) <= encoding.error(25, silos)


def test_arrays_of_any_shape_and_float_type_come_back_in_order():
    items = [
        np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not contiguous: C order is that of the indices
        np.array(7.5),
        np.zeros((0, 4), dtype=np.float16),
        np.array([1.5, -2.0], dtype=np.float16),
    ]
    layout = Layout.of(items)
    vector = layout.flatten(items)
    np.testing.assert_array_equal(vector, [0, 3, 1, 4, 2, 5, 7.5, 1.5, -2.0])
    for one, other in zip(items, layout.split(vector), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    with pytest.raises(EncodingError):
        Layout.of([np.array([1, 2])])
    with pytest.raises(EncodingError):
        layout.flatten(items[1:])


@pytest.mark.parametrize(
    ("vector", "weight", "metrics"),
    [
        ([np.nan, 0.0], 1, {"loss": 0.0}),
        ([np.inf, 0.0], 1, {"loss": 0.0}),
        ([0.0], 1, {"loss": 0.0}),
        ([0.0, 0.0], -1, {"loss": 0.0}),
        ([0.0, 0.0], 11, {"loss": 0.0}),
        ([0.0, 0.0], 1, {}),
        ([0.0, 0.0], 1, {"loss": float("nan")}),
    ],
)
def test_what_cannot_be_encoded_is_refused(vector, weight, metrics):
    encoding = FixedPoint(2, 2, 24, 1.0, 10, (("loss", 1.0),))
    with pytest.raises(EncodingError):
        encoding.encode(np.array(vector), weight, metrics, source(0))


def test_a_sum_without_weight_has_no_mean():
    encoding = FixedPoint(2, 2, 24, 1.0, 10)
    with pytest.raises(EncodingError):
        encoding.decode(np.zeros(encoding.length, dtype=np.uint32))


@pytest.mark.parametrize("change", [{"bits": 8}, {"bound": 0.0}, {"size": 0}, {"parties": 40_000}, {"max_weight": 0}])
def test_numbers_out_of_range_are_refused(change):
    with pytest.raises(EncodingError):
        FixedPoint(**{"size": 2, "parties": 2, "bits": 16, "bound": 1.0, "max_weight": 10, **change})
