"""A consortium as its operators start it: `quire superlink start`, `quire silo start`, `quire submit`; then killed.

One machine, loopback, ports from the system. Everything is started by the command line, and what is killed is killed
with SIGKILL.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.proto.control_pb2 import ListNodesRequest
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, RegisterNodeFleetRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from foreign_run import leaving, submit_foreign
from provisioned import Provisioned, pem, provision, secret
from secure_runs import rounds_of

import quire
from quire.clients.gate.bundle import Bundle
from quire.consortium.about import Server
from quire.consortium.authority import Authority
from quire.consortium.registry import members_in
from quire.consortium.services import free_ports
from quire.consortium.silo_metrics import Decisions
from quire.consortium.submit import list_runs
from quire.consortium.superlink import read_running, runs_folder
from quire.simulation.flower_daemon import environment

ROOT = Path(__file__).resolve().parents[1]
PLACES = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
NAMES = ["hospital-1", "hospital-2", "hospital-3"]
OVERRIDES = (
    "task=breast_cancer partition=iid partition.silos=3 strategy.rounds=2 strategy.min_silos=2 aggregation=secure "
    "output.report=false output.baselines=false output.progress=none runtime.join_timeout=300"
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(shutil.which("haproxy", path=PLACES) is None, reason="haproxy is not installed"),
]


class Consortium:
    """The folders, and the supervisors that were started over them."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="q-"))
        self.port = free_ports(1)[0]
        self.made: Provisioned = provision(self.home, NAMES, Server("localhost", self.port))
        self.variables = {**environment(os.environ, self.home, self.home), "PYTHONPATH": str(ROOT)}
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.folders = {
            "server": self.made.operator.root,
            **{name: silo.root for name, silo in self.made.silos.items()},
        }

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "quire", *map(str, arguments)]

    def call(self, *arguments: str | Path, limit: float = 900.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.home,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )

    def start(self, name: str) -> None:
        what = ("superlink", "start", self.folders[name]) if name == "server" else ("silo", "start", self.folders[name])
        if name == "server":
            what = (*what, "--listen", f"127.0.0.1:{self.port}")
        with (self.home / f"{name}.out").open("ab") as out:
            self.running[name] = subprocess.Popen(
                self.command(*what), cwd=self.home, env=self.variables, stdout=out, stderr=out
            )

    def events(self, name: str) -> list[dict[str, Any]]:
        file = self.folders[name] / "run" / "log" / "events.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def said(self, name: str, service: str, words: str) -> int:
        return sum(event["service"] == service and words in event["words"] for event in self.events(name))

    def process(self, name: str, service: str) -> int:
        lines = [event["words"] for event in self.events(name) if event["service"] == service]
        ready = [line for line in lines if line.startswith("is ready")]
        return int(ready[-1].split("process ")[1].split(",")[0])

    def wait(self, done: Callable[[], bool], limit: float) -> None:
        deadline = time.monotonic() + limit
        while not done():
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)

    def logs(self) -> str:
        paths = [*self.home.glob("*.out"), *self.home.glob("*/run/log/*.log")]
        return "\n".join(
            f"--- {path.relative_to(self.home)}\n{path.read_text(errors='replace')[-3000:]}" for path in paths
        )

    def send(self, path: str, certificate: Path | None, body: bytes = b"") -> bytes:
        """Return what comes back from the port that silos reach."""
        context = ssl.create_default_context(cafile=str(self.made.operator.ca_certificate))
        if certificate is not None:
            context.load_cert_chain(certificate)
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {len(body)}\r\n"
        back = b""
        with (
            contextlib.suppress(ssl.SSLError, ConnectionError),
            socket.create_connection(("127.0.0.1", self.port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            tls.sendall(head.encode() + b"content-type: application/protobuf\r\n\r\n" + body)
            while chunk := tls.recv(65536):
                back += chunk
        return back

    def stop(self) -> dict[str, int]:
        for process in self.running.values():
            process.terminate()
        return {name: process.wait(60) for name, process in self.running.items()}


@pytest.fixture(scope="module")
def consortium() -> Iterator[Consortium]:
    made = Consortium()
    try:
        bundle = made.home / "quire.fab"
        assert made.call("submit", made.folders["server"], "--bundle", bundle).returncode == 0
        for silo in made.made.silos.values():
            assert made.call("app", "approve", bundle, "--silo", silo.silo_file).returncode == 0
        for name in made.folders:
            made.start(name)
        for name in made.folders:
            made.wait(lambda name=name: made.said(name, "all", "is up") == 1, 300.0)  # type: ignore[misc]
        yield made
    finally:
        made.stop()
        marked = [process for process in psutil.process_iter() if _works_in(process, made.home)]
        for process in marked:
            process.kill()
        shutil.rmtree(made.home, ignore_errors=True)
    assert marked == []


def _works_in(process: psutil.Process, folder: Path) -> bool:
    with contextlib.suppress(psutil.Error):
        return str(folder) in " ".join(process.cmdline())
    return False


def test_the_members_keys_are_registered_and_no_others(consortium: Consortium) -> None:
    with read_running(consortium.made.operator).connection.client() as client:
        nodes = client.ListNodes(ListNodesRequest()).nodes_info
    found = {
        node.name: bytes_to_public_key(node.public_key).public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        for node in nodes
    }
    members = members_in(consortium.made.operator)
    assert found == {name: b" ".join(path.read_bytes().split()[:2]) for name, path in members.items()}
    assert sorted(found) == NAMES


def test_a_run_completes_though_the_superlink_is_killed_in_the_middle(consortium: Consortium, tmp_path: Path) -> None:
    runs, operator = runs_folder(consortium.made.operator), consortium.made.operator.root
    following = subprocess.Popen(
        consortium.command("submit", operator, *OVERRIDES.split(), "--wait"),
        cwd=consortium.home,
        env=consortium.variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        counters = consortium.made.silos["hospital-2"].root / "store" / "counters.jsonl"
        consortium.wait(lambda: counters.exists() and ".secure" in counters.read_text(), 600.0)  # a round has begun
        victim = consortium.process("server", "superlink")
        os.kill(victim, signal.SIGKILL)
        consortium.wait(lambda: consortium.said("server", "superlink", "is ready") == 2, 60.0)
        assert consortium.said("server", "superlink", "killed by signal 9") == 1
        assert consortium.process("server", "superlink") != victim
        told, _ = following.communicate(timeout=900)
    finally:
        following.kill()
    assert following.returncode == 0, told + consortium.logs()
    assert "is completed." in told
    (folder,) = runs.iterdir()
    assert str(folder) in told
    lines = [json.loads(line) for line in consortium.call("runs", operator, "--json").stdout.splitlines()]
    (line,) = lines
    assert (line["status"], line["rounds"], line["of"], line["error"]) == ("completed", 2, 2, None)
    assert [sorted(one["replied"]) for one in rounds_of(folder)] == [NAMES, NAMES]
    assert line["model"] == quire.run(OVERRIDES, tmp_path / "inline").model  # as if nothing had happened
    for silo in consortium.made.silos.values():  # charged once
        (ledger,) = (silo.root / "store" / "ledger").iterdir()
        assert ledger.read_text().count('"kind":"charge"') == 1


def test_a_run_that_fails_says_so_in_its_exit_status(consortium: Consortium) -> None:
    operator = consortium.made.operator.root
    refused = OVERRIDES.replace("aggregation=secure", "aggregation=plain")  # no silo's policy takes that
    done = consortium.call("submit", operator, *refused.split(), "--wait")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.startswith("quire: Run ")
    assert done.stderr.count("\n") == 1
    many = consortium.call("submit", operator, "partition.silos=4")
    assert many.returncode == 2
    assert "the consortium has 3 members" in many.stderr
    statuses = [line.split()[1] for line in consortium.call("runs", operator).stdout.splitlines()]
    assert statuses == ["completed", "failed"]


def test_the_server_runs_no_code_that_its_operator_did_not_ship(consortium: Consortium, tmp_path: Path) -> None:
    """Any account of the machine can submit a run: its code is refused before anything of it is imported."""
    raw, operator = leaving(tmp_path / "marker"), consortium.made.operator
    run = submit_foreign(operator, raw)
    consortium.wait(lambda: {one.run: one.over for one in list_runs(operator)}.get(run, False), 60.0)
    (line,) = [one for one in list_runs(operator) if one.run == run]
    assert (line.status, line.folder) == ("failed", None)
    assert str(line.error).startswith(f"Refused by the server's gate: content {Bundle(raw).content}")
    assert f"Run {run} is refused" in (operator.run / "log" / "server-gate.log").read_text()
    assert [*tmp_path.iterdir(), *(operator.run / "serverapps").iterdir()] == []


def test_a_silo_that_answers_under_another_members_name_is_left_out(consortium: Consortium) -> None:
    place, decisions = consortium.made.silos["hospital-2"].silo_file, Decisions(consortium.made.silos["hospital-1"])
    before = place.read_text()
    kept = [line for line in before.splitlines() if not line.startswith("roster:")]  # it would find out itself
    place.write_text("\n".join(kept).replace("name: hospital-2", "name: hospital-1", 1))
    try:
        overrides = OVERRIDES.replace("min_silos=2", "min_silos=3")
        done = consortium.call("submit", consortium.made.operator.root, *overrides.split(), "--wait")
    finally:
        place.write_text(before)
    assert done.returncode == 1, done.stdout + done.stderr + consortium.logs()
    assert "hospital-2: its node is hospital-2's, and it answers as hospital-1" in done.stderr
    told = [sample.labels for metric in decisions.look() for sample in metric.samples]  # from the gate's own log
    assert told == [{"decision": "admitted"}, {"stage": "query", "outcome": "content"}]


@pytest.mark.parametrize(
    "path",
    ["/v1/control/list-runs", "/v1/control/start-run", "/v1/runtime/acquire-task", "/docs", "/openapi.json", "/"],
)
def test_only_the_fleet_api_is_there_and_only_for_members(consortium: Consortium, tmp_path: Path, path: str) -> None:
    good, foreign = consortium.made.both("hospital-1", tmp_path / "good.pem"), tmp_path / "foreign.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    now = int(time.time())
    foreign.write_bytes(pem(Authority.new("hearts", now).client("hospital-1", key.public_key(), now, 1)) + secret(key))
    assert consortium.send(path, good).startswith(b"HTTP/1.1 403")
    assert consortium.send(path, foreign) == b""
    assert consortium.send(path, None) == b""


def test_a_certificate_alone_makes_no_node(consortium: Consortium) -> None:
    """Whoever has a silo's certificate and not its node key gets no message, and cannot register a key of its own."""
    silo, operator = consortium.made.silos["hospital-1"], consortium.made.operator
    context = ssl.create_default_context(cafile=str(operator.ca_certificate))
    context.load_cert_chain(silo.client_certificate, silo.client_key)
    own = ec.generate_private_key(ec.SECP384R1())
    key = public_key_to_bytes(own.public_key())
    with read_running(operator).connection.client() as control:
        nodes = control.ListNodes(ListNodesRequest()).nodes_info
    node = Node(node_id=next(node.node_id for node in nodes if node.name == "hospital-1"))
    version = RuntimeVersionHttpInterceptor(component_name="SuperNode")
    for interceptors in ([version], [version, NodeAuthHttpInterceptor(own, own.public_key())]):
        with FleetHttpClient(
            f"https://localhost:{consortium.port}", interceptors=interceptors, verify=context
        ) as client:
            for ask, request in (
                (client.RegisterNode, RegisterNodeFleetRequest(public_key=key)),
                (client.ActivateNode, ActivateNodeRequest(public_key=key, heartbeat_interval=30)),
                (client.PullMessages, PullMessagesRequest(node=node)),
            ):
                with pytest.raises(httpx.HTTPStatusError) as refused:
                    ask(request)  # type: ignore[operator]
                assert refused.value.response.status_code in (401, 404, 412), refused.value.response.text
    with read_running(operator).connection.client() as control:
        assert len(control.ListNodes(ListNodesRequest()).nodes_info) == len(NAMES)


def test_a_killed_supernode_and_a_killed_silo_come_back(consortium: Consortium) -> None:
    victim = consortium.process("hospital-1", "supernode")
    os.kill(victim, signal.SIGKILL)
    consortium.wait(lambda: consortium.said("hospital-1", "supernode", "is ready") >= 2, 60.0)
    # All of the silo at once: the supervisor goes, and nothing stays behind it.
    supervisor = consortium.running["hospital-2"]
    services = psutil.Process(supervisor.pid).children(recursive=True)
    assert len(services) >= 4
    supervisor.kill()
    supervisor.wait()
    consortium.wait(lambda: not any(service.is_running() for service in services), 60.0)
    consortium.start("hospital-2")
    consortium.wait(lambda: consortium.said("hospital-2", "all", "is up") == 2, 60.0)


def test_a_second_start_is_refused(consortium: Consortium) -> None:
    done = consortium.call("silo", "start", consortium.folders["hospital-3"])
    assert done.returncode == 2
    assert "running already" in done.stderr
    assert done.stderr.count("\n") == 1


def test_who_is_revoked_is_struck_off_and_gets_nothing(consortium: Consortium, tmp_path: Path) -> None:
    good = consortium.made.both("hospital-3", tmp_path / "good.pem")
    assert consortium.send("/v1/fleet/pull-messages", good) != b""
    assert consortium.call("consortium", "revoke", consortium.folders["server"], "hospital-3").returncode == 0
    consortium.wait(lambda: consortium.said("server", "members", "hospital-3 is struck off") == 1, 30.0)
    consortium.wait(lambda: consortium.said("server", "proxy", "is ready") == 2, 30.0)
    assert consortium.send("/v1/fleet/pull-messages", good) == b""
    assert sorted(members_in(consortium.made.operator)) == NAMES[:2]
    # The same node key again: the SuperLink does not take it, says so, and goes on.
    shutil.copytree(consortium.made.operator.member("hospital-2"), consortium.made.operator.member("hospital-4"))
    shutil.copyfile(
        consortium.made.silos["hospital-3"].node_public_key, consortium.made.operator.node_key("hospital-4")
    )
    consortium.wait(lambda: consortium.said("server", "members", "hospital-4 cannot be registered") == 1, 30.0)


def test_all_stop_in_order_when_they_are_asked(consortium: Consortium) -> None:
    assert consortium.stop() == dict.fromkeys(consortium.running, 0)
    stopped = [event["service"] for event in consortium.events("server") if event["words"] == "is stopped"]
    assert stopped == ["proxy", "superexec", "superlink"]
