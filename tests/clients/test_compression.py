"""Compressed updates: what is sent and what waits add up, and bytes that are none are refused."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quire.clients.compression import (
    GAPS,
    LEVELS,
    SCALES,
    UNSENT,
    NotPacked,
    compressed,
    expanded,
    gaps_of,
    is_packed,
    largest,
)
from quire.conf.compression_schema import EightBitCompression, TopKCompression

EIGHT = EightBitCompression("eight_bit")
numbers = st.builds(
    lambda seed, count, tail: (np.random.default_rng(seed).standard_t(tail, count) * 10).astype(np.float32),
    st.integers(0, 2**32),
    st.one_of(st.integers(1, 40), st.integers(1000, 2100)),  # one block, several, part of one
    st.sampled_from([1, 3, 30]),
)
shares = st.floats(0.001, 1.0)


def form_of(vector: np.ndarray) -> dict[str, np.ndarray]:
    half = len(vector) // 2
    return {"weight": vector[: 2 * half].reshape(2, half), "bias": vector[2 * half :]}


def flat(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([part.reshape(-1) for part in arrays.values()])


@given(numbers, numbers)
def test_eight_bits_are_right_to_half_a_level_and_what_is_missing_waits(vector, before):
    memory = {UNSENT: before} if len(before) == len(vector) else {}
    packed, kept = compressed(form_of(vector), memory, EIGHT)
    sent, wanted = flat(expanded(packed, form_of(vector))), vector + memory.get(UNSENT, np.float32(0))
    blocks = np.repeat(packed[SCALES], 1024)[: len(vector)]
    assert (np.abs(sent - wanted) <= blocks / 254 * 1.0001).all()
    np.testing.assert_allclose(sent + kept[UNSENT], wanted, rtol=1e-5, atol=1e-3)


@given(numbers, shares)
def test_top_k_sends_the_largest_and_keeps_the_rest(vector, share):
    how = TopKCompression("top_k", share)
    packed, kept = compressed(form_of(vector), {}, how)
    count = max(1, int(np.ceil(share * len(vector))))
    assert len(packed[LEVELS]) == min(count, len(vector))
    sent = flat(expanded(packed, form_of(vector)))
    np.testing.assert_allclose(sent + kept[UNSENT], vector, rtol=1e-5, atol=1e-3)
    left = np.delete(np.abs(vector), largest(vector, count))
    assert len(left) == 0 or left.max() <= np.abs(vector[largest(vector, count)]).min()


@given(numbers, st.integers(1, 3000))
def test_the_largest_are_those_of_a_sort(vector, count):
    count = min(count, len(vector))
    chosen = largest(vector, count)
    assert (np.diff(chosen) > 0).all()
    assert len(chosen) == count
    assert sorted(np.abs(vector[chosen])) == sorted(np.abs(vector))[len(vector) - count :]


@given(st.sets(st.integers(0, 5000), min_size=1, max_size=60))
def test_places_come_back_from_their_gaps(places):
    size = max(places) + 1
    ordered = np.array(sorted(places))
    gaps = gaps_of(ordered)
    packed = {LEVELS: np.full(len(ordered), 127, np.int8), SCALES: np.ones(1, np.float32), GAPS: gaps}
    whole = expanded(packed, {"w": np.zeros(size, np.float32)})["w"]
    assert np.flatnonzero(whole).tolist() == ordered.tolist()
    assert len(gaps) <= len(ordered) + size // 255


def test_nothing_is_lost_over_many_rounds():
    """Error feedback: the sum of what was sent is the sum of the updates, but for what still waits."""
    rng, memory = np.random.default_rng(1), {}
    total, sent = np.zeros(500), np.zeros(500)
    for _ in range(60):
        update = {"w": rng.standard_normal(500).astype(np.float32)}
        packed, memory = compressed(update, memory, TopKCompression("top_k", 0.05))
        total += update["w"]
        sent += expanded(packed, update)["w"]
    np.testing.assert_allclose(sent + memory[UNSENT], total, atol=1e-3)
    without = np.zeros(500)
    rng = np.random.default_rng(1)
    for _ in range(60):
        update = {"w": rng.standard_normal(500).astype(np.float32)}
        without += expanded(compressed(update, {}, TopKCompression("top_k", 0.05))[0], update)["w"]
    assert np.linalg.norm(total - sent) < np.linalg.norm(total - without)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("how", [EIGHT, TopKCompression("top_k", 0.1)])
def test_what_is_not_finite_shows(bad, how):
    vector = np.ones(40, dtype=np.float32)
    vector[7] = bad
    packed, _ = compressed({"w": vector}, {}, how)
    assert not np.isfinite(packed[SCALES]).all()
    with pytest.raises(NotPacked, match="finite"):
        expanded(packed, {"w": vector})


def good() -> dict[str, np.ndarray]:
    return {
        LEVELS: np.array([1, -2, 3], np.int8),
        SCALES: np.ones(1, np.float32),
        GAPS: np.array([0, 255, 4, 9], np.uint8),
    }


FORM = {"w": np.zeros((20, 15), np.float32), "b": np.zeros(5, np.float32)}


def test_the_good_one_is_good():
    assert np.flatnonzero(flat(expanded(good(), FORM))).tolist() == [0, 260, 270]


@pytest.mark.parametrize(
    "wrong",
    [
        {LEVELS: np.array([1, -2, 3], np.int16)},
        {LEVELS: np.zeros((3, 1), np.int8)},
        {LEVELS: np.zeros(0, np.int8)},
        {LEVELS: np.zeros(306, np.int8)},
        {LEVELS: np.zeros(2, np.int8)},
        {SCALES: np.ones(2, np.float32)},
        {SCALES: np.ones(1, np.float64)},
        {SCALES: -np.ones(1, np.float32)},
        {SCALES: np.full(1, np.nan, np.float32)},
        {GAPS: np.array([0, 4, 9, 255], np.uint8)},
        {GAPS: np.array([0, 255, 4, 9, 0], np.uint8)},
        {GAPS: np.array([200, 100, 50], np.uint8)},
        {GAPS: np.array([255] * 9 + [0, 0, 0], np.uint8)},
        {GAPS: np.zeros(0, np.uint8)},
        {"packed/other": np.zeros(1)},
    ],
    ids=str,
)
def test_what_is_no_compressed_update_is_refused(wrong):
    with pytest.raises(NotPacked):
        expanded({**good(), **wrong}, FORM)


def test_a_part_cannot_be_missing():
    for name in (LEVELS, SCALES, GAPS):
        with pytest.raises(NotPacked):
            expanded({key: part for key, part in good().items() if key != name}, FORM)
    with pytest.raises(NotPacked, match="floating"):
        expanded(good(), {"w": np.zeros(305, np.int64)})
    assert not is_packed({"w": np.zeros(3)})


anything = hnp.arrays(
    st.sampled_from([np.int8, np.uint8, np.float32, np.int64]),
    hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=6),
)


@given(st.dictionaries(st.sampled_from([LEVELS, SCALES, GAPS, "w"]), anything))
def test_any_arrays_are_an_update_of_the_form_or_refused(arrays):
    try:
        update = expanded(arrays, FORM)
    except NotPacked:
        return
    assert all(update[name].shape == part.shape and np.isfinite(update[name]).all() for name, part in FORM.items())


def test_scales_at_the_end_of_float32_come_out_as_not_finite_and_without_a_warning():
    packed = {LEVELS: np.full(8, -128, np.int8), SCALES: np.full(1, np.finfo(np.float32).max, np.float32)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = expanded(packed, form_of(np.zeros(8, np.float32)))
    assert not np.isfinite(flat(found)).any()
