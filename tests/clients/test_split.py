"""Setting rows aside under privacy: each by itself."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.clients.data.silo import Rows, split_each


@settings(max_examples=25, deadline=None)
@given(st.integers(20, 120), st.integers(0, 2**31), st.floats(0.05, 0.8))
def test_under_privacy_a_record_more_moves_no_other_across_the_split(count, seed, fraction):
    rng = np.random.default_rng(seed)
    rows = Rows(rng.normal(size=(count, 3)).astype(np.float32), rng.integers(0, 2, count))
    kept, aside = split_each(rows, fraction, bytes(32))
    assert len(kept) + len(aside) == count
    gone = int(rng.integers(count))
    fewer = rows.take(np.delete(np.arange(count), gone))
    kept_then, aside_then = split_each(fewer, fraction, bytes(32))
    assert len(kept) - len(kept_then) in (0, 1)
    assert (len(kept) - len(kept_then)) + (len(aside) - len(aside_then)) == 1
    assert {tuple(x) for x in kept_then.x} <= {tuple(x) for x in kept.x}
    assert {tuple(x) for x in aside_then.x} <= {tuple(x) for x in aside.x}


def test_about_the_asked_share_is_set_aside_and_the_key_decides_which():
    rows = Rows(np.arange(6000, dtype=np.float32).reshape(2000, 3), np.zeros(2000, np.int64))
    aside = split_each(rows, 0.2, bytes(32))[1]
    assert abs(len(aside) - 400) < 90  # five standard deviations
    assert len(split_each(rows, 0.0, bytes(32))[1]) == 0
    other = split_each(rows, 0.2, bytes(31) + b"1")[1]
    assert not np.array_equal(np.sort(other.x[:, 0])[:100], np.sort(aside.x[:, 0])[:100])
