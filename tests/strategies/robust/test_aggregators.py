"""Robust aggregators: what f silos can do to the mean, how many replies a round takes, and whole runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quire.conf.compose import compose
from quire.conf.robust_schema import FEWEST
from quire.conf.schema import GROUPS, RobustAggregation
from quire.errors import RunFailed, SettingsError
from quire.simulation.inline import run_inline
from quire.strategies.algorithms import Averaging
from quire.strategies.build import build_strategy
from quire.strategies.robust.aggregators import Bulyan, CenteredClipping, Krum, MultiKrum, NormBound, TrimmedMean
from quire.strategies.robust.build import is_robust, robust_aggregator
from quire.strategies.rounds import Cohort, RoundState, Update, advance

RULES = [name for name, cls in GROUPS["aggregation"].items() if issubclass(cls, RobustAggregation)]
COHORT = Cohort(3, ())


def update(values, silo="s", weight=1.0):
    return Update(silo, {"w": np.asarray(values, dtype=np.float32)}, weight)


def mean(rule, rows, weights=None):
    weights = weights or [1.0] * len(rows)
    return rule.mean([update(row, str(at), weights[at]) for at, row in enumerate(rows)], COHORT)["w"]


def aggregator(name, silos=30, byzantine=None):
    chosen = "" if byzantine is None or name not in FEWEST else f" aggregation.byzantine={byzantine}"
    return robust_aggregator(compose(f"task=digits aggregation={name} partition.silos={silos}{chosen}").aggregation)


@pytest.mark.parametrize("name", RULES)
@given(seed=st.integers(0, 2**32), size=st.sampled_from([1e-3, 1.0, 1e3, 1e10, 1e30]))
def test_what_f_silos_send_moves_the_mean_only_so_far(name, seed, size):
    """The worst that 6 of 30 can do in one round, whatever their size, is of the order of the honest spread."""
    rng = np.random.default_rng(seed)
    honest = 1.0 + 0.1 * rng.standard_normal((24, 50))
    bad = size * rng.standard_normal((6, 50)) if seed % 2 else np.full((6, 50), -size)
    rows = np.vstack([honest, bad])[rng.permutation(30)]
    found = mean(aggregator(name, byzantine=6), rows)
    truth = honest.mean(axis=0)
    spread = np.linalg.norm(honest - truth, axis=1).max()
    away = np.linalg.norm(found - truth)
    # Clipping begins at zero here, so that its first rounds lag behind; all others stay among the honest ones.
    limit = 0.8 * np.linalg.norm(truth) if name in ("centered_clipping", "norm_bound") else 1.5 * spread
    assert away <= limit


def test_the_plain_mean_does_not_hold_where_they_do():
    rows = np.vstack([np.ones((24, 5)), np.full((6, 5), -1e6)])
    plain = build_strategy(compose("task=digits partition.silos=30")).aggregator
    assert np.abs(mean(plain, rows) - 1.0).max() > 1e5
    for name in set(RULES) - {"norm_bound", "centered_clipping"}:
        np.testing.assert_allclose(mean(aggregator(name, byzantine=6), rows), 1.0, rtol=1e-6)


def test_the_rules_are_those_of_the_settings():
    assert [name for name in GROUPS["aggregation"] if is_robust(name)] == RULES


@pytest.mark.parametrize("name", sorted(set(RULES) - {"median", "trimmed_mean"}))
def test_an_update_of_float64_that_has_no_norm_is_the_silo_s_own_failure(name):
    """One silo cannot leave the round without a mean, as it could where a model is float64."""
    rule, honest = aggregator(name), np.random.default_rng(7).standard_normal((29, 6))
    giant = {"w": np.full(6, 1e200), "b": np.zeros(0)}
    assert rule.objection(giant) == "it holds numbers beyond 1e+140"
    taken = {"w": np.full(6, -1e140), "b": np.zeros(0)}
    assert rule.objection(taken) is None
    updates = [Update(str(at), {"w": row, "b": np.zeros(0)}, 1.0) for at, row in enumerate(honest)]
    with np.errstate(all="raise", under="ignore"):
        found = rule.mean([*updates, Update("x", taken, 1.0)], COHORT)["w"]
    assert np.abs(found).max() < 10.0
    assert rule.objection({"w": np.full(6, 3e38, np.float32), "n": np.array(2**62)}) is None


@pytest.mark.parametrize("name", RULES)
def test_stated_rows_are_no_weight(name):
    rows = np.random.default_rng(5).standard_normal((30, 20))
    alike = mean(aggregator(name), rows)
    np.testing.assert_array_equal(mean(aggregator(name), rows, [10.0**at for at in range(-15, 15)]), alike)


@pytest.mark.parametrize("name", RULES)
def test_without_a_difference_the_mean_is_what_all_send(name):
    """Clipping goes towards it round after round; all others are there at once."""
    rows, state = np.full((30, 4), 0.5), RoundState(0, {"w": np.zeros(4, np.float32)})
    rule = aggregator(name)
    for _ in range(3):
        updates = [update(row, str(at)) for at, row in enumerate(rows)]
        state = advance(state, updates, Averaging(), rule.at(state))
    np.testing.assert_allclose(state.model["w"], 1.5, rtol=1e-5)


def test_a_centre_is_remembered_from_round_to_round():
    rule, state = CenteredClipping(radius=0.1, steps=1), RoundState(0, {"w": np.zeros(2, np.float32)})
    seen = []
    for _ in range(3):
        state = advance(state, [update([1.0, 0.0], str(at)) for at in range(4)], Averaging(), rule.at(state))
        seen.append(state.memory["centre/w"].tolist())
    assert seen == [pytest.approx([0.1, 0.0]), pytest.approx([0.2, 0.0]), pytest.approx([0.3, 0.0])]
    np.testing.assert_allclose(state.model["w"], [0.6, 0.0], rtol=1e-6)


def test_a_norm_bound_scales_down_and_never_up():
    rows = [[3.0, 4.0], [0.3, 0.4]]
    np.testing.assert_allclose(mean(NormBound(1.0), rows), [(0.6 + 0.3) / 2, (0.8 + 0.4) / 2], rtol=1e-6)
    np.testing.assert_allclose(mean(NormBound(), [[0.0, 0.0], [0.0, 0.0], [9.0, 0.0]]), [0.0, 0.0])


@pytest.mark.parametrize("rule", [TrimmedMean(2), Krum(2), MultiKrum(2), Bulyan(2)])
def test_a_round_with_too_few_replies_fails_in_a_sentence(rule):
    fewest = FEWEST[rule.name](2)
    rows = np.random.default_rng(0).standard_normal((fewest, 3))
    assert np.isfinite(mean(rule, rows)).all()
    with pytest.raises(RunFailed, match=rf"Round 3 failed: aggregation={rule.name} with byzantine=2 takes at least "):
        mean(rule, rows[1:])


def test_krum_returns_one_of_the_updates_and_multi_krum_a_mean_of_some():
    rows = np.random.default_rng(1).standard_normal((9, 6)).astype(np.float32)
    chosen = mean(Krum(2), rows)
    assert any((chosen == row).all() for row in rows)
    assert not any((mean(MultiKrum(2), rows) == row).all() for row in rows)
    np.testing.assert_array_equal(mean(MultiKrum(2, kept=1), rows), chosen)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("aggregation=krum aggregation.byzantine=2", "takes at least 7 updates a round, and 5 silos are asked"),
        ("aggregation=bulyan", "takes at least 7 updates"),
        ("aggregation=trimmed_mean aggregation.byzantine=3 partition.silos=6", "takes at least 7 updates"),
        ("aggregation=krum partition.silos=9 strategy.fraction=0.4", "and 3 silos are asked"),
        ("aggregation=multi_krum aggregation.kept=5", "more than the 4 of 5 updates"),
        ("aggregation=median privacy=record privacy.epsilon=1", "hides that behind noise"),
        ("aggregation=median privacy=silo privacy.delta=1e-5", "hides that behind noise"),
        ("aggregation=median strategy=scaffold", "averages more than updates"),
        ("aggregation=krum strategy=fednova", "averages more than updates"),
        ("aggregation=median data.preprocessing=federated", "moments that silos state"),
        ("aggregation=median output.transcripts=true", "keeps what secure aggregation received"),
    ],
)
def test_what_protects_less_than_its_name_says_is_refused(overrides, words):
    with pytest.raises(SettingsError, match=words):
        compose(f"task=breast_cancer {overrides}")


@pytest.mark.parametrize("name", RULES)
def test_whole_runs_learn_and_leave_the_ways_of_plain_ones(name, tmp_path):
    asked = "task=digits partition=iid partition.silos=7 strategy.rounds=3 output.baselines=false output.report=false"
    settings = compose(f"{asked} aggregation={name}")
    run_inline(settings, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rounds = [line for line in lines if line["event"] == "round"]
    assert [line["round"] for line in rounds] == [1, 2, 3]
    assert rounds[-1]["train"]["loss"] < rounds[0]["train"]["loss"]
    run_inline(compose(f"{asked} aggregation={name}"), tmp_path / "again")
    first, again = (json.loads((tmp_path / one / "run.json").read_text())["model"] for one in ("run", "again"))
    assert first == again


def test_a_resumed_run_remembers_its_centre_beside_the_moments_of_a_server_optimiser(tmp_path, monkeypatch):
    settings = compose(
        "task=digits partition=iid partition.silos=4 strategy=fedadam strategy.rounds=4 aggregation=centered_clipping "
        "output.baselines=false output.report=false"
    )
    whole, half = tmp_path / "whole", tmp_path / "half"
    run_inline(settings, whole)
    combine = CenteredClipping.combine

    def stop(self, updates, cohort):
        if cohort.round == 3:
            raise RunFailed("Round 3 failed: the power is out.")
        return combine(self, updates, cohort)

    with monkeypatch.context() as patch:
        patch.setattr(CenteredClipping, "combine", stop)
        with pytest.raises(RunFailed, match="the power is out"):
            run_inline(settings, half)
    run_inline(settings, half, resume=True)
    first, again = (json.loads((one / "run.json").read_text())["model"] for one in (whole, half))
    assert first == again
    for name in ("centre/", "m/", "v/"):
        assert any(name.encode() in path.read_bytes() for path in (half / "checkpoint").glob("*.safetensors"))
