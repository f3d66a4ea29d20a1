"""q-FedAvg against the paper's formulas (Li et al. 2020, arXiv 1905.10497, algorithm 2), with no Flower in sight."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

import quire
from quire.clients.contract import FAIR
from quire.clients.local import reweighted
from quire.strategies.aggregators import PlainMean
from quire.strategies.algorithms import Averaging, Reweighted
from quire.strategies.rounds import RoundState, Update, advance

NUMBERS = st.floats(-2, 2, width=32)
SILOS = st.lists(
    st.tuples(st.lists(NUMBERS, min_size=3, max_size=3), st.floats(0.01, 5), st.integers(1, 500)),
    min_size=1,
    max_size=6,
)


def round_of(silos, q, lipschitz, server_lr=1.0):
    """One round from the model (1, 1, 1): our code."""
    updates = [
        Update(str(place), reweighted({"w": np.array(moved)}, loss, q, lipschitz), rows)
        for place, (moved, loss, rows) in enumerate(silos)
    ]
    return advance(RoundState(0, {"w": np.ones(3)}), updates, Reweighted(server_lr, q), PlainMean()).model["w"]


def paper(silos, q, lipschitz):
    """The same from the paper's text, with silos drawn in proportion to their rows."""
    top, bottom = np.zeros(3), 0.0
    for moved, loss, rows in silos:
        delta_w = lipschitz * -np.array(moved)
        top += rows * loss**q * delta_w
        bottom += rows * (q * loss ** (q - 1) * (delta_w**2).sum() + lipschitz * loss**q)
    return np.ones(3) - top / bottom


@given(SILOS, st.floats(0, 5), st.floats(0.1, 50))
def test_a_round_is_the_papers(silos, q, lipschitz):
    np.testing.assert_allclose(round_of(silos, q, lipschitz), paper(silos, q, lipschitz), rtol=1e-9, atol=1e-12)


@given(SILOS, st.floats(0.1, 50), st.floats(0.1, 2))
def test_with_q_0_it_is_fedavg(silos, lipschitz, server_lr):
    updates = [Update(str(place), {"w": np.array(moved)}, rows) for place, (moved, _, rows) in enumerate(silos)]
    mean = advance(RoundState(0, {"w": np.ones(3)}), updates, Averaging(server_lr), PlainMean()).model["w"]
    np.testing.assert_allclose(round_of(silos, 0.0, lipschitz, server_lr), mean, rtol=1e-12, atol=1e-12)


@given(st.floats(0.1, 3), st.floats(0.1, 1), st.floats(1.5, 5))
def test_the_silo_with_the_larger_loss_pulls_harder(q, small, times):
    silos = [([1.0, 0.0, 0.0], small, 10), ([0.0, 1.0, 0.0], small * times, 10)]
    moved = round_of(silos, q, 2.0) - 1.0
    assert moved[1] > moved[0] > 0.0


def test_no_loss_at_all_is_no_end_of_the_run_and_a_negative_one_has_no_power():
    for q in (0.0, 0.5, 1.0, 10.0):
        told = reweighted({"w": np.ones(2, np.float32)}, 0.0, q, 2.0)
        assert told["w"].dtype == np.float32
        assert np.isfinite(told["w"]).all()
        assert 0.0 < float(told[FAIR]) < np.inf
    with pytest.raises(ValueError, match="negative"):
        reweighted({"w": np.ones(2)}, -0.5, 1.0, 2.0)


@pytest.mark.parametrize("divisor", [0.0, -1.0, 1e101])
def test_a_divisor_that_cannot_be_is_refused(divisor):
    assert Reweighted(1.0, 1.0).objection({FAIR: np.array(divisor)})
    assert Reweighted(1.0, 1.0).objection({FAIR: np.array(0.5)}) is None


def test_whole_runs(tmp_path):
    base = "partition.silos=3 strategy.rounds=2 training.lr=0.3"
    for name in ("strategy=fedavg", "strategy=qfedavg strategy.q=0", "strategy=qfedavg strategy.q=2"):
        quire.run(f"{base} {name}", tmp_path / name.replace(" ", "-"))
    batched = quire.run(f"{base} strategy=qfedavg strategy.q=2 runtime=batched", tmp_path / "batched")
    fedavg, zero, two, two_batched = (
        np.concatenate([part.ravel() for part in load_file(tmp_path / name / "model.safetensors").values()])
        for name in ("strategy=fedavg", "strategy=qfedavg-strategy.q=0", "strategy=qfedavg-strategy.q=2", "batched")
    )
    np.testing.assert_allclose(zero, fedavg, rtol=1e-5, atol=1e-6)
    assert np.abs(two - fedavg).max() > 1e-3
    np.testing.assert_allclose(two_batched, two, rtol=1e-4, atol=1e-5)
    assert batched.folder.exists()
