"""What a real silo's receipt says: its own ledger, its own key, and nothing that is private."""

from __future__ import annotations

import json

import pytest

from quire.clients.gate.mark import MARK_VARIABLE
from quire.clients.identity import load_identity
from quire.privacy.receipts import Receipt
from tests.clients.policy.test_real_silo import Real

RECORD = "task=breast_cancer partition=iid partition.silos=3 privacy=record privacy.epsilon=2 privacy.delta=1e-5"
POLICY = "{modes: [record], aggregation: [plain], code: [], min_cohort: 2, colluders: 0, epsilon: 4.0, delta: 1.0e-4}"


@pytest.fixture
def real(tmp_path):
    return Real(tmp_path, POLICY)


def receipt(reply):
    assert not reply.has_error(), reply.error
    return Receipt.decode(reply.content["identity"]["receipt"])


def test_it_is_signed_with_the_silos_own_key_and_tells_where_the_ledger_stands(real):
    first, second = (receipt(real.ask("train", RECORD, number)) for number in (1, 2))
    for one in (first, second):
        one.check(load_identity(real.folder / "silo.key").public)
    assert not first.body["simulated"]
    assert first.body["run"] == "5"
    assert first.body["population"] == "breast"
    assert first.body["records"] == 150
    assert first.body["broken_gradients"] is None
    assert second.body["ledger"]["entries"] == first.body["ledger"]["entries"] + 1 == len(real.ledger())
    assert 0 < first.body["ledger"]["epsilon"] < second.body["ledger"]["epsilon"] < 4.0
    assert first.body["ledger"]["delta"] == first.body["delta"] == 1e-5  # the run's, and not the policy's
    assert not first.body["test_seed"]
    assert not first.body["guarded"]


def test_the_event_is_the_one_that_the_ledger_was_charged(real):
    body = receipt(real.ask("train", RECORD)).body
    line = real.ledger()[-1]
    assert json.dumps(body["event"], sort_keys=True) in json.dumps(line, sort_keys=True)


def test_it_says_when_a_gate_let_the_code_in_and_when_a_seed_decided_the_noise(real, monkeypatch):
    monkeypatch.setenv(MARK_VARIABLE, "a" * 64)
    real.write(POLICY.replace("}", ", test_seed: true}"))
    body = receipt(real.ask("train", RECORD + " seed=3")).body
    assert body["guarded"]
    assert body["test_seed"]


def test_the_number_of_rows_changes_nothing_in_it(tmp_path):
    """Two silos with other rows and the same declared records differ in names of lines and keys, and nothing else."""
    bodies = []
    for place in (0, 2):
        folder = tmp_path / str(place)
        folder.mkdir()
        silo = Real(folder, POLICY, f"{{connector: shipped, partition: {place}, partitions: 3}}")
        silo.write(POLICY, f"{{connector: shipped, partition: {place}, partitions: 3}}")
        body = dict(receipt(silo.ask("train", RECORD)).body)
        body["ledger"] = {**body["ledger"], "head": ""}
        bodies.append({key: value for key, value in body.items() if key != "silo"})
    assert bodies[0] == bodies[1]


def test_no_receipt_comes_without_privacy(tmp_path):
    assert "receipt" not in Real(tmp_path).ask("train").content["identity"]
