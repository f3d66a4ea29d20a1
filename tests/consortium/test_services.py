"""What is prepared before anything starts, who is a member, and what is refused in one sentence."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import signal
import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
from command_line import Call, command_line
from consortium_parties import snapshot
from flwr.proto.control_pb2 import ListRunsRequest
from provisioned import Provisioned, provision
from proxied import Backend, needs_haproxy

import quire
from quire.consortium.about import Server
from quire.consortium.errors import FolderBusy
from quire.consortium.loopback import make_loopback, make_secret
from quire.consortium.registry import Connection, RegistryError, members_in, node_keys
from quire.consortium.services import ServicesError, check_free, free_ports, prepare
from quire.consortium.silo_services import silo
from quire.consortium.submit import list_runs, make_bundle
from quire.consortium.superlink import superlink
from quire.consortium.supervise import Supervisor
from quire.errors import QuireError, SettingsError
from quire.simulation.flower_app import stage
from quire.strategies.folder import RunFolder


def quiet(name: str, words: str) -> None:
    """Where nobody listens."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Provisioned:
    return provision(
        tmp_path_factory.mktemp("consortium"), ["clinic", "hospital"], Server("localhost", free_ports(1)[0])
    )


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    return command_line(monkeypatch, capsys)


def test_members_are_those_whose_certificate_is_not_revoked(tmp_path: Path) -> None:
    here = provision(tmp_path, ["clinic", "hospital"], Server("localhost"))
    assert members_in(here.operator) == {name: here.operator.node_key(name) for name in ("clinic", "hospital")}
    here.parties.revoke("clinic")
    assert list(members_in(here.operator)) == ["hospital"]
    here.operator.client_certificate("hospital").write_text("-----BEGIN CERTIFICATE-----\nx\n")
    with pytest.raises(RegistryError, match="cannot be read"):
        members_in(here.operator)
    here.operator.crl.unlink()
    with pytest.raises(RegistryError, match="cannot be read"):  # without the list nobody is taken for a member
        members_in(here.operator)


@needs_haproxy
def test_the_superlink_is_started_with_the_safe_settings(made: Provisioned) -> None:
    supervisor = superlink(made.operator, quiet, metrics=free_ports(1)[0])
    link, executor, front = supervisor.services
    run = made.operator.run.resolve()
    words = list(link.command)
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert words[words.index("--isolation") + 1] == "process"
    assert words[words.index("--superexec-auth-secret-file") + 1] == str(run / "superexec.secret")
    assert words[words.index("--database") + 1] == str(run / "state.db")
    assert {"--enable-supernode-auth", "--disable-runtime-dependency-installation"} <= set(words)
    assert not {"--insecure", "--simulation"} & {*words, *executor.command}
    for service in (link, executor):
        assert service.environment["FLWR_TELEMETRY_ENABLED"] == "0"
        assert service.environment["QUIRE_ROSTER"] == str(run / "roster.json")
        assert "QUIRE_RUN_DIR" not in service.environment
        assert service.folder == run / "empty"
    assert made.operator.crl.resolve() in front.watched
    assert front.folder == run / "proxy"
    began(supervisor)
    assert list((run / "empty").iterdir()) == []
    for private in ("superexec.secret", "loopback.key", "loopback-both.pem"):
        assert stat.S_IMODE((run / private).stat().st_mode) == 0o600
    assert stat.S_IMODE(run.stat().st_mode) == 0o700


def began(supervisor: Supervisor) -> None:
    """Have it write what it writes before anything starts, and start nothing."""
    supervisor.services = []
    thread = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    thread.start()
    supervisor.run()
    thread.join()


@needs_haproxy
@pytest.mark.parametrize("which", ["superlink", "silo"])
def test_a_second_start_is_refused_and_leaves_the_first_ones_files_alone(tmp_path: Path, which: str) -> None:
    port, other = free_ports(2)
    here = provision(tmp_path, ["clinic"], Server("localhost", port))

    def start(port: int) -> Supervisor:
        if which == "superlink":
            return superlink(here.operator, quiet, Server("127.0.0.1", port))
        return silo(here.silos["clinic"], quiet)

    first = start(port)
    began(first)
    assert (first.folder / "superexec.secret").exists()
    before = snapshot(first.folder)
    with (first.folder / "supervisor.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(FolderBusy, match="are running already"):
            start(other).run()
    assert snapshot(first.folder) == before
    began(start(other))
    assert snapshot(first.folder) != before


@needs_haproxy
def test_a_silo_starts_no_code_of_the_servers_and_tells_the_supernode_nothing(
    made: Provisioned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIRE_PASSPHRASE_FILE", "words")
    monkeypatch.setenv("DATABASE_PASSWORD", "swordfish")
    monkeypatch.chdir(tmp_path)
    front, node, gate = silo(made.silos["clinic"], quiet, passed=["DATABASE_PASSWORD"]).services
    words = list(node.command)
    assert words[words.index("--isolation") + 1] == "process"
    assert words[words.index("--superlink") + 1].startswith("127.0.0.1:")
    assert not {"--insecure", "--node-config", "--allow-runtime-dependency-installation"} & set(words)
    assert "QUIRE_PASSPHRASE_FILE" not in node.environment
    assert "silo.yaml" not in " ".join([*words, *node.environment.values()])
    assert [service.environment.get("DATABASE_PASSWORD") for service in (front, node)] == [None, None]
    assert gate.environment["DATABASE_PASSWORD"] == "swordfish"
    assert gate.environment["QUIRE_PASSPHRASE_FILE"] == str(tmp_path / "words")
    words = list(gate.command)
    assert words[words.index("--silo") + 1] == str(made.silos["clinic"].silo_file.resolve())
    assert words[words.index("--pass") + 1] == "DATABASE_PASSWORD"


@needs_haproxy
def test_a_server_is_started_without_the_keys_that_sign(tmp_path: Path) -> None:
    """As the example for systemd has it: they are hidden from the service, or kept elsewhere."""
    here = provision(tmp_path, ["clinic"], Server("localhost", free_ports(1)[0]))
    unit = Path(quire.__file__).parents[1] / "consortium" / "examples" / "quire-superlink.service"
    (hidden,) = [line for line in unit.read_text().splitlines() if line.startswith("InaccessiblePaths=")]
    for path in (here.operator.ca_key, here.operator.admin_key):
        assert str(path.relative_to(here.operator.root)) in hidden
        path.unlink()
    supervisor = superlink(here.operator, quiet)
    began(supervisor)
    with pytest.raises(RegistryError, match="does not answer"):
        supervisor.duties[0].call()
    assert here.operator.run.joinpath("nodes.map").read_text().startswith("clinic ")


@needs_haproxy
def test_the_proxy_is_told_of_node_keys_when_members_change(tmp_path: Path) -> None:
    here = provision(tmp_path, ["clinic", "hospital"], Server("localhost", free_ports(1)[0]))
    supervisor = superlink(here.operator, quiet)
    place, (duty, _) = here.operator.run.resolve() / "nodes.map", supervisor.duties
    assert place in supervisor.services[-1].watched
    prepare(here.operator.run)
    make_loopback(here.operator.run)

    def told() -> dict[str, str]:
        with pytest.raises(RegistryError, match="does not answer"):  # no SuperLink runs
            duty.call()
        return dict(line.split() for line in place.read_text().splitlines())

    first = told()
    assert list(first) == ["clinic", "hospital"]
    assert {name: base64.b64decode(key) for name, key in first.items()} == node_keys(here.operator)
    here.parties.bring("ward")
    assert list(told()) == ["clinic", "hospital", "ward"]
    written = place.stat().st_mtime_ns
    here.parties.revoke("clinic")
    assert told()["ward"]
    assert place.stat().st_mtime_ns == written  # the list of revoked certificates says it, and starts the proxy again
    here.parties.admit(here.parties.ask("clinic", folder="anew"))
    assert told()["clinic"] != first["clinic"]


def test_the_loopback_certificate_is_for_this_machine(tmp_path: Path) -> None:
    own = make_loopback(tmp_path)
    context = ssl.create_default_context(cafile=str(own.certificate))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(own.both)
    for name, good in (("127.0.0.1", True), ("localhost", True), ("example.org", False)):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        here = context.wrap_bio(incoming, outgoing, server_hostname=name)
        there_in, there_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        there = server.wrap_bio(there_in, there_out, server_side=True)
        assert shaken(here, incoming, outgoing, there, there_in, there_out) == good
    assert make_secret(tmp_path / "s").read_bytes() != make_secret(tmp_path / "s").read_bytes()


def shaken(
    here: ssl.SSLObject,
    here_in: ssl.MemoryBIO,
    here_out: ssl.MemoryBIO,
    there: ssl.SSLObject,
    there_in: ssl.MemoryBIO,
    there_out: ssl.MemoryBIO,
) -> bool:
    """Shake hands in memory; False if the client does not like the certificate."""
    for _ in range(6):
        for side in (here, there):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLCertVerificationError:
                return False
        there_in.write(here_out.read())
        here_in.write(there_out.read())
    return here.version() is not None


def test_a_folder_to_start_in_must_be_empty(tmp_path: Path) -> None:
    prepare(tmp_path / "run")
    (tmp_path / "run" / "empty" / "clients.py").write_text("")
    with pytest.raises(ServicesError, match="would import what lies there"):
        prepare(tmp_path / "run")


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ServicesError, match="Nothing can listen at"):
            check_free("127.0.0.1", taken.getsockname()[1])


def test_a_superlink_that_is_not_there_is_told_in_a_sentence(tmp_path: Path) -> None:
    own = make_loopback(tmp_path)
    connection = Connection(f"127.0.0.1:{free_ports(1)[0]}", own.certificate)
    with pytest.raises(RegistryError, match=r"does not answer \(ConnectError\)"), connection.client() as client:
        client.ListRuns(ListRunsRequest())


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9"])
def test_a_proxy_in_the_environment_is_not_asked_for_the_superlink(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    backend = Backend(own := make_loopback(tmp_path))
    with Connection(f"127.0.0.1:{backend.server_address[1]}", own.certificate).client() as client:
        client.ListRuns(ListRunsRequest())
    assert backend.seen == ["POST /v1/control/list-runs"]
    backend.shutdown()
    assert os.environ["HTTPS_PROXY"] == proxy


def test_the_bundle_is_that_of_the_code_that_runs_here(tmp_path: Path) -> None:
    from quire.clients.code import code_hash, hash_of_sources
    from quire.clients.gate.bundle import read_bundle

    made = make_bundle()
    assert made.content == make_bundle().content == read_bundle(stage(tmp_path / "quire")).content
    assert hash_of_sources(made.files) == code_hash()
    assert not any("consortium/" in name for name in made.files)


def test_runs_are_told_from_their_folders_while_the_superlink_is_down(made: Provisioned, call: Call) -> None:
    place = made.operator.root / "runs" / "7"
    with contextlib.closing(RunFolder(place)) as folder:
        folder.begin(quire.compose(""), runtime="deployment", code_hash="0" * 64)
        assert [line.status for line in list_runs(made.operator)] == ["running"]
        folder.finish("failed", "Too few silos are left.")
    (made.operator.root / "runs" / "notes.txt").write_text("")
    (line,) = list_runs(made.operator)
    assert (line.run, line.status, line.rounds, line.of) == (7, "failed", 0, None)
    assert (line.model, line.error, line.folder) == (None, "Too few silos are left.", str(place))
    with pytest.raises(QuireError):
        list_runs(made.operator, strict=True)
    status, out, _ = call("runs", str(made.operator.root), "--json")
    assert (status, json.loads(out)["error"]) == (0, "Too few silos are left.")
    status, out, _ = call("runs", str(made.operator.root))
    assert (status, out.split()[:3]) == (0, ["7", "failed", "0/?"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("superlink", "start", "SILO"), "is not an operator's folder"),
        (("superlink", "start", "OPERATOR", "--listen", "a b:1"), "must be a host name"),
        (("silo", "start", "OPERATOR"), "is not a silo's folder"),
        (("silo", "start", "SILO", "--pass", "PYTHONPATH"), "cannot be handed on"),
        (("submit", "SILO"), "No SuperLink was started"),
        (("submit", "OPERATOR", "strategy.rounds=none"), "strategy.rounds"),
        (("submit", "OPERATOR", "aggregation=secure", "aggregation.simulate=exact_sum"), "short cut for simulations"),
        (("runs", "SILO"), "is not an operator's folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_is_refused_in_one_sentence(
    made: Provisioned, call: Call, arguments: tuple[str, ...], words: str
) -> None:
    places = {"OPERATOR": str(made.operator.root), "SILO": str(made.silos["hospital"].root)}
    status, out, err = call(*(places.get(word, word) for word in arguments))
    assert (status, out) == (2, "")
    assert words in err
    assert err.startswith("quire: ")
    assert err.count("\n") == 1


def test_a_silo_that_has_not_joined_is_told_what_to_do(made: Provisioned, call: Call) -> None:
    made.parties.ask("waiting")
    status, _, err = call("silo", "start", str(made.parties.silo("waiting").root))
    assert status == 2
    assert "`quire consortium join` makes it" in err


def test_more_silos_than_members_are_refused_before_anything_is_sent(made: Provisioned) -> None:
    from quire.consortium.submit import submit

    made.operator.run.mkdir(exist_ok=True)
    (made.operator.run / "superlink.json").write_text('{"address": "127.0.0.1:1", "metrics": 1}')
    with pytest.raises(SettingsError, match=r"partition.silos=5, but the consortium has 2 members"):
        submit(made.operator, quire.compose(""))
