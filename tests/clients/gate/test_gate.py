"""The gate with Flower's own SuperExec and SuperNode: the server's part is played here, and it is hostile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from bundles import APP, packed
from flwr.app import ConfigRecord, RecordDict
from gate_site import Site
from node import Node

from quire.clients.contract import Code, reason
from quire.clients.gate.approvals import Approval, approvals_file, approve, revoke
from quire.clients.gate.bundle import Bundle

ROOT = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(scope="module", params=["light", "none"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """With the warm process, and without it: the same holds."""
    with Node() as node:
        site = Site(tmp_path_factory.mktemp("site"), node, request.param)
        yield site
        site.close()
        assert not list(site.folder.glob("quire-gate-*"))


@pytest.fixture
def approved(site: Site) -> Iterator[Site]:
    approve(approvals_file(site.silo), Approval((site.hash,)))
    yield site
    revoke(approvals_file(site.silo), (site.hash,))
    site.canary.unlink(missing_ok=True)


def refused(site: Site, reply: object, words: str) -> None:
    assert (reply.error.code, reply.error.reason) == (Code.CODE_REFUSED, reason(Code.CODE_REFUSED))
    assert not site.canary.exists()
    assert words in site.said()
    assert not list(site.folder.rglob("app/__init__.py"))


def test_code_that_nobody_approved_is_refused(site: Site) -> None:
    refused(site, site.ask("tell"), f"quire app approve {site.hash}")


def test_approved_code_answers_and_is_told_where_the_data_are(approved: Site) -> None:
    reply = approved.ask("tell")
    told = reply.content["told"]
    assert approved.canary.exists()
    assert (told["silo"], told["guarded"], told["writable"]) == (str(approved.silo), approved.hash, os.geteuid() == 0)
    assert told["files"] == ["__init__.py", "data"]
    assert reply.metadata.src_node_id == 7
    # None of what the gate knows: its environment, the runtime's token, the silo's file before the message came.
    assert "DB_PASSWORD" in told["environment"]
    assert not {"HOSPITAL_SECRET", "QUIRE_GATE"} & set(told["environment"])
    assert {name for name in told["environment"] if name.startswith("QUIRE_")} == {
        "QUIRE_GUARDED",
        "QUIRE_PASSPHRASE_FILE",
    }
    assert told["words"] == str(approved.folder / "words")  # named from where the gate was started
    assert "token" not in told["command"]
    assert not [name for name in told["modules"] if name.split(".")[0] == "quire"]
    assert str(ROOT) not in told["path"]
    assert not Path(told["home"]).exists()  # it went with the message


def test_the_silos_path_does_not_go_back_and_the_state_is_kept(approved: Site) -> None:
    counts = [approved.ask("tell", series=99).content["told"]["count"] for _ in range(2)]
    assert counts == [0, 1]
    context = approved.node.state.get_run_series_context(99)
    assert context.node_config == {}
    assert str(approved.silo) not in repr(context)


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("raise", Code.INTERNAL),
        ("exit", Code.INTERNAL),
        ("error", Code.INTERNAL),
        ("code", Code.DATA_UNAVAILABLE),
    ],
)
def test_no_words_of_the_code_reach_the_server(approved: Site, what: str, code: Code) -> None:
    reply = approved.ask(what)
    assert (reply.error.code, reply.error.reason) == (code, reason(code))
    assert not any("4711" in task.status.details for task in approved.node.state.get_tasks())


@pytest.mark.parametrize(
    "broken", [b"def", b"raise ValueError('patient 4711')", b"client = 5", b"", b"import sys; sys.exit(0)"]
)
def test_code_that_cannot_be_loaded_says_nothing(approved: Site, broken: bytes) -> None:
    fab = packed({**APP, "app/__init__.py": broken})
    approve(approvals_file(approved.silo), Approval((Bundle(fab).content,)))
    reply = approved.ask("tell", fab)
    assert (reply.error.code, reply.error.reason) == (Code.INTERNAL, reason(Code.INTERNAL))


def test_what_the_server_says_of_the_bundle_counts_for_nothing(approved: Site) -> None:
    other = packed({**APP, "app/__init__.py": Bundle(approved.fab).files["app/__init__.py"] + b"\n"})
    refused(approved, approved.ask("tell", other), Bundle(other).content)
    reply = approved.ask("tell", fab_id="us/../../other")
    assert reply.error.code == Code.INTERNAL
    assert not approved.canary.exists()


def test_another_kind_of_task_does_not_go_round_the_gate(approved: Site) -> None:
    """A server says what kind of app its run is, and Flower starts another command for an AgentApp."""
    refused(approved, approved.ask("tell", task="flwr-agentapp"), "a silo runs flwr-clientapp only")


@pytest.mark.parametrize("name", ["../evil.py", "app/../../evil.py"])
def test_a_bundle_that_would_write_elsewhere_is_refused(approved: Site, name: str) -> None:
    refused(approved, approved.ask("tell", packed({**APP, name: b""})), "not a plain one")


def test_a_list_that_others_may_write_lets_nobody_in(approved: Site) -> None:
    approvals_file(approved.silo).chmod(0o666)
    try:
        refused(approved, approved.ask("tell"), "chmod go-w")
    finally:
        approvals_file(approved.silo).chmod(0o600)


def test_what_is_revoked_does_not_answer_the_next_message(approved: Site) -> None:
    number = approved.node.send(approved.fab, RecordDict({"ask": ConfigRecord({"for": "tell"})}))
    assert approved.node.reply(number).has_content()
    revoke(approvals_file(approved.silo), (approved.hash,))
    approved.canary.unlink()
    approved.node.send(approved.fab, RecordDict({"ask": ConfigRecord({"for": "again"})}), run_id=number)
    refused(approved, approved.node.reply(number), "is not in")


def test_the_code_does_not_outlive_the_gate(tmp_path: Path) -> None:
    with Node() as node:
        site = Site(tmp_path, node)
        started = tmp_path / "started"
        body = f"import os, time, pathlib; pathlib.Path({str(started)!r}).write_text(str(os.getpid())); time.sleep(600)"
        fab = packed({**APP, "app/__init__.py": body.encode()})
        approve(approvals_file(site.silo), Approval((Bundle(fab).fab,)))
        node.send(fab, RecordDict({"ask": ConfigRecord({"for": "tell"})}))
        deadline = time.monotonic() + 60
        while not started.exists() or not started.read_text():
            assert time.monotonic() < deadline, site.said()
            time.sleep(0.05)
        process = psutil.Process(int(started.read_text()))
        process.parent().kill()  # SIGKILL: nobody can tidy up
        psutil.wait_procs([process], timeout=20)
        assert not process.is_running()
        site.close()


# --------------------------------------------------------------------------------------- what does not open the gate
def gate(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "quire", "gate", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_the_gate_does_not_open_on_what_others_may_write(tmp_path: Path) -> None:
    assert "There is no file" in gate(tmp_path)
    silo = tmp_path / "silo.yaml"
    silo.write_text("")
    silo.chmod(0o666)
    assert "chmod go-w" in gate(tmp_path)
    silo.chmod(0o600)
    (tmp_path / "silo.approved.json").write_text("{}")
    assert "not a list of approved bundles" in gate(tmp_path)
    (tmp_path / "silo.approved.json").unlink()
    assert "cannot be handed on" in gate(tmp_path, "--pass", "LD_PRELOAD")
    assert "There is no file" in gate(tmp_path, "--superexec-auth-secret-file", "none")
    assert "exclude each other" in gate(tmp_path, "--insecure", "--root-certificates", "silo.yaml")


def test_the_scripts_are_those_that_flower_can_start(tmp_path: Path) -> None:
    from flwr.supercore.constant import TASK_TYPE_TO_COMMAND, TaskType

    from quire.clients.gate.launch import gate_environment, write_commands

    assert set(TASK_TYPE_TO_COMMAND) == set(TaskType)
    write_commands(tmp_path, sorted(TASK_TYPE_TO_COMMAND.values()))
    assert {path.name for path in tmp_path.iterdir()} == set(TASK_TYPE_TO_COMMAND.values())
    before = {"PATH": "/usr/bin", "QUIRE_SILOS": "x", "PYTHONPATH": "y", "QUIRE_PASSPHRASE_FILE": ""}
    found = gate_environment(before, Path("s"), ["A"], tmp_path)
    assert found["PATH"] == str(tmp_path / "bin")
    assert not {"QUIRE_SILOS", "PYTHONPATH"} & found.keys()
    assert json.loads(found["QUIRE_GATE"]) == {"silo": "s", "pass": ["A"]}
