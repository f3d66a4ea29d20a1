"""A real silo: outside the simulator it goes by its own file, and nothing that a server sends changes that."""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from quire.clients import client_app, contract, simulation, work
from quire.clients.arrays import decode, encode
from quire.clients.client_app import SILO_KEY, app
from quire.clients.code import code_hash
from quire.clients.identity import new_identity
from quire.clients.tasks import task_of
from quire.conf.compose import compose
from quire.privacy.randomness import stream
from quire.simulation.grid import InlineGrid, server_identity

OVERRIDES = "task=breast_cancer partition=iid partition.silos=3"
NONE = "{modes: [none], aggregation: [plain], code: [], min_cohort: 2, colluders: 0, test_seed: false}"


class Real:
    """A silo as its SuperNode would run it: the app is called as Flower's own process calls it, without the grid."""

    def __init__(self, folder, policy=NONE, data="{connector: shipped, partition: 1, partitions: 3}", key=True):
        self.folder = folder
        self.node = {SILO_KEY: str(folder / "silo.yaml")}
        self.run, self.state = 5, RecordDict()
        if key:
            new_identity(folder / "silo.key")
        self.write(policy, data)

    def write(self, policy, data="{connector: shipped, partition: 1, partitions: 3}"):
        population = "population: {name: breast, records: 150}\n"
        text = f"data: {data}\n{population}" + (f"policy: {policy}\n" if policy else "")
        (self.folder / "silo.yaml").write_text(text)

    def ask(self, stage, overrides=OVERRIDES, round_number=1, config=None):
        records = {}
        if stage != "query" and "moments" not in stage:
            model = task_of(compose(OVERRIDES)).initial_arrays(stream(1, "model"))
            records = {"arrays": encode(model), "config": ConfigRecord({"server-round": round_number})}
        context = Context(self.run, 10, self.node, self.state, {"overrides": overrides, **(config or {})})
        with server_identity(self.run):
            message = Message(RecordDict(records), 10, stage)
            message.metadata.__dict__["_message_id"] = "m"
            return app(message, context)

    def code(self, *args, **more):
        reply = self.ask(*args, **more)
        return contract.Code(reply.error.code).name if reply.has_error() else "ANSWERED"

    def ledger(self):
        path = self.folder / "store" / "ledger" / "breast.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def real(tmp_path):
    return Real(tmp_path)


def test_a_silo_with_a_policy_answers_every_stage(real):
    assert real.ask("query").content["identity"]["silo"] == "hospital-2"
    reply = real.ask("train")
    assert any(np.abs(part).max() > 0 for part in decode(reply.content["update"]).values())
    assert "accuracy" in real.ask("evaluate").content["metrics"]


@pytest.mark.parametrize("stage", ["query", "query.moments", "train", "evaluate"])
def test_without_a_policy_every_stage_is_refused_and_no_data_is_touched(real, stage, monkeypatch, caplog):
    monkeypatch.setattr(client_app, "load", lambda *args: pytest.fail("data was touched"))
    real.write(None)
    assert real.code(stage) == "NO_POLICY"
    assert "has no 'policy', so it serves the simulator only" in caplog.text
    real.node = {"partition-id": 1, "num-partitions": 3}
    assert real.code(stage) == "NO_POLICY"
    assert "--node-config 'silo=\"FILE\"'" in caplog.text


@pytest.mark.parametrize("stage", ["query", "query.moments", "train", "evaluate"])
def test_a_refusal_comes_before_data_is_touched_in_every_stage(real, stage, monkeypatch, caplog):
    monkeypatch.setattr(client_app, "load", lambda *args: pytest.fail("data was touched"))
    real.write(NONE.replace("none", "record").replace("}", ", epsilon: 1.0}"))
    reply = real.ask(stage)
    assert (reply.error.code, reply.error.reason) == (contract.Code.POLICY_REFUSED, "quire:policy_refused")
    assert "policy.modes (silo.yaml, line 3) does not list privacy=none: choose privacy=record" in caplog.text


def test_nothing_from_the_server_makes_a_silo_a_simulated_one(real, monkeypatch):
    real.write(None)
    for config in ({"simulated": True}, {"simulation": "1", "silo": str(real.folder / "silo.yaml")}, {"ray": True}):
        assert real.code("query", config=config) == "NO_POLICY"
    for node in ({"simulated": True}, {"partition-id": 0, "num-partitions": 3, "simulation": True}):
        real.node = node
        assert real.code("query") == "NO_POLICY"
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(is_initialized=lambda: False))
    assert real.code("query") == "NO_POLICY"


def test_a_ray_actor_and_the_grid_are_simulations(monkeypatch):
    assert not simulation.is_simulated()
    with simulation.simulated():
        assert simulation.is_simulated()
    assert not simulation.is_simulated()
    context = types.SimpleNamespace(get_actor_id=lambda: "a1")
    ray = types.SimpleNamespace(is_initialized=lambda: True, get_runtime_context=lambda: context)
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert simulation.is_simulated()
    context.get_actor_id = lambda: None  # a driver, not a worker
    assert not simulation.is_simulated()


def test_a_seed_is_refused_and_without_one_every_silo_draws_its_own_batches(real):
    assert real.code("train", f"{OVERRIDES} seed=1") == "SEED_REFUSED"
    first = decode(real.ask("train").content["update"])
    real.run = 6
    again = decode(real.ask("train").content["update"])
    assert any((first[name] != again[name]).any() for name in first)


def test_a_test_seed_gives_the_numbers_of_the_simulation(real):
    real.write(NONE.replace("test_seed: false", "test_seed: true"))
    overrides = f"{OVERRIDES} seed=7"
    found = decode(real.ask("train", overrides).content["update"])
    context = Context(5, 10, {"partition-id": 1, "num-partitions": 3}, RecordDict(), {"overrides": overrides})
    model = encode(task_of(compose(OVERRIDES)).initial_arrays(stream(1, "model")))
    with server_identity(5):
        message = Message(RecordDict({"arrays": model, "config": ConfigRecord({"server-round": 1})}), 10, "train")
        (reply,) = InlineGrid(app, {10: context}).send_and_receive([message])
    simulated = decode(reply.content["update"])
    assert all((found[name] == simulated[name]).all() for name in found)


def test_code_that_is_not_approved_is_refused(real):
    real.write(NONE.replace("code: []", f"code: ['{'0' * 64}']"))
    assert real.code("query") == "CODE_REFUSED"
    real.write(NONE.replace("code: []", f"code: ['{code_hash()}']"))
    assert real.code("query") == "ANSWERED"


def test_what_leaves_without_privacy_charges_everything_once_and_is_written_before(real, monkeypatch):
    seen = []
    load = client_app.load
    monkeypatch.setattr(client_app, "load", lambda *args: seen.append(len(real.ledger())) or load(*args))
    assert real.code("query") == "ANSWERED"
    assert len(real.ledger()) == 1  # its opening
    for number in (1, 2):
        assert real.code("train", round_number=number) == "ANSWERED"
        assert real.code("evaluate", round_number=number) == "ANSWERED"
    assert seen == [2, 2, 2, 2]
    (charge,) = real.ledger()[1]["charges"]
    assert set(charge["spending"]["rdp"]) == {"inf"}
    record = NONE.replace("none", "record").replace("}", ", epsilon: 8.0, max_clip: 1.0}")
    real.write(record)
    assert real.code("query", f"{OVERRIDES} privacy=record privacy.epsilon=1") == "BUDGET_REFUSED"


def test_a_round_is_answered_once_and_rounds_are_counted_over_runs(real):
    real.write(NONE.replace("}", ", max_rounds_per_day: 3}"))
    assert [real.code("train", round_number=number) for number in (1, 1, 2)] == [
        "ANSWERED",
        "REPLAY_REFUSED",
        "ANSWERED",
    ]
    real.run = 6
    assert real.code("train") == "ANSWERED"
    assert real.code("train", round_number=2) == "ROUNDS_REFUSED"
    assert real.code("evaluate") == "ANSWERED"


def test_a_server_that_asks_for_more_rounds_than_it_said_is_refused(real):
    overrides = f"{OVERRIDES} strategy.rounds=1"
    assert real.code("train", overrides) == "ANSWERED"
    assert real.code("train", overrides, round_number=2) == "ROUNDS_REFUSED"


@pytest.mark.parametrize("round_number", [-1, 2**60])
def test_a_round_that_cannot_be_one_is_refused(real, round_number):
    assert real.code("train", round_number=round_number) in ("BAD_REQUEST", "REPLAY_REFUSED")


def test_books_that_cannot_be_used_refuse(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(client_app, "load", lambda *args: pytest.fail("data was touched"))
    real = Real(tmp_path, key=False)
    assert real.code("train") == "BOOKS_UNUSABLE"
    assert "silo.key" in caplog.text
    new_identity(tmp_path / "silo.key")
    assert real.code("query") == "ANSWERED"
    (tmp_path / "store" / "counters.jsonl").unlink()
    assert real.code("train") == "BOOKS_UNUSABLE"


def test_a_key_with_a_passphrase_is_opened_by_the_nodes_environment(tmp_path, monkeypatch, caplog):
    real = Real(tmp_path, key=False)
    new_identity(tmp_path / "silo.key", words="correct horse battery", cost=14)
    assert real.code("query") == "BOOKS_UNUSABLE"
    monkeypatch.setenv("QUIRE_PASSPHRASE", "correct horse battery")
    assert real.code("query") == "ANSWERED"
    assert "correct horse" not in caplog.text


def test_a_roster_that_is_not_the_pinned_one_is_refused(real, monkeypatch, caplog):
    monkeypatch.setattr(client_app, "load", lambda *args: pytest.fail("data was touched"))
    file = real.folder / "silo.yaml"
    file.write_text(file.read_text() + f"roster: {{file: roster.json, hash: {'ab' * 32}}}\n")
    assert real.code("train") == "ROSTER_REFUSED"
    (real.folder / "roster.json").write_text("{}")
    assert real.code("train") == "ROSTER_REFUSED"
    assert "roster.json" in caplog.text


def test_a_silo_answers_for_the_data_that_its_file_names_only(real, caplog):
    assert real.code("query", "task=tabular partition.silos=3") == "DATA_UNAVAILABLE"
    assert "offers a part of a shipped data set" in caplog.text
    assert real.code("query", OVERRIDES.replace("silos=3", "silos=4")) == "DATA_UNAVAILABLE"


def test_a_private_run_is_charged_round_by_round_and_its_scores_stay(real, monkeypatch):
    overrides = f"{OVERRIDES} privacy=record privacy.epsilon=2 strategy.rounds=2"
    real.write(NONE.replace("none", "record").replace("}", ", epsilon: 2.0, delta: 1.0e-5}"))
    assert real.code("evaluate", overrides) == "SCORES_WITHHELD"
    for number in (1, 2):
        real.code("train", overrides, round_number=number)
        assert len(real.ledger()) == 1 + number
    assert real.ledger()[-1]["charges"][0]["epsilon_after"] <= 2.0
    real.run = 6
    assert real.code("train", overrides) == "BUDGET_REFUSED"
    assert len(real.ledger()) == 3


@pytest.mark.parametrize("stage", ["query", "query.moments", "train", "evaluate"])
@pytest.mark.parametrize(
    "raised", [MemoryError("patient Ada"), SystemExit("patient Ada"), RecursionError("Ada"), GeneratorExit("Ada")]
)
def test_whatever_ends_a_stage_leaves_as_a_fixed_code(real, stage, raised, monkeypatch, capsys):
    def ending(*args, **more):
        raise raised

    real.write(NONE)
    monkeypatch.setattr(client_app, "compose", ending)
    reply = real.ask(stage)
    assert reply.has_error()
    assert reply.error.reason == contract.reason(contract.Code(reply.error.code))
    assert "Ada" not in repr(vars(reply)) + repr(vars(reply.error))


def test_the_operators_own_interrupt_passes_without_its_text(real, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt("patient 4711")

    monkeypatch.setattr(work, "train_update", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        real.ask("train")
    assert caught.value.args == ()
    assert caught.value.__suppress_context__
