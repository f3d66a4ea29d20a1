"""A consortium's services as its operators start them, `quire superlink start` and `quire silo start`; then killed.

One machine, loopback, ports from the system. Everything is started by the command line, and what is killed is killed
with SIGKILL. Runs, and silos on machines of their own, are in `tests/network`.
"""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

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
from provisioned import Provisioned, provision
from proxied import needs_haproxy
from running import SERVER, Running

from quire.clients.gate.bundle import Bundle
from quire.consortium.about import Server
from quire.consortium.registry import members_in
from quire.consortium.services import free_ports
from quire.consortium.silo_metrics import Decisions
from quire.consortium.submit import list_runs
from quire.consortium.superlink import read_running

NAMES = ["hospital-1", "hospital-2", "hospital-3"]
OVERRIDES = (
    "task=breast_cancer partition=iid partition.silos=3 strategy.rounds=2 strategy.min_silos=2 aggregation=secure "
    "output.report=false output.baselines=false output.progress=none runtime.join_timeout=300"
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500), needs_haproxy]


class Consortium(Running):
    """On loopback, at a port from the system, over folders that share out a shipped data set."""

    def __init__(self) -> None:
        home = Path(tempfile.mkdtemp(prefix="q-"))
        self.port = free_ports(1)[0]
        self.made: Provisioned = provision(home, NAMES, Server("localhost", self.port))
        silos = {name: silo.root for name, silo in self.made.silos.items()}
        super().__init__(home, {SERVER: self.made.operator.root, **silos}, f"127.0.0.1:{self.port}")


@pytest.fixture(scope="module")
def consortium() -> Iterator[Consortium]:
    made = Consortium()
    try:
        made.start_all()
        yield made
    finally:
        left = made.close()
    assert left == []


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
    bundle, operator = consortium.home / "quire.fab", consortium.made.operator.root
    written = consortium.call("submit", operator, "--bundle", bundle)
    assert written.returncode == 0, written.stderr
    for silo in consortium.made.silos.values():
        approved = consortium.call("app", "approve", bundle, "--silo", silo.silo_file)
        assert approved.returncode == 0, approved.stderr
    place, decisions = consortium.made.silos["hospital-2"].silo_file, Decisions(consortium.made.silos["hospital-1"])
    before = place.read_text()
    kept = [line for line in before.splitlines() if not line.startswith("roster:")]  # it would find out itself
    place.write_text("\n".join(kept).replace("name: hospital-2", "name: hospital-1", 1))
    try:
        overrides = OVERRIDES.replace("min_silos=2", "min_silos=3")
        done = consortium.call("submit", operator, *overrides.split(), "--wait")
    finally:
        place.write_text(before)
    assert done.returncode == 1, done.stdout + done.stderr + consortium.logs()
    assert "hospital-2: its node is hospital-2's, and it answers as hospital-1" in done.stderr
    told = [sample.labels for metric in decisions.look() for sample in metric.samples]  # from the gate's own log
    assert told == [{"decision": "admitted"}, {"stage": "query", "outcome": "content"}]


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
    consortium.wait(lambda: consortium.said("server", "proxy", "is ready") == 3, 30.0)  # for the new member's key


def test_all_stop_in_order_when_they_are_asked(consortium: Consortium) -> None:
    assert consortium.stop() == dict.fromkeys(consortium.running, 0)
    stopped = [event["service"] for event in consortium.events("server") if event["words"] == "is stopped"]
    assert stopped == ["proxy", "superexec", "superlink"]
