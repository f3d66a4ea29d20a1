"""Silos that send what no honest one does have shown themselves: the rules go on with so many fewer of the f."""

from __future__ import annotations

import json

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.clients import contract
from quire.clients.arrays import encode
from quire.conf.compose import compose
from quire.conf.robust_schema import FEWEST
from quire.errors import RunFailed
from quire.simulation.faults import Fault
from quire.simulation.grid import InlineGrid
from quire.simulation.inline import run_inline
from quire.strategies.algorithms import Averaging
from quire.strategies.cohort import Roster
from quire.strategies.robust.aggregators import Bulyan, Krum, Median, MultiKrum, TrimmedMean
from quire.strategies.rounds import Cohort, Update
from quire.strategies.strategy import FederatedStrategy
from quire.strategies.suspicion.evidence import Rule
from quire.strategies.suspicion.watched import Watched

WITH_F = [TrimmedMean, Krum, MultiKrum, Bulyan]
CODE = "c" * 64
COHORT = Cohort(1, ())


def by_hand(rule, rows):
    return rule.mean([Update(str(at), {"w": row}, 1.0) for at, row in enumerate(rows)], COHORT)["w"]


class Diary:
    def round_done(self, report, state):
        self.report, self.model = report, state.model["w"]


def one_round(aggregator, rows, faults=(), code=CODE):
    """Run a round of the strategy with silos that send these rows."""

    app = ClientApp()

    @app.train()
    def train(message, context):
        row = rows[context.node_id - 1]
        told = {contract.SILO: f"s{context.node_id}", contract.CODE_HASH: CODE, contract.CONTRACT: contract.VERSION}
        metrics = MetricRecord({contract.NUM_EXAMPLES: 5, contract.TRAIN_LOSS: 0.5})
        content = {contract.UPDATE: encode({"w": row}), contract.METRICS: metrics}
        return Message(RecordDict({**content, contract.IDENTITY: ConfigRecord(told)}), reply_to=message)

    names = {node: f"s{node}" for node in range(1, len(rows) + 1)}
    contexts = {node: Context(7, node, {}, RecordDict(), {}) for node in names}
    strategy, diary = FederatedStrategy(Averaging(), aggregator, fraction_evaluate=0.0, min_silos=1), Diary()
    first = encode({"w": np.zeros(rows[0].shape, rows[0].dtype)})
    grid = InlineGrid(app, contexts, names, [Fault.parse(one) for one in faults])
    strategy.start(grid, first, num_rounds=1, roster=Roster(names, code), observer=diary)
    return diary


@pytest.mark.parametrize("kind", WITH_F)
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_the_rest_are_taken_by_the_rule_for_as_many_fewer(kind, data):
    """At most f bad, some of whom send NaN: what comes of it is the rule for the f that are left, on all others."""
    f = data.draw(st.integers(1, 3))
    bad = data.draw(st.integers(1, f))
    shown = data.draw(st.integers(1, bad))
    count = FEWEST[kind.name](f) + data.draw(st.integers(0, 2))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    honest = 1.0 + 0.1 * rng.standard_normal((count - bad, 6))
    giants = np.full((bad - shown, 6), data.draw(st.sampled_from([1e6, -1e20])))
    not_finite = np.full((shown, 6), data.draw(st.sampled_from([np.nan, np.inf, -np.inf])))
    order = rng.permutation(count)
    rows = np.vstack([honest, giants, not_finite]).astype(np.float32)[order]
    found = one_round(kind(f), rows)
    rest = rows[np.isfinite(rows).all(axis=1)]
    np.testing.assert_array_equal(found.model, by_hand(kind(f - shown), rest).astype(np.float32))
    assert found.report.byzantine == {"stated": f, "exposed": shown, "left": f - shown}
    # And that is what it promises: each coordinate lies among those of honest silos.
    assert (found.model >= honest.min(axis=0) - 1e-6).all()
    assert (found.model <= honest.max(axis=0) + 1e-6).all()


@pytest.mark.parametrize("kind", WITH_F)
def test_silos_that_do_not_answer_leave_f_as_it_is(kind):
    rows = np.random.default_rng(0).standard_normal((FEWEST[kind.name](2), 4)).astype(np.float32)
    for fault in ("drop:train:1:s3", "error:train:1:s3", "delay:train:1:s3:1e9"):
        with pytest.raises(RunFailed, match=rf"with byzantine=2 takes at least {len(rows)} updates, and "):
            one_round(kind(2), rows, [fault])
    rows = np.vstack([rows, rows[:1]])
    found = one_round(kind(2), rows, ["drop:train:1:s3"])
    assert found.report.byzantine == {}
    assert "byzantine" not in found.report.journalled()
    np.testing.assert_array_equal(found.model, by_hand(kind(2), np.delete(rows, 2, axis=0)).astype(np.float32))


@pytest.mark.parametrize("kind", WITH_F)
def test_more_than_f_that_show_themselves_leave_none_and_never_fewer(kind, caplog):
    rows = np.random.default_rng(1).standard_normal((9, 4)).astype(np.float32)
    rows[2:5] = np.nan
    found = one_round(kind(1), rows)
    assert found.report.journalled()["byzantine"] == {"stated": 1, "exposed": 3, "left": 0}
    assert "3 silos sent what honest ones do not, and aggregation.byzantine=1 is less" in caplog.text
    np.testing.assert_array_equal(found.model, by_hand(kind(0), np.delete(rows, [2, 3, 4], axis=0)).astype(np.float32))


def test_numbers_that_have_no_square_count_where_norms_are_taken():
    rows = np.random.default_rng(2).standard_normal((7, 4))
    rows[0] = 1e200
    assert one_round(Bulyan(1), rows).report.byzantine["left"] == 0
    assert one_round(TrimmedMean(1), rows).report.byzantine == {}  # a value among others, and cut off


def test_silos_of_a_foreign_app_show_nothing_by_it():
    rows = np.random.default_rng(3).standard_normal((7, 4)).astype(np.float32)
    rows[0] = np.nan
    with pytest.raises(RunFailed, match="with byzantine=1 takes at least 7 updates, and 6 came"):
        one_round(Bulyan(1), rows, code=None)


def test_too_few_that_are_left_are_told_of_with_those_that_showed_themselves():
    rows = np.random.default_rng(4).standard_normal((11, 4)).astype(np.float32)
    rows[:2] = np.nan
    silent = [f"drop:train:1:s{node}" for node in range(4, 11)]
    words = "bulyan with byzantine=2, 2 of which sent what honest silos do not, takes at least 3 updates, and 2 came"
    with pytest.raises(RunFailed, match=words):
        one_round(Bulyan(2), rows, silent)


def test_a_rule_under_suspicion_is_told_as_well():
    rows = 1.0 + 0.1 * np.random.default_rng(5).standard_normal((7, 40)).astype(np.float32)
    rows[3] = np.nan
    found = one_round(Watched(Bulyan(1), Rule(4.0, 1e-4, 2)), rows)
    assert found.report.byzantine == {"stated": 1, "exposed": 1, "left": 0}
    assert sorted(found.report.suspicion) == ["s1", "s2", "s3", "s5", "s6", "s7"]
    found = one_round(Watched(Median(), Rule(4.0, 1e-4, 2)), rows)
    assert found.report.byzantine == {}


def test_bulyan_at_its_limit_holds_against_nan(tmp_path):
    """4 f + 3 silos of which f send NaN in every round, by the apps of any run."""
    asked = (
        "task=digits partition=iid partition.silos=7 strategy.rounds=2 training.epochs=1 strategy.fraction_evaluate=0 "
        "output.baselines=false output.report=false runtime=batched aggregation=bulyan aggregation.byzantine=1"
    )
    run_inline(compose(f"{asked} attack=not_finite attack.fraction=0.15"), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rounds = [line for line in lines if line["event"] == "round"]
    assert [(len(line["replied"]), line["byzantine"]) for line in rounds] == [
        (6, {"stated": 1, "exposed": 1, "left": 0})
    ] * 2
    assert [failure["code"] for failure in rounds[0]["failed"]] == ["not_finite"]
    assert sorted(rounds[0]["failed"][0]) == ["code", "silo", "stage", "words"]
    assert rounds[1]["train"]["loss"] < rounds[0]["train"]["loss"]
