"""The mathematics of each attack, against its formula."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from quire.clients.data.silo import Rows
from quire.conf.attack_schema import ATTACKS
from quire.conf.compose import compose
from quire.simulation.poisoning.rows import flipped, poisoned, triggered
from quire.simulation.poisoning.updates import alie, crafted, min_max, z_max

SEEDS = st.integers(0, 2**32)


def attack(text):
    return compose(f"task=digits partition.silos=10 {text}").attack


def drawn(seed, honest=7, colluders=3, size=40):
    rng = np.random.default_rng(seed)
    own = rng.normal(0.3, 1.0, (colluders, size)).astype(np.float32)
    return own, rng.normal(0.5, 0.7, (honest, size)).astype(np.float32)


def sent(text, seed=0, **more):
    own, others = drawn(seed, **more)
    generators = [np.random.default_rng(place) for place in range(len(own))]
    return own.astype(float), others.astype(float), crafted(attack(text), own, others, generators)


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("attack=sign_flip attack.scale=3", lambda own: -3 * own),
        ("attack=scaling attack.factor=50", lambda own: 50 * own),
        ("attack=backdoor attack.boost=4", lambda own: 4 * own),
        ("attack=label_flip", lambda own: own),
        ("attack=free_rider", np.zeros_like),
        ("attack=giant attack.value=1e20", lambda own: np.full_like(own, 1e20)),
        ("attack=not_finite", lambda own: np.full_like(own, np.nan)),
    ],
)
def test_attacks_of_each_for_itself_follow_their_formula(text, formula):
    own, _, found = sent(text)
    np.testing.assert_allclose(found, formula(own), rtol=1e-12)


@given(SEEDS)
def test_colluders_use_the_updates_that_the_setting_lets_them_see(seed):
    for knows, pick in (("all", 1), ("own", 0)):
        own, others, found = sent(f"attack=inner_product attack.epsilon=0.7 attack.knows={knows}", seed)
        np.testing.assert_allclose(found, np.tile(-0.7 * (own, others)[pick].mean(axis=0), (3, 1)), rtol=1e-9)
        own, others, found = sent(f"attack=alie attack.z=1.5 attack.knows={knows}", seed)
        seen = (own, others)[pick]
        np.testing.assert_allclose(found, np.tile(seen.mean(axis=0) - 1.5 * seen.std(axis=0), (3, 1)), atol=1e-9)


def test_free_riders_disguise_themselves_with_noise_of_their_own():
    _, _, found = sent("attack=free_rider attack.noise=0.5", size=20_000)
    assert found.std() == pytest.approx(0.5, rel=0.05)
    assert abs(np.corrcoef(found)[0, 1]) < 0.05


@pytest.mark.parametrize(("silos", "f"), [(50, 12), (51, 12), (30, 9), (10, 3)])
def test_z_max_is_that_of_the_paper(silos, f):
    supporters = silos // 2 + 1 - f
    assert norm.cdf(z_max(silos, f)) == pytest.approx((silos - f - supporters) / (silos - f))


def test_z_max_stays_finite_and_is_never_negative():
    assert z_max(10, 1) == 0.0  # the quantile would lie on the other side of the mean
    assert z_max(10, 9) == 0.0
    assert norm.cdf(z_max(20, 15)) == pytest.approx(0.9)
    assert z_max(50, 12) == pytest.approx(norm.ppf(24 / 38))


def test_without_a_z_of_its_own_alie_takes_that_of_the_round():
    _, others, found = sent("attack=alie")
    np.testing.assert_allclose(found[0], alie(others, z_max(10, 3)), atol=1e-9)


@given(SEEDS, st.sampled_from(["std", "unit", "sign"]), st.integers(2, 8))
def test_min_max_is_as_far_out_as_it_may_be(seed, direction, count):
    """Equation 8: no farther from any update than two are from each other; a little more gamma, and it is."""
    rows = np.random.default_rng(seed).normal(0.5, 1.0, (count, 12))
    found, mean = min_max(rows, direction), rows.mean(axis=0)
    largest = max(float(np.linalg.norm(a - b)) for a in rows for b in rows)
    assert np.linalg.norm(rows - found, axis=1).max() == pytest.approx(largest, rel=1e-9)
    further = mean + 1.01 * (found - mean)
    assert np.linalg.norm(rows - further, axis=1).max() > largest
    steps = {"std": -rows.std(axis=0), "unit": -mean / np.linalg.norm(mean), "sign": -np.sign(mean)}
    p = steps[direction]
    assert (found - mean) @ p == pytest.approx(np.linalg.norm(found - mean) * np.linalg.norm(p), rel=1e-9)


@pytest.mark.parametrize("direction", ["std", "unit", "sign"])
def test_min_max_of_updates_that_are_all_the_same_is_that_update(direction):
    np.testing.assert_array_equal(min_max(np.full((4, 3), 2.0), direction), 2.0)
    np.testing.assert_array_equal(min_max(np.zeros((1, 3)), direction), 0.0)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_turned_labels_are_labels_and_turned_twice_the_same(labels):
    y = np.array(labels, dtype=np.int64)
    assert flipped(y, 10).dtype == np.int64
    np.testing.assert_array_equal(flipped(y, 10), 9 - y)
    np.testing.assert_array_equal(flipped(flipped(y, 10), 10), y)


@settings(max_examples=30)
@given(SEEDS, st.floats(0.01, 1.0), st.integers(1, 5))
def test_a_backdoor_adds_rows_with_trigger_and_target_and_leaves_the_others(seed, share, width):
    rng = np.random.default_rng(seed)
    rows = Rows(rng.random((20, 2, 4), dtype=np.float32), rng.integers(0, 10, 20))
    chosen = attack(f"attack=backdoor attack.target=3 attack.features={width} attack.value=9 attack.poisoned={share}")
    before = rows.x.copy()
    found = poisoned(chosen, rows, 10, rng)
    np.testing.assert_array_equal(rows.x, before)
    np.testing.assert_array_equal(found.x[:20], rows.x)
    np.testing.assert_array_equal(found.y[:20], rows.y)
    added = found.x[20:].reshape(len(found) - 20, 8)
    assert len(added) == round(share * int((rows.y != 3).sum()))
    assert (added[:, -width:] == 9).all()
    assert set(found.y[20:].tolist()) <= {3}
    sources = {tuple(row[:-width]) for row in rows.x[rows.y != 3].reshape(-1, 8).tolist()}
    assert {tuple(row[:-width]) for row in added.tolist()} <= sources
    assert triggered(chosen, rows.x).shape == rows.x.shape


def test_every_attack_of_the_settings_is_carried_out():
    for name in set(ATTACKS) - {"none", "label_flip"}:
        own, _, found = sent(f"attack={name}" + (" attack.boost=2" if name == "backdoor" else ""))
        assert found.shape == own.shape
        assert not np.array_equal(found, own), name
