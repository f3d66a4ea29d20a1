"""The server's side of a run is code that the operator ships, or is not started: hashes, lists, what is handed on."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from bundles import APP, packed
from command_line import command_line
from flwr.proto.fab_pb2 import Fab
from flwr.proto.run_pb2 import Run
from flwr.proto.runtime_pb2 import PullTaskInputResponse
from flwr.supercore.constant import TASK_TYPE_TO_COMMAND
from provisioned import provision

from quire.clients.gate.approvals import Approval, approve, revoke
from quire.clients.gate.bundle import Bundle
from quire.consortium.about import Server
from quire.consortium.handed_on import TASK
from quire.consortium.server_gate import GATE_VARIABLE, SERVER_APP, Refused, ServerGate, hand_over, prepare_gate
from quire.consortium.services import free_ports

GOOD = packed(APP)


@pytest.fixture
def gate(tmp_path: Path) -> ServerGate:
    made = ServerGate(
        *(tmp_path / "list.json", tmp_path / "homes", tmp_path / "runs", "/usr/bin", "RUN_DIR"),
        *(tmp_path / "log", tmp_path / "resumes", "AGAIN"),
    )
    approve(made.approvals, Approval((Bundle(GOOD).content, Bundle(GOOD).fab)))
    return made


def task(raw: bytes, told: str = "") -> PullTaskInputResponse:
    """What a SuperLink hands out; it says of the bundle's hash what it likes."""
    return PullTaskInputResponse(run=Run(run_id=7), fab=Fab(content=raw, hash_str=told or Bundle(raw).fab))


def test_what_the_operator_ships_is_admitted_however_it_is_packed(gate: ServerGate) -> None:
    assert gate.admit(SERVER_APP, task(GOOD)) == Bundle(GOOD).fab
    again = packed(dict(reversed(APP.items())), 0)
    assert gate.admit(SERVER_APP, task(again)) == Bundle(GOOD).content


@pytest.mark.parametrize(
    "raw",
    [
        packed({**APP, "app/__init__.py": b"server = 3\n"}),
        packed({**APP, "sitecustomize.py": b""}),
        GOOD[:-30],
        b"",
        packed([*APP.items(), ("../x.py", b"")]),
    ],
    ids=["changed", "one file more", "damaged", "nothing", "a path out of it"],
)
def test_other_code_is_refused_whatever_hash_it_is_said_to_have(gate: ServerGate, raw: bytes) -> None:
    with pytest.raises(Refused):
        gate.admit(SERVER_APP, task(raw, Bundle(GOOD).fab))


@pytest.mark.parametrize("kind", sorted(set(TASK_TYPE_TO_COMMAND.values()) - {SERVER_APP}))
def test_no_other_kind_of_task_is_run_not_even_of_approved_code(gate: ServerGate, kind: str) -> None:
    with pytest.raises(Refused, match=f"asks for {kind}; this server runs flwr-serverapp only"):
        gate.admit(kind, task(GOOD))


def _taken_back(path: Path) -> None:
    revoke(path, (Bundle(GOOD).content,))


@pytest.mark.parametrize(
    "spoil",
    [Path.unlink, lambda path: path.write_text("{"), lambda path: path.chmod(0o666), _taken_back],
    ids=["missing", "damaged", "open to others", "taken back"],
)
def test_in_doubt_nothing_runs(gate: ServerGate, spoil: Callable[[Path], object]) -> None:
    spoil(gate.approvals)
    with pytest.raises(Refused):
        gate.admit(SERVER_APP, task(GOOD))


def test_the_process_is_given_the_very_task_and_nothing_of_the_gate(gate: ServerGate) -> None:
    gate.homes.mkdir()
    given = task(GOOD)
    home = hand_over(gate, given)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert PullTaskInputResponse.FromString((home / TASK).read_bytes()) == given
    variables = gate.environment({GATE_VARIABLE: gate.to_json(), "PATH": "/commands", "QUIRE_ROSTER": "r"}, home, 7)
    assert variables == {
        "PATH": "/usr/bin",
        "QUIRE_ROSTER": "r",
        "FLWR_HOME": str(home / "flwr"),
        "RUN_DIR": str(gate.runs / "7"),
    }
    assert hand_over(gate, given) != home


def test_what_superexec_finds_is_the_stand_in_under_every_name(gate: ServerGate, tmp_path: Path) -> None:
    commands = tmp_path / "commands"
    (gate.homes / "7-left").mkdir(parents=True)
    for _ in range(2):
        prepare_gate(gate, commands)
        assert {path.name for path in commands.iterdir()} == set(TASK_TYPE_TO_COMMAND.values())
    assert list(gate.homes.iterdir()) == []
    # Started as SuperExec would, without what the gate tells: it starts nothing.
    variables = {"PATH": str(commands)}
    for name in (SERVER_APP, "flwr-simulation"):
        done = subprocess.run([commands / name], env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert f"KeyError: '{GATE_VARIABLE}'" in done.stderr
    assert ServerGate.from_environment({GATE_VARIABLE: gate.to_json()}) == gate


def test_the_list_is_shown_and_changed_at_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = command_line(monkeypatch, capsys)
    operator = provision(tmp_path / "c", ["clinic"], Server("localhost", free_ports(1)[0])).operator
    (tmp_path / "app.fab").write_bytes(GOOD)
    where = ("--server", str(operator.root))
    assert call("app", "approve", str(tmp_path / "app.fab"), *where)[0] == 0
    assert stat.S_IMODE(operator.approvals.stat().st_mode) == 0o600
    assert json.loads(operator.approvals.read_text())["approved"][0]["hashes"] == [
        Bundle(GOOD).content,
        Bundle(GOOD).fab,
    ]
    status, out, _ = call("app", "list", *where)
    assert (status, out.split()[0]) == (0, Bundle(GOOD).content)
    assert call("app", "revoke", Bundle(GOOD).content, *where)[0] == 0
    assert call("app", "list", *where)[1] == ""
    status, _, err = call("app", "list", "--server", str(tmp_path))
    assert (status, err.count("\n")) == (2, 1)
