"""Robust rules against their definitions, written down plainly, and against Flower's own classes."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.bulyan import aggregate_n_closest_weights
from flwr.serverapp.strategy.multikrum import select_multikrum
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize
from scipy.stats import trim_mean

from quire.strategies.robust.coordinates import mean_around_median, median, trimmed_mean
from quire.strategies.robust.geometry import (
    bulyan_choice,
    clipped_around,
    geometric_median,
    krum,
    krum_scores,
    products,
    squared_distances,
)

NUMBERS = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)


@st.composite
def tables(draw, least=1, most=12, widest=40):
    """Draw updates as the rows of a table, float32."""
    shape = draw(st.tuples(st.integers(least, most), st.integers(1, widest)))
    return draw(hnp.arrays(np.float32, shape, elements=NUMBERS))


def updates(table, cut=3):
    """Return the rows of a table as updates of two arrays."""
    return [{"a": row[:cut].copy(), "b": row[cut:].copy().reshape(-1, 1)} for row in table]


def flat(arrays):
    return np.concatenate([array.reshape(-1) for array in arrays.values()])


@given(tables())
def test_the_median_is_numpy_s(table):
    np.testing.assert_allclose(flat(median(updates(table))), np.median(table.astype(np.float64), axis=0), rtol=1e-12)


@given(tables(), st.data())
def test_the_trimmed_mean_is_scipy_s(table, data):
    trimmed = data.draw(st.integers(0, (len(table) - 1) // 2))
    found = flat(trimmed_mean(updates(table), trimmed))
    expected = np.sort(table.astype(np.float64), axis=0)[trimmed : len(table) - trimmed].mean(axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    share = trimmed / len(table)
    if int(share * len(table)) == trimmed:
        np.testing.assert_allclose(found, trim_mean(table.astype(np.float64), share, axis=0), rtol=1e-9, atol=1e-9)


@given(tables(), st.data())
def test_the_mean_around_the_median_takes_the_closest(table, data):
    kept = data.draw(st.integers(1, len(table)))
    found = flat(mean_around_median(updates(table), kept))
    wide = table.astype(np.float64)
    middle = np.median(wide, axis=0)
    for place, column in enumerate(wide.T):
        away = np.sort(np.abs(column - middle[place]))
        # Whichever of those that are as far are taken: the mean lies between that of the smaller and of the larger.
        surely, tied = (
            column[np.abs(column - middle[place]) < away[kept - 1]],
            column[np.abs(column - middle[place]) == away[kept - 1]],
        )
        need = kept - len(surely)
        low = (surely.sum() + np.sort(tied)[:need].sum()) / kept
        high = (surely.sum() + np.sort(tied)[len(tied) - need :].sum()) / kept
        slack = 1e-9 * (1.0 + np.abs(column).max())
        assert low - slack <= found[place] <= high + slack


def test_the_mean_around_the_median_is_flower_s():
    table = np.random.default_rng(0).standard_normal((11, 5000)).astype(np.float32)
    theirs = aggregate_n_closest_weights([np.median(table, axis=0)], [[row] for row in table], 7)[0]
    np.testing.assert_allclose(flat(mean_around_median(updates(table), 7)), theirs, rtol=1e-5, atol=1e-6)


@given(tables(least=2))
def test_products_resolve_every_distance(table):
    """To one in a thousand, or to the rounding of float64 products where updates are all but the same."""
    found = squared_distances(products(updates(table)))
    wide = table.astype(np.float64)
    exact = np.square(wide[:, None] - wide[None]).sum(axis=2)
    slack = 1e-13 * np.square(wide).sum(axis=1).max()
    np.testing.assert_allclose(found, exact, rtol=2e-3, atol=slack)


def test_products_of_close_and_of_giant_updates():
    rng = np.random.default_rng(1)
    common = rng.standard_normal(30_000)
    close = (common + 1e-4 * rng.standard_normal((6, 30_000))).astype(np.float32)
    close[5] = 3e38  # its square is beyond float32
    found = squared_distances(products(updates(close)))
    wide = close.astype(np.float64)
    exact = np.square(wide[:, None] - wide[None]).sum(axis=2)
    np.testing.assert_allclose(found, exact, rtol=1e-3)


def _reply(row, examples=1):
    metrics = MetricRecord({"num-examples": examples})
    return RecordDict({"arrays": ArrayRecord.from_numpy_ndarrays([row]), "metrics": metrics, "c": ConfigRecord()})


@pytest.mark.parametrize(
    ("count", "byzantine", "kept"), [(5, 1, 1), (12, 4, 1), (12, 4, 8), (50, 10, 30), (50, 10, 40)]
)
def test_krum_chooses_as_flower_does(count, byzantine, kept):
    for seed in range(5):
        table = np.random.default_rng(seed).standard_normal((count, 500)).astype(np.float32)
        table[: byzantine // 2] += 1.0
        replies = [_reply(row) for row in table]
        chosen = {id(one) for one in select_multikrum(replies, byzantine, kept)}
        places = krum(squared_distances(products(updates(table))), byzantine, kept)
        assert {place for place, one in enumerate(replies) if id(one) in chosen} == set(places)


@given(tables(least=7, most=15), st.data())
def test_bulyan_chooses_by_krum_again_and_again(table, data):
    count = len(table)
    byzantine = data.draw(st.integers(0, (count - 3) // 4))
    apart = squared_distances(products(updates(table)))
    left, expected = list(range(count)), []
    for _ in range(count - 2 * byzantine):
        scores = []
        for one in left:
            others = sorted(apart[one, other] for other in left if other != one)
            scores.append(sum(others[: max(1, len(left) - byzantine - 2)]))
        # Sums of the same numbers in another order: a tie, or all but one, may go to either.
        best = left[int(np.argmin(scores))]
        mine = krum_scores(apart[np.ix_(left, left)], byzantine)
        np.testing.assert_allclose(mine, scores, rtol=1e-9)
        best = left[int(mine.argmin())]
        expected.append(best)
        left.remove(best)
    assert bulyan_choice(apart, byzantine) == sorted(expected)


@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 6))
@settings(max_examples=50)
def test_no_point_is_closer_to_all_than_the_geometric_median(seed, count, width):
    table = np.random.default_rng(seed).standard_normal((count, width))
    weights = geometric_median(table @ table.T)
    assert weights.min() >= 0.0
    assert weights.sum() == pytest.approx(1.0)

    def total(point):
        return np.sqrt(np.square(table - point).sum(axis=1)).sum()

    best = minimize(total, np.median(table, axis=0), method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-12})
    assert total(weights @ table) <= best.fun * (1 + 1e-4) + 1e-9


def test_the_geometric_median_of_giants_and_of_equals():
    rng = np.random.default_rng(2)
    table = rng.standard_normal((9, 50))
    honest = np.vstack([table[:5]])
    table[5:] = 1e20
    point = geometric_median(table @ table.T) @ table
    # Nearly half are giants: the point stays within the reach of the honest ones.
    assert np.linalg.norm(point - honest.mean(axis=0)) < 10 * np.linalg.norm(honest - honest.mean(axis=0), axis=1).max()
    same = np.ones((4, 3))
    np.testing.assert_allclose(geometric_median(same @ same.T) @ same, np.ones(3))


@given(st.integers(0, 10**6), st.sampled_from([0.1, 1.0, 100.0, None]), st.integers(1, 5))
def test_clipping_around_a_centre_is_the_paper_s_recursion(seed, radius, steps):
    rng = np.random.default_rng(seed)
    table, centre = rng.standard_normal((7, 20)), rng.standard_normal(20)
    whole = np.vstack([table, centre])
    found = clipped_around(whole @ whole.T, radius, steps) @ whole
    for _ in range(steps):
        away = table - centre
        norms = np.linalg.norm(away, axis=1, keepdims=True)
        reach = np.median(norms) if radius is None else radius
        centre = centre + (away * np.minimum(1.0, reach / norms)).mean(axis=0)
    np.testing.assert_allclose(found, centre, rtol=1e-7, atol=1e-7)
