"""The model chain in whole runs: the same model as without it, lies that no silo trains from, silos that were away."""

import re

import numpy as np
import pytest
from secure_runs import BASE, rounds_of
from shared_runs import RECORD

import quire
from quire.clients import contract, work
from quire.clients.arrays import decode, encode
from quire.clients.secure import terms
from quire.errors import RunFailed
from quire.simulation.grid import InlineGrid
from quire.strategies import chain
from quire.strategies.secure_circle import Circle
from quire.strategies.strategy import FederatedStrategy

SECURE = f"{BASE} aggregation=secure strategy.fraction_evaluate=0"
PLAIN = f"{SECURE} strategy.rounds=4"
SHARED = f"{RECORD} strategy.fraction_evaluate=0 strategy.rounds=4"
STEPPING = ["fedavg", "fedavgm", "fedadam", "fedyogi"]


@pytest.fixture
def trained(monkeypatch):
    """The rounds that silos trained for."""
    found, plainly, privately = [], work.train_update, work.sum_privately

    def train_update(*args):
        found.append((args[2], args[6]))
        return plainly(*args)

    def sum_privately(*args):
        found.append((args[2], args[5][0]))
        return privately(*args)

    monkeypatch.setattr(work, "train_update", train_update)
    monkeypatch.setattr(work, "sum_privately", sum_privately)
    return found


def lie(monkeypatch, change, rounds=(2,), silos=None):
    """Change what a silo receives at the beginning of rounds."""
    deliver = InlineGrid._deliver

    def lying(self, message):
        about = message.metadata
        meant = silos is None or about.dst_node_id in silos
        if about.message_type == contract.SHARES and int(about.group_id) in rounds and meant:
            message.content = type(message.content)(dict(message.content))  # shared with the other silos
            change(message.content)
        return deliver(self, message)

    monkeypatch.setattr(InlineGrid, "_deliver", lying)


def bent(record, change=lambda array: np.nextafter(array, np.inf, dtype=array.dtype)):
    """The arrays, with the first number of the first changed."""
    arrays = {name: np.array(array) for name, array in decode(record).items()}
    first = next(iter(arrays.values())).reshape(-1)
    first[0] = change(first[0])
    return encode(arrays)


def refusals(folder, number):
    (line,) = (line for line in rounds_of(folder) if line["round"] == number)
    return {(one["silo"], one["stage"], one["code"]) for one in line["failed"]}


# ------------------------------------------------------------------------------------------------ nothing is lost
@pytest.mark.slow
@pytest.mark.parametrize("strategy", STEPPING)
@pytest.mark.parametrize("base", [PLAIN, SHARED])
def test_the_model_is_that_of_a_run_without_the_chain(base, strategy, tmp_path, monkeypatch):
    overrides = f"{base} strategy={strategy}"
    chained = quire.run(overrides, tmp_path / "chained").model
    assert all(line["secure"]["chain"] is True for line in rounds_of(tmp_path / "chained"))
    monkeypatch.setattr(terms, "is_chained", lambda settings: False)
    assert quire.run(overrides, tmp_path / "bare").model == chained
    assert all("chain" not in line["secure"] for line in rounds_of(tmp_path / "bare"))


@pytest.mark.slow
def test_where_not_all_are_asked_there_is_no_chain(tmp_path):
    quire.run(f"{SECURE} partition.silos=10 strategy.fraction=0.8 strategy.rounds=2", tmp_path / "run")
    assert all("chain" not in line["secure"] for line in rounds_of(tmp_path / "run"))


def test_the_bytes_of_a_round_are_those_of_a_model_and_a_sum(tmp_path):
    quire.run(PLAIN, tmp_path / "run")
    first, second, third, _ = (
        line["secure"]["attempts"][0]["stages"]["shares"] for line in rounds_of(tmp_path / "run")
    )
    length = rounds_of(tmp_path / "run")[0]["secure"]["length"]
    assert second["bytes_down"] == third["bytes_down"] == first["bytes_down"] + 5 * (3 * length + 128)


# --------------------------------------------------------------------------------------------------------- lies
@pytest.mark.parametrize("base", [PLAIN, SHARED])
def test_one_float_of_the_model_is_refused_by_every_silo(base, trained, tmp_path, monkeypatch):
    lie(monkeypatch, lambda content: content.update({contract.ARRAYS: bent(content[contract.ARRAYS])}))
    with pytest.raises(RunFailed) as caught:
        quire.run(base, tmp_path / "run")
    assert "Round 2 failed" in str(caught.value)
    assert "it refused to go on: the model does not follow, by the sums that it was told" in str(caught.value)
    assert {number for _, number in trained} == {1}


@pytest.mark.parametrize("what", [contract.ARRAYS, contract.CHAIN_MEMORY])
def test_a_silo_that_is_told_another_state_is_out_and_the_others_go_on(what, trained, tmp_path, monkeypatch):
    lie(monkeypatch, lambda content: content.update({what: bent(content[what])}), (3,), (1001,))
    quire.run(f"{SHARED} strategy=fedadam", tmp_path / "run")
    assert refusals(tmp_path / "run", 3) == {("hospital-2", "shares", "model_chain_mismatch")}
    assert ("hospital-2", 3) not in trained
    assert [len(line["replied"]) for line in rounds_of(tmp_path / "run")] == [5, 5, 4, 4]


def test_a_server_that_moves_the_model_by_itself_opens_no_sum(tmp_path, monkeypatch):
    """It tells what silos know, and the sum; what they come to is not what it would have them train from."""
    complete = FederatedStrategy._aggregate_secure

    def crafting(self, *args):
        arrays, metrics = complete(self, *args)
        return bent(arrays), metrics

    monkeypatch.setattr(FederatedStrategy, "_aggregate_secure", crafting)
    with pytest.raises(RunFailed, match=r"Round 2 failed.*another model, cohort, round or configuration"):
        quire.run(PLAIN, tmp_path / "run")


@pytest.mark.parametrize("base", [PLAIN, SHARED])
def test_a_sum_beyond_the_bound_is_refused_by_every_silo(base, trained, tmp_path, monkeypatch):
    def throw(content):
        if contract.SUMS in content:
            sums = {name: np.array(array) for name, array in decode(content[contract.SUMS]).items()}
            for array in sums.values():
                array[: array.size // 2] = 0x7F
            content[contract.SUMS] = encode(sums)

    lie(monkeypatch, throw)
    with pytest.raises(RunFailed, match="a sum that it was told is beyond what honest silos can come to"):
        quire.run(base, tmp_path / "run")
    assert {number for _, number in trained} == {1}


def test_a_false_sum_within_the_bound_that_all_are_told_is_followed(tmp_path, monkeypatch):
    """What the chain does not prevent, as the documentation says: nobody can tell, and all come to the same."""
    honest = quire.run(PLAIN, tmp_path / "honest").model
    finish = Circle._finish

    def false(self, *args):
        silos, total = finish(self, *args)
        total[0] += 1
        return silos, total

    monkeypatch.setattr(Circle, "_finish", false)
    assert quire.run(PLAIN, tmp_path / "run").model != honest
    assert [len(line["replied"]) for line in rounds_of(tmp_path / "run")] == [5] * 4


def test_a_skipped_round_is_refused(tmp_path, monkeypatch):
    """Silos that know round 1 are told round 2's state as if they knew it: the newest, and no sum."""
    monkeypatch.setattr(chain.Chain, "_base", lambda self, silo: self._number)
    with pytest.raises(RunFailed, match=r"Round 2 failed.*the model does not follow"):
        quire.run(PLAIN, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop(contract.CHAIN),
        lambda content: content.update({contract.SUMS: encode({"1": np.zeros(5, np.uint8)})}),
        lambda content: content.update({contract.SUMS: encode({"x": np.zeros(5, np.uint8)})}),
        lambda content: content.update({contract.CHAIN_MEMORY: encode({"v/w": np.zeros(5)})}),
    ],
)
def test_a_chain_that_is_malformed_is_that_silo_s_dropout_and_no_traceback(change, tmp_path, monkeypatch, caplog):
    lie(monkeypatch, change, (2,), (1001,))
    quire.run(f"{SECURE} strategy.rounds=3", tmp_path / "run")
    assert refusals(tmp_path / "run", 2) == {("hospital-2", "shares", "bad_request")}
    assert len(rounds_of(tmp_path / "run")[2]["replied"]) == 5


# --------------------------------------------------------------------------------------------------------- away
@pytest.mark.parametrize("strategy", ["fedavg", "fedadam"])
def test_a_silo_that_was_away_for_two_rounds_catches_up(strategy, tmp_path):
    faults = "runtime.faults=[drop:shares:2:hospital-3,drop:shares:3:hospital-3]"
    quire.run(f"{SHARED} strategy={strategy} {faults}", tmp_path / "run")
    rounds = rounds_of(tmp_path / "run")
    assert [len(line["replied"]) for line in rounds] == [5, 4, 4, 5]
    sizes = rounds[3]["secure"]["attempts"][0]["bytes"]
    if strategy == "fedavg":  # whose base is as large for all
        length, bits = rounds[3]["secure"]["length"], rounds[3]["secure"]["bits"]
        assert sizes["hospital-3"][0] - sizes["hospital-2"][0] == 2 * (length * bits // 8 + 128)


def test_a_silo_that_is_away_for_longer_than_sums_are_kept_is_named_and_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(chain, "MOST_SUMS", 2)
    faults = ",".join(f"drop:shares:{number}:hospital-3" for number in (2, 3, 4))
    quire.run(f"{SECURE} strategy.rounds=6 runtime.faults=[{faults}]", tmp_path / "run")
    rounds = rounds_of(tmp_path / "run")
    assert [len(line["replied"]) for line in rounds] == [5, 4, 4, 4, 4, 4]
    for line in rounds[4:]:
        (failure,) = line["failed"]
        assert (failure["silo"], failure["stage"], failure["code"]) == ("hospital-3", "shares", "away_too_long")
        assert re.search("it takes part again in the next run", failure["words"])


def test_a_silo_whose_answer_was_lost_goes_on_from_what_it_knows(tmp_path, monkeypatch):
    """It knows a later round than the server has heard of."""
    from quire.simulation.grid import _NODE_GONE, _runtime_error

    deliver = InlineGrid._deliver

    def losing(self, message):
        reply, about = deliver(self, message), message.metadata
        lost = (about.message_type, about.group_id, about.dst_node_id) == (contract.SHARES, "2", 1002)
        return _runtime_error(message, _NODE_GONE) if lost else reply

    monkeypatch.setattr(InlineGrid, "_deliver", losing)
    quire.run(PLAIN, tmp_path / "run")
    assert [len(line["replied"]) for line in rounds_of(tmp_path / "run")] == [5, 4, 5, 5]


def test_a_simulated_silo_whose_record_is_damaged_stays_out(tmp_path, monkeypatch):
    deliver = InlineGrid._deliver

    def forgetful(self, message):
        about = message.metadata
        if (about.message_type, about.group_id, about.dst_node_id) == (contract.SHARES, "3", 1000):
            self._contexts[1000].state["secure-chain"]["data"] = b"quire-chain-9\n"
        return deliver(self, message)

    monkeypatch.setattr(InlineGrid, "_deliver", forgetful)
    quire.run(PLAIN, tmp_path / "run")
    assert [len(line["replied"]) for line in rounds_of(tmp_path / "run")] == [5, 5, 4, 4]
    assert refusals(tmp_path / "run", 3) == {("hospital-1", "shares", "model_chain_mismatch")}
