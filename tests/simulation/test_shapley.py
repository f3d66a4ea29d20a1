"""Shapley's axioms on small games, exact and sampled."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quire.simulation.shapley import leave_one_out, sampled_shapley, shapley


@st.composite
def games(draw, most=4):
    """A game of up to four players, as a table."""
    players = draw(st.integers(1, most))
    coalitions = [frozenset(one) for size in range(players + 1) for one in itertools.combinations(range(players), size)]
    return players, {one: draw(st.floats(-1, 1)) for one in coalitions}


def by_orders(players, value):
    """The definition: the mean over all orders."""
    orders = list(itertools.permutations(range(players)))
    found = np.zeros(players)
    for order in orders:
        for place, player in enumerate(order):
            found[player] += value(frozenset(order[: place + 1])) - value(frozenset(order[:place]))
    return found / len(orders)


@given(games())
def test_exact_values_are_the_mean_over_all_orders_and_add_up_to_what_there_is(game):
    players, table = game
    found = shapley(players, table.__getitem__)
    np.testing.assert_allclose(found, by_orders(players, table.__getitem__), atol=1e-12)
    np.testing.assert_allclose(found.sum(), table[frozenset(range(players))] - table[frozenset()], atol=1e-12)


@given(games(), st.integers(0, 2**32))
def test_sampled_values_add_up_as_well_in_every_cycle(game, seed):
    players, table = game
    found = sampled_shapley(players, table.__getitem__, 3, 0.0, np.random.default_rng(seed))
    whole = table[frozenset(range(players))] - table[frozenset()]
    np.testing.assert_allclose(found.added.sum(axis=1), whole, atol=1e-12)
    assert found.truncated == 0


@given(games(3), st.integers(0, 2**32))
def test_a_null_player_has_nothing_and_twins_have_the_same(game, seed):
    players, table = game
    null, twin = players, players + 1  # the twin of player 0

    def value(coalition):
        seen = coalition - {null, twin} | ({0} if twin in coalition else set())
        return table[frozenset(seen)] + (0.5 if {0, twin} <= coalition else 0.0)

    found = shapley(players + 2, value)
    np.testing.assert_allclose(found[null], 0.0, atol=1e-12)
    np.testing.assert_allclose(found[0], found[twin], atol=1e-12)
    drawn = sampled_shapley(players + 2, value, 2, 0.0, np.random.default_rng(seed))
    np.testing.assert_allclose(drawn.mean[null], 0.0, atol=1e-12)
    assert leave_one_out(players + 2, value)[null] == 0.0


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=6), st.integers(0, 2**32))
def test_what_simply_adds_up_is_found_by_one_cycle(worths, seed):
    players, value = len(worths), lambda coalition: sum(worths[one] for one in sorted(coalition))
    found = sampled_shapley(players, value, 2, 0.0, np.random.default_rng(seed))
    np.testing.assert_allclose(found.mean, worths, atol=1e-12)
    np.testing.assert_allclose(found.half_width(), 0.0, atol=1e-9)


@pytest.mark.parametrize("least", [1, 2, 3, 4, 5])
def test_where_small_coalitions_are_worth_nothing_a_cycle_gives_alike_players_the_same(least):
    found = sampled_shapley(5, lambda coalition: float(len(coalition) >= least), 2, 0.0, np.random.default_rng(0))
    np.testing.assert_allclose(found.mean, 0.2, atol=1e-12)


def test_the_interval_covers_the_exact_value_as_often_as_it_says():
    rng = np.random.default_rng(7)
    table = {frozenset(one): float(rng.normal()) for size in range(6) for one in itertools.combinations(range(5), size)}
    exact, hits = shapley(5, table.__getitem__), []
    for _ in range(200):
        found = sampled_shapley(5, table.__getitem__, 6, 0.0, rng)
        hits.append(np.abs(found.mean - exact) <= found.half_width())
    assert 0.92 < np.mean(hits) < 0.99


def test_an_order_is_left_once_it_is_worth_as_much_as_everybody_and_not_before():
    asked = []

    def value(coalition):
        asked.append(coalition)
        return {0: 0.0, 1: 0.0, 2: 0.995}.get(len(coalition), 1.0)

    found = sampled_shapley(5, value, 1, 0.01, np.random.default_rng(1))
    assert max(len(one) for one in asked[2:]) == 2
    assert found.truncated == 5 * 3
    np.testing.assert_allclose(found.added.sum(), 0.995)
    assert np.isinf(found.half_width()).all()
