"""The dashboard as a program: where it listens, over TLS, as a real process that a real client asks."""

from __future__ import annotations

import asyncio
import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import uvicorn
from command_line import Call, command_line
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from dashboards import COST, PASSWORD, leave_run, snapshot

from quire.dashboard import serving
from quire.dashboard.roles import Role
from quire.dashboard.serving import is_loopback
from quire.dashboard.users import add_user, read_users

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def quire(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    return command_line(monkeypatch, capsys)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    leave_run(tmp_path / "runs" / "mine", rounds=0)
    return tmp_path / "runs"


def certificate(folder: Path, *names: str, words: bytes | None = None) -> list[str]:
    """Write a certificate of its own for some names, and its key; return the options that name them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dashboard")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )
    if names:
        said = [x509.IPAddress(ip_address(one)) if one[0].isdigit() else x509.DNSName(one) for one in names]
        built = built.add_extension(x509.SubjectAlternativeName(said), critical=False)
    cert, secret = folder / "page.pem", folder / "page.key"
    cert.write_bytes(built.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    protection = NoEncryption() if words is None else BestAvailableEncryption(words)
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection))
    secret.chmod(0o600)
    return ["--certificate", str(cert), "--key", str(secret)]


@contextmanager
def running(*args: str) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """Run ``quire dashboard`` until it says where it listens; it is ended by Ctrl-C, as its users end it."""
    command = [sys.executable, "-m", "quire", "dashboard", *args, "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"Dashboard: (https?)://127\.0\.0\.1:(\d+)/  \(Ctrl-C ends it\)\n", line)
        assert found is not None, line + (process.stdout.read() if process.poll() is not None else "")
        yield process, found[1], int(found[2])
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        *logged, last = process.stdout.read().splitlines()
        assert last == "The dashboard has ended."
        assert all(re.fullmatch(r"\S+ \S+ WARNING: A login failed, from 127\.0\.0\.1", line) for line in logged)
    finally:
        process.kill()
        process.wait()


def test_a_real_server_lets_in_who_has_a_password_and_changes_nothing(runs: Path) -> None:
    add_user(runs, "anna", Role.OPERATOR, PASSWORD, COST)
    before = snapshot(runs)
    with running(str(runs)) as (_, scheme, port):
        assert scheme == "http"
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

        def ask(method: str, path: str, body: str = "", cookie: str = "") -> tuple[int, str, str]:
            client.request(
                method, path, body, {"Origin": f"http://127.0.0.1:{port}", **({"Cookie": cookie} if cookie else {})}
            )
            answer = client.getresponse()
            return answer.status, answer.getheader("set-cookie") or "", answer.read().decode()

        assert ask("GET", "/")[0] == 303
        assert ask("POST", "/login", urlencode({"name": "anna", "password": "wrong"}))[0] == 403
        status, cookie, _ = ask("POST", "/login", urlencode({"name": "anna", "password": PASSWORD}))
        assert status == 303
        status, _, page = ask("GET", "/", cookie=cookie.split(";")[0])
        assert status == 200
        assert ">mine</a>" in page
        assert ask("GET", "/../../etc/passwd", cookie=cookie.split(";")[0])[0] == 404
        client.close()
    assert snapshot(runs) == before


def test_over_tls_it_answers_to_its_certificates_names_alone(runs: Path) -> None:
    add_user(runs, "anna", Role.OPERATOR, PASSWORD, COST)
    options = certificate(runs.parent, "page.example", "127.0.0.1")
    trust = ssl.create_default_context(cafile=options[1])
    with running(str(runs), *options) as (_, scheme, port):
        assert scheme == "https"
        for host, expected in (("page.example", 200), ("evil.example", 421)):
            client = http.client.HTTPSConnection("127.0.0.1", port, context=trust, timeout=60)
            client.request("GET", "/login", headers={"Host": f"{host}:{port}"})
            answer = client.getresponse()
            assert answer.status == expected
            client.close()


def one_sentence(err: str) -> str:
    assert err.startswith("quire: ")
    assert len(err.strip().splitlines()) == 1
    return err


def test_without_tls_it_listens_to_this_machine_alone(quire: Call, runs: Path) -> None:
    add_user(runs, "anna", Role.OPERATOR, PASSWORD, COST)
    for host in ("0.0.0.0", "10.0.0.5", "::", "fl.example.org", "2130706433", "127.0.0.1.example.org"):
        status, out, err = quire("dashboard", str(runs), "--host", host)
        assert (status, out) == (2, "")
        assert "give --certificate and --key" in one_sentence(err)
    assert [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")] == [True] * 4


def test_what_is_no_certificate_with_its_key_is_refused(quire: Call, runs: Path, tmp_path: Path) -> None:
    add_user(runs, "anna", Role.OPERATOR, PASSWORD, COST)
    options = certificate(tmp_path, "page.example")
    assert "takes both" in one_sentence(quire("dashboard", str(runs), *options[:2])[2])
    Path(options[3]).chmod(0o644)
    assert "chmod 600" in one_sentence(quire("dashboard", str(runs), *options)[2])
    certificate(tmp_path)
    assert "names no host" in one_sentence(quire("dashboard", str(runs), *options)[2])
    certificate(tmp_path, "page.example", words=b"secret")
    assert "without a passphrase" in one_sentence(quire("dashboard", str(runs), *options)[2])
    Path(options[1]).write_text("nothing")
    assert "are not a certificate" in one_sentence(quire("dashboard", str(runs), *options)[2])


def test_what_cannot_be_served_is_one_sentence(quire: Call, runs: Path, tmp_path: Path) -> None:
    status, _, err = quire("dashboard", str(runs))
    assert status == 2
    assert "`quire dashboard user add NAME --role ROLE --folder" in one_sentence(err)
    assert "There is no folder" in one_sentence(quire("dashboard", str(tmp_path / "nothing"))[2])
    add_user(runs, "anna", Role.OPERATOR, PASSWORD, COST)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "say another --port" in one_sentence(quire("dashboard", str(runs), "--port", port)[2])


def test_users_are_added_listed_and_removed(quire: Call, runs: Path, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("a password of anna's\n")
    secret.chmod(0o600)
    at = ["--folder", str(runs)]
    add = ["dashboard", "user", "add", "anna", *at, "--password-file", str(secret)]
    assert quire(*add, "--role", "auditor")[:2] == (0, f"Added: anna, auditor, in {runs}/dashboard/users.json\n")
    assert quire(*add, "--role", "member")[1].startswith("Changed: anna, member")
    assert quire("dashboard", "user", "list", *at)[1].split() == ["anna", "member"]
    assert "a password of" not in (runs / "dashboard" / "users.json").read_text()
    assert "is one of operator, member, auditor" in one_sentence(quire(*add, "--role", "admin")[2])
    secret.chmod(0o644)
    assert "chmod 600" in one_sentence(quire(*add, "--role", "member")[2])
    assert quire("dashboard", "user", "remove", "anna", *at)[0] == 0
    assert read_users(runs) == {}
    assert "There is no user" in one_sentence(quire("dashboard", "user", "remove", "anna", *at)[2])


def test_a_password_is_asked_for_at_a_terminal_and_nowhere_else(
    quire: Call, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", open(os.devnull))  # noqa: SIM115
    status, _, err = quire("dashboard", "user", "add", "anna", "--role", "member", "--folder", str(runs))
    assert status == 2
    assert "there is no terminal to ask at" in one_sentence(err)


def test_who_asks_for_nothing_is_let_go_of_and_who_is_answered_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_PATIENCE", 0.3)
    monkeypatch.setattr(serving, "_CONNECTIONS", 4)

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(1.5)  # longer than anybody may be silent
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(
            uvicorn.Config(slow, http=serving.Impatient, ws="none", lifespan="off", log_config=None, loop="asyncio")
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            port = listener.getsockname()[1]
            silent = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(7)]
            assert [one.recv(1) for one in silent[4:]] == [b""] * 3  # no room for them
            assert [one.recv(1) for one in silent[:4]] == [b""] * 4  # nothing came of them
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            client.request("GET", "/")
            assert client.getresponse().read() == b"ok"
            client.close()
        finally:
            server.should_exit = True
            thread.join(30)
            for one in silent:
                one.close()
    assert not thread.is_alive()


def test_help_imports_no_server_and_no_torch() -> None:
    code = (
        "import sys\nfrom quire import cli\nsys.argv = ['quire', 'dashboard', '--help']\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "found = {'starlette', 'uvicorn', 'torch', 'ray', 'flwr', 'jinja2', 'quire.dashboard'} & sys.modules.keys()\n"
        "assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "serve" in done.stdout
