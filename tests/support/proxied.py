"""HAProxy as rendered, before a server of ours that notes what reaches it."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from provisioned import Provisioned, provision

from quire.consortium.about import Server
from quire.consortium.loopback import Loopback, make_loopback, write_private
from quire.consortium.proxy import KEY_HEADER, ServerProxy, find_haproxy, render_keys
from quire.consortium.registry import node_keys
from quire.consortium.services import free_ports, listens

FLEET = "/v1/fleet/pull-messages"
PLACES = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
needs_haproxy = pytest.mark.skipif(shutil.which("haproxy", path=PLACES) is None, reason="haproxy is not installed")


class Backend(http.server.ThreadingHTTPServer):
    """In the place of a SuperLink: notes every request that reaches it."""

    daemon_threads = True

    def __init__(self, own: Loopback) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own.certificate, own.key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.seen: list[str] = []
        self.headers: list[dict[str, str]] = []
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Backend

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        self.server.seen.append(f"{self.command} {self.path} {self.headers['upgrade'] or ''}".strip())
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


@dataclass
class Place:
    """A consortium of two silos, a backend, and the proxy before it."""

    made: Provisioned
    backend: Backend
    proxy: ServerProxy
    folder: Path

    @property
    def port(self) -> int:
        return self.proxy.bind.port if isinstance(self.proxy.bind, Server) else self.proxy.bind

    def context(self, silo: str | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.made.operator.ca_certificate))
        if silo is not None:
            context.load_cert_chain(self.made.silos[silo].client_certificate, self.made.silos[silo].client_key)
        return context

    def key(self, silo: str) -> str:
        """The header with a silo's node key."""
        return f"{KEY_HEADER}: {dict(line.split() for line in self.proxy.keys.read_text().splitlines())[silo]}"

    def send(self, raw: bytes, context: ssl.SSLContext, once: bool = False) -> bytes:
        """Return all that comes back, or the first of it; what ends in an error of TLS brings nothing."""
        back = b""
        with (
            contextlib.suppress(ssl.SSLError, ConnectionError),
            socket.create_connection(("127.0.0.1", self.port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            tls.sendall(raw)
            while chunk := tls.recv(65536):
                back += chunk
                if once:
                    break
        return back

    def status(self, path: str, silo: str, method: str = "POST", *headers: str, body: bytes = b"x") -> int:
        lines = [f"{method} {path} HTTP/1.1", "host: localhost", *headers]
        if not any(line.startswith(KEY_HEADER) for line in headers):
            lines.append(self.key(silo))
        if not any(line.startswith("connection") for line in headers):
            lines.append("connection: close")
        if not any(line.startswith(("content-length", "transfer-encoding")) for line in headers):
            lines.append(f"content-length: {len(body)}")
        back = self.send("\r\n".join([*lines, "", ""]).encode() + body, self.context(silo), once=True)
        return int(back.split()[1]) if back else 0


@contextlib.contextmanager
def running(folder: Path, name: str, configuration: str, port: int) -> Iterator[None]:
    file = folder / f"{name}.cfg"
    file.write_text(configuration)
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen([find_haproxy(PLACES), "-db", "-f", str(file)], cwd=folder, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 10
        while not listens("127.0.0.1", port):
            assert process.poll() is None, (folder / f"{name}.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def proxied(folder: Path) -> Iterator[Place]:
    """Start it all in a folder."""
    port, metrics = free_ports(2)
    server = Server("localhost", port)
    made = provision(folder, ["clinic", "server"], server)  # one that is called as the server is, in its subject
    own = make_loopback(folder)
    both = write_private(
        folder / "both.pem", made.operator.server_certificate.read_bytes() + made.operator.server_key.read_bytes()
    )
    (folder / "nodes.map").write_text(render_keys(node_keys(made.operator)))
    backend = Backend(own)
    proxy = ServerProxy(
        Server("127.0.0.1", port),
        both,
        made.operator.ca_certificate,
        made.operator.crl,
        backend.server_address[1],
        own.certificate,
        folder / "nodes.map",
        metrics,
        body=2_000_000,
    )
    with running(folder, "server", proxy.render(), port):
        yield Place(made, backend, proxy, folder)
    backend.shutdown()
