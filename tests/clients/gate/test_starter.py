"""What the starter answers to a message, and what of the bundle it touches; the approved code runs for real."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from bundles import APP, packed
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.app.message import make_message
from flwr.app.metadata import Metadata
from flwr.supercore.fab import Fab
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from quire.clients.contract import Code, reason
from quire.clients.gate import starter, working
from quire.clients.gate.approvals import Approval, approvals_file, approve
from quire.clients.gate.bundle import Bundle
from quire.clients.gate.starter import CLIENT_APP, Gate, answer

APPROVED = b"""
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
client, server = ClientApp(), None

@client.train()
def train(message, context):
    context.state["mine"] = ConfigRecord({"kept": 1})
    context.node_config["theirs"] = "changed"
    told = ConfigRecord({"silo": context.node_config["silo"], "sum": sum(message.content["ask"]["numbers"])})
    return Message(RecordDict({"told": told}), reply_to=message)
"""
FAB = packed({**APP, "app/__init__.py": APPROVED})


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gate:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name, value in (("_task_id", 1), ("_run_id", 2), ("_node_id", 3)):
        monkeypatch.setattr(TaskIdentity, name, value)
    (tmp_path / "silo.yaml").write_text("")
    return Gate(tmp_path / "silo.yaml")


def ask(gate: Gate, fab: bytes, kind: str = CLIENT_APP) -> tuple[Message, Context]:
    metadata = Metadata(2, "id", 1, 3, "", "", time.time(), 60.0, "train")
    message = make_message(metadata, RecordDict({"ask": ConfigRecord({"numbers": [1, 2, 3]})}))
    context = Context(run_id=2, node_id=3, node_config={"site": "us"}, state=RecordDict(), run_config={})
    run = Run.create_empty(2)
    run.fab_id, run.fab_version = "us/app", "1"
    return answer(gate, kind, message, context, run, Fab("", fab, {})), context


def test_approved_code_answers(gate: Gate) -> None:
    approve(approvals_file(gate.silo), Approval((Bundle(FAB).content,)))
    reply, context = ask(gate, FAB)
    assert dict(reply.content["told"]) == {"silo": str(gate.silo), "sum": 6}
    assert (reply.metadata.reply_to_message_id, reply.metadata.dst_node_id) == ("id", 1)
    assert context.state["mine"]["kept"] == 1
    assert context.node_config == {"site": "us"}  # neither the silo's path nor what the code made of it goes back
    assert sorted(os.listdir(gate.silo.parent)) == ["silo.approved.json", "silo.yaml"]


def test_nothing_of_an_unapproved_bundle_is_written_or_named(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    approve(approvals_file(gate.silo), Approval(("a" * 64,)))
    for name in ("write", "ask"):
        owner = Bundle if name == "write" else working.Worker
        monkeypatch.setattr(owner, name, lambda *args: pytest.fail("this was not approved"))
    for fab in (FAB, b"PK\x03\x04", b"", packed({**APP, "../x.py": b""})):
        reply, context = ask(gate, fab)
        assert (reply.error.code, reply.error.reason) == (Code.CODE_REFUSED, reason(Code.CODE_REFUSED))
        assert context.node_config == {"site": "us"}
    assert f"quire app approve {Bundle(FAB).content}" in caplog.text


def test_only_a_client_app_is_started_whatever_is_approved(gate: Gate) -> None:
    approve(approvals_file(gate.silo), Approval((Bundle(FAB).fab,)))
    for kind in ("flwr-agentapp", "flwr-serverapp", "flwr-simulation", "flwr-model", "flwr-connector", "other"):
        assert ask(gate, FAB, kind)[0].error.code == Code.CODE_REFUSED


def test_a_fault_of_the_gate_itself_is_a_refusal_without_words(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise OSError("/secret/path")

    monkeypatch.setattr(starter, "started_worker", broken)
    reply, _ = ask(gate, FAB)
    assert (reply.error.code, reply.error.reason) == (Code.INTERNAL, reason(Code.INTERNAL))
