"""Silos that drop out, lie or lose what they kept, at every stage: the sum of those left, or a clear end."""

import json
import re

import pytest
from secure_runs import (
    BASE,
    ONE,
    ROWS,
    RUN,
    SECURE,
    SECURE_ONE,
    STAGES,
    apart,
    bound_of,
    model_of,
    rounds_of,
    vector_of,
)

import quire
from quire.clients import contract
from quire.clients.arrays import decode
from quire.clients.tasks import task_of
from quire.conf.compose import compose
from quire.errors import RunFailed
from quire.privacy.randomness import stream
from quire.simulation.grid import _LATE, InlineGrid, _runtime_error
from quire.strategies.secure_replies import Beside


@pytest.mark.parametrize("kind", ["drop", "error", "delay"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_silo_that_drops_out_at_any_stage_is_done_without(stage, kind, tmp_path):
    fault = f"{kind}:{stage}:1:hospital-2" + (":100000" if kind == "delay" else "")
    quire.run(f"{SECURE} strategy.deadline=1000 runtime.faults=[{fault.replace('100000', '5000')}]", tmp_path / "run")
    first, second = rounds_of(tmp_path / "run")
    counted = stage in ("confirm", "unmask")  # its vector had arrived
    assert ("hospital-2" in first["replied"]) == counted
    assert len(first["replied"]) == 4 + counted
    assert [(one["silo"], one["stage"]) for one in first["failed"]] == [("hospital-2", stage)]
    assert len(second["replied"]) == (4 if stage in STAGES[:3] else 5)  # in a session whose keys it has no part in
    assert second["failed"] == []


def test_the_mean_is_that_of_the_survivors(tmp_path):
    fault = "runtime.faults=[drop:{}:1:hospital-2]"
    quire.run(f"{ONE} {fault.format('train')}", tmp_path / "plain")
    for stage in ("shares", "mask"):
        overrides = f"{SECURE_ONE} {fault.format(stage)}"
        quire.run(overrides, tmp_path / stage)
        distance = apart(model_of(tmp_path / "plain"), model_of(tmp_path / stage))
        assert distance <= bound_of(overrides) * ROWS / 364 + 1e-6


@pytest.mark.parametrize("stage", STAGES[:-1])
def test_below_the_threshold_a_round_is_tried_again_with_fresh_keys_and_masks(stage, flaky, replies, tmp_path):
    model = quire.run(SECURE, tmp_path / "whole").model
    replies.clear()
    flaky(stage, 1, 3)
    assert quire.run(SECURE, tmp_path / "run").model == model  # the same vectors, whatever the masks
    first, second = rounds_of(tmp_path / "run")
    attempts = first["secure"]["attempts"]
    wanted = {"shares": "TooFewClients", "mask": "TooFewSurvivors", "confirm": "NoQuorum"}
    assert [attempt["error"] for attempt in attempts] == [wanted.get(stage, "CohortTooSmall"), None]
    assert "open" in attempts[1]["stages"]
    assert len(first["replied"]) == len(second["replied"]) == 5
    assert {(one["silo"], one["stage"]) for one in first["failed"]} == {("hospital-2", stage), ("hospital-4", stage)}
    vectors = [vector_of(reply, 31 * 3) for reply in replies[contract.MASK] if reply.has_content()]
    assert len(set(vectors)) == len(vectors)


def test_who_is_gone_is_not_asked_again_where_the_others_suffice(tmp_path):
    """Ten silos, of which seven have to survive: one is gone for good, three more do not confirm."""
    faults = ",".join(["drop:mask:*:hospital-9", *(f"drop:confirm:1:hospital-{k}" for k in (1, 2, 3))])
    with pytest.raises(RunFailed, match="in 2 attempts"):
        quire.run(f"{SECURE} partition.silos=10 aggregation.attempts=2 runtime.faults=[{faults}]", tmp_path / "run")
    text = (tmp_path / "run" / "run.json").read_text()
    assert "6 confirmed, and 7 have to" in text


def test_a_round_that_is_tried_again_masks_what_was_trained_once(flaky, tmp_path, monkeypatch):
    from quire.clients import work

    trained = []
    train = work.train_update

    def counted(settings, where, silo, *args):
        trained.append((silo, args[3]))
        return train(settings, where, silo, *args)

    monkeypatch.setattr(work, "train_update", counted)
    flaky("mask", 1, 3)
    quire.run(SECURE, tmp_path / "run")
    assert len(trained) == len(set(trained)) == 2 * 5


@pytest.mark.parametrize("stage", STAGES[:-1])
def test_too_few_for_any_sum_end_the_run_and_say_who_was_missing(stage, tmp_path):
    faults = f"runtime.faults=[drop:{stage}:2:hospital-1,drop:{stage}:2:hospital-2]"
    with pytest.raises(RunFailed) as caught:
        quire.run(f"{SECURE} aggregation.rekey_every=1 {faults}", tmp_path / "run")
    text = str(caught.value)
    assert re.match("Round 2 failed: secure aggregation came to nothing in 3 attempts", text)
    assert f"hospital-1, {stage}: its node is gone; hospital-2, {stage}: its node is gone" in text
    assert "\n" not in text
    assert [line["round"] for line in rounds_of(tmp_path / "run")] == [1]
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (about["status"], about["error"], about["rounds"]) == ("failed", text, 1)
    assert about["model"] is not None


def test_too_few_that_give_shares_cost_the_round_and_say_who_was_missing(tmp_path):
    faults = "runtime.faults=[drop:unmask:2:hospital-1,drop:unmask:2:hospital-2]"
    quire.run(f"{BASE} aggregation=secure strategy.rounds=3 {faults}", tmp_path / "run")
    first, second, third = rounds_of(tmp_path / "run")
    assert first["model"] == second["model"] != third["model"]
    assert "3 members gave shares, and 4 have to" in second["lost"]
    assert "hospital-1, unmask: its node is gone; hospital-2, unmask: its node is gone" in second["lost"]
    assert (second["replied"], len(third["replied"])) == ([], 5)


def test_shares_whose_message_is_lost_are_sent_again(tmp_path, monkeypatch):
    """The silos gave them, and take part in no other attempt; what was lost is the answer."""
    deliver, lost = InlineGrid._deliver, []

    def losing(self, message):
        reply = deliver(self, message)
        about = message.metadata
        if about.message_type == contract.UNMASK and about.dst_node_id in (1001, 1003) and len(lost) < 2:
            lost.append(about.dst_node_id)
            return _runtime_error(message, _LATE)
        return reply

    monkeypatch.setattr(InlineGrid, "_deliver", losing)
    quire.run(SECURE_ONE, tmp_path / "run")
    (line,) = rounds_of(tmp_path / "run")
    assert lost == [1001, 1003]
    assert len(line["replied"]) == 5
    assert (
        line["secure"]["attempts"][0]["stages"]["unmask"] | {"asked": 7, "answered": 5}
        == (line["secure"]["attempts"][0]["stages"]["unmask"])
    )


@pytest.mark.parametrize("wrong", [KeyError, ValueError, RecursionError])
def test_whatever_the_server_stumbles_over_beside_a_message_is_that_silos_dropout(wrong, tmp_path, monkeypatch):
    def stumbling(self, silo, content):
        if silo == "hospital-3":
            raise wrong("x")

    monkeypatch.setattr(Beside, "accept", stumbling)
    quire.run(SECURE_ONE, tmp_path / "run")
    (line,) = rounds_of(tmp_path / "run")
    assert [(one["silo"], one["stage"], one["code"]) for one in line["failed"]] == [
        ("hospital-3", "shares", "malformed")
    ]
    assert len(line["replied"]) == 4


def test_who_did_not_give_shares_is_asked_once_more(flaky, tmp_path):
    flaky("unmask", 1, 3)
    quire.run(SECURE_ONE, tmp_path / "run")
    (line,) = rounds_of(tmp_path / "run")
    assert len(line["replied"]) == 5
    (attempt,) = line["secure"]["attempts"]
    assert attempt["stages"]["unmask"]["asked"] == 5 + 2


def test_a_silo_that_lost_its_state_takes_part_again_with_new_keys(tmp_path, monkeypatch):
    deliver = InlineGrid._deliver

    def forgetful(self, message):
        about = message.metadata
        if (about.message_type, about.group_id, about.dst_node_id) == (contract.SHARES, "2", 1000):
            del self._contexts[1000].state["secure-state"]
        return deliver(self, message)

    monkeypatch.setattr(InlineGrid, "_deliver", forgetful)
    quire.run(f"{BASE} aggregation=secure strategy.rounds=3", tmp_path / "run")
    _, second, third = rounds_of(tmp_path / "run")
    assert second["replied"] == [f"hospital-{k}" for k in range(2, 6)]
    assert [(one["silo"], one["stage"], one["code"]) for one in second["failed"]] == [
        ("hospital-1", "shares", "stage_order")
    ]
    assert second["secure"]["attempts"][0]["blame"][0]["error"] == "StageOrder"
    assert len(third["replied"]) == 5
    assert third["secure"]["session"] == 3


def test_a_silo_that_sees_another_model_does_not_spoil_the_sum(tmp_path, monkeypatch):
    deliver = InlineGrid._deliver
    task = task_of(compose(RUN))

    def swapped(self, message):
        if message.metadata.message_type == contract.SHARES and message.metadata.dst_node_id == 1002:
            from quire.clients.arrays import encode

            message.content[contract.ARRAYS] = encode(task.initial_arrays(stream(9, "model")))
            message.content[contract.ARRAYS] = encode(
                {name: part + 1 for name, part in decode(message.content[contract.ARRAYS]).items()}
            )
        return deliver(self, message)

    monkeypatch.setattr(InlineGrid, "_deliver", swapped)
    quire.run(SECURE_ONE, tmp_path / "run")
    (line,) = rounds_of(tmp_path / "run")
    assert line["replied"] == ["hospital-1", "hospital-2", "hospital-4", "hospital-5"]
    assert [(one["silo"], one["code"]) for one in line["failed"]] == [("hospital-3", "context_mismatch")]
