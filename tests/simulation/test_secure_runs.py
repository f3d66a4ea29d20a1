"""Whole federations under secure aggregation in this process: the sum is the plain mean, whatever is asked for."""

import numpy as np
import pytest
from secure_runs import BASE, ONE, RUN, SECURE, SECURE_ONE, apart, bound_of, model_of, rounds_of

import quire
from quire.clients.contract import EVALUATE, STEPS
from quire.clients.tasks import task_of
from quire.conf.compose import compose
from quire.privacy.identity.roster import Roster
from quire.privacy.randomness import stream
from quire.simulation.grid import InlineGrid
from quire.strategies import algorithms, server_optimizers


@pytest.mark.parametrize("bits", ["null", "16", "24", "32"])
@pytest.mark.parametrize("strategy", ["fedavg", "fedprox strategy.mu=0.1"])
def test_one_round_is_the_plain_mean_within_the_bound_of_the_encoding(strategy, bits, tmp_path):
    common = f"{ONE} strategy={strategy}"
    quire.run(common, tmp_path / "plain")
    overrides = f"{common} aggregation=secure aggregation.bits={bits}"
    quire.run(overrides, tmp_path / "secure")
    distance = apart(model_of(tmp_path / "plain"), model_of(tmp_path / "secure"))
    assert 0.0 < distance <= bound_of(overrides) + 1e-6  # the model's own float32
    loss = [rounds_of(tmp_path / name)[0]["train"]["loss"] for name in ("plain", "secure")]
    assert loss[0] == pytest.approx(loss[1], abs=1e-6)


@pytest.fixture
def means(monkeypatch):
    """The mean update of every round, as each algorithm is given it."""
    found = []
    for kind in (algorithms.Averaging, algorithms.Normalised, server_optimizers.Momentum, server_optimizers.Adaptive):

        def watched(self, state, mean, share, step=kind.step):
            found.append({name: np.array(part) for name, part in mean.items()})
            return step(self, state, mean, share)

        monkeypatch.setattr(kind, "step", watched)
    return found


@pytest.mark.parametrize("more", ["bits=16", "bits=24", "bits=16 aggregation.rotation=true"])
@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "fednova", "fedavgm", "fedadam", "fedyogi", "fedadagrad"])
def test_every_strategy_is_given_the_plain_mean_within_the_bound(strategy, more, means, tmp_path):
    """Silos of very different sizes: the weights are under the mask too."""
    common = f"{ONE} strategy={strategy}".replace("partition=iid", "partition=dirichlet partition.alpha=1")
    overrides = f"{common} aggregation=secure aggregation.{more}"
    quire.run(common, tmp_path / "plain")
    quire.run(overrides, tmp_path / "secure")
    plain, secure = means
    assert set(plain) == set(secure)
    assert secure.pop(STEPS, 1.0) == pytest.approx(float(plain.pop(STEPS, 1.0)), rel=1e-6)
    errors = np.concatenate([(plain[name] - secure[name]).ravel() for name in plain])
    assert np.abs(errors).max() > 0.0
    # With a rotation the bound is on the norm of a block, and this model is smaller than one.
    assert (np.linalg.norm(errors) if "rotation" in more else np.abs(errors).max()) <= bound_of(overrides)


@pytest.mark.parametrize("strategy", ["fedavgm", "fedadagrad", "fedadam", "fedyogi", "fednova"])
def test_every_strategy_moves_as_on_plain_means(strategy, tmp_path):
    quire.run(f"{RUN} strategy={strategy}", tmp_path / "plain")
    quire.run(f"{SECURE} strategy={strategy} aggregation.bits=32", tmp_path / "secure")
    # Server optimisers divide by roots of small numbers, and FedNova multiplies by a number of steps.
    assert apart(model_of(tmp_path / "plain"), model_of(tmp_path / "secure")) < 2e-5


def test_what_lies_beyond_the_bound_is_cut_and_logged(tmp_path, caplog):
    quire.run(f"{SECURE_ONE} aggregation.bound=0.01", tmp_path / "run")
    first = task_of(compose(RUN)).initial_arrays(stream(1, "model"))
    assert apart(first, model_of(tmp_path / "run")) <= 0.0101
    assert "coordinates of round 1 lay beyond aggregation.bound" in caplog.text


def test_the_model_depends_on_the_seed_and_not_on_the_masks(tmp_path):
    first = quire.run(SECURE, tmp_path / "a").model
    assert quire.run(SECURE, tmp_path / "b").model == first  # with other sessions and other keys
    assert quire.run(f"{SECURE} seed=2", tmp_path / "c").model != first


def test_a_silo_with_more_rows_than_count_counts_no_more(tmp_path):
    quire.run(f"{SECURE_ONE} aggregation.max_rows=1", tmp_path / "run")
    assert (
        quire.run(SECURE_ONE, tmp_path / "other").model
        != quire.run(f"{SECURE_ONE} aggregation.max_rows=20", tmp_path / "third").model
    )


def test_a_part_of_the_silos_is_asked_in_each_round(tmp_path):
    quire.run(f"{BASE} aggregation=secure partition.silos=8 strategy.fraction=0.75 strategy.rounds=3", tmp_path / "run")
    cohorts = [line["cohort"] for line in rounds_of(tmp_path / "run")]
    assert [len(cohort) for cohort in cohorts] == [6, 6, 6]
    assert len({tuple(cohort) for cohort in cohorts}) > 1
    assert [line["replied"] for line in rounds_of(tmp_path / "run")] == cohorts
    assert [line["secure"]["session"] for line in rounds_of(tmp_path / "run")] == [1, 1, 1]


def test_keys_are_agreed_anew_after_so_many_rounds(tmp_path):
    quire.run(f"{BASE} aggregation=secure strategy.rounds=5 aggregation.rekey_every=2", tmp_path / "run")
    assert [line["secure"]["session"] for line in rounds_of(tmp_path / "run")] == [1, 1, 3, 3, 5]


def test_keys_are_agreed_anew_when_a_membership_ends(tmp_path, monkeypatch):
    active, deliver, ended = Roster.active, InlineGrid._deliver, []
    monkeypatch.setattr(
        Roster, "active", lambda self, moment: active(self, moment)[:4] if ended else active(self, moment)
    )

    def ending(self, message):
        ended.extend(["now"] if (message.metadata.message_type, message.metadata.group_id) == (EVALUATE, "2") else [])
        return deliver(self, message)

    monkeypatch.setattr(InlineGrid, "_deliver", ending)
    quire.run(f"{BASE} aggregation=secure strategy.rounds=4", tmp_path / "run")
    rounds = rounds_of(tmp_path / "run")
    assert [line["secure"]["session"] for line in rounds] == [1, 1, 3, 3]
    assert [len(line["replied"]) for line in rounds] == [5, 5, 4, 4]
    assert rounds[2]["replied"] == [f"hospital-{place}" for place in range(1, 5)]
