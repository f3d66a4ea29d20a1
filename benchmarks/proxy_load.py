"""Load on the proxy before the SuperLink, with and without client certificates: a generator in Python, and its figures.

Before the proxy stand threads with TLS connections of their own, each of which asks and waits for the answer. Behind
it stands a second HAProxy that answers at once, in the place of the SuperLink, so that the proxy is what is measured.
Python is slower than the proxy: what the proxy itself takes is read from its processor time.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from quire.consortium.about import Server
from quire.consortium.layout import OperatorFolder, SiloFolder
from quire.consortium.loopback import make_loopback
from quire.consortium.proxy import KEY_HEADER, ServerProxy, find_haproxy, render_keys
from quire.consortium.registry import node_keys
from quire.consortium.services import free_ports, listens

_PATH = "/usr/sbin:/usr/bin:/usr/local/sbin"
_BEHIND = """global
    log stdout format raw local0 err
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 5s
frontend there
    bind 127.0.0.1:{port} ssl crt {both} alpn http/1.1
    http-request return status 200 content-type application/protobuf string ok
"""


@dataclass(frozen=True)
class Load:
    """What one load came to.

    Attributes
    ----------
    rate : float
        Requests in a second.
    p50, p99 : float
        Milliseconds from asking to the answer; with the handshake where every request has a connection of its own.
    proxy : float
        Milliseconds of the proxy's processor time for one request.
    """

    rate: float
    p50: float
    p99: float
    proxy: float


class Proxies:
    """The proxy as it is rendered for a server, and the same without client certificates, before one that answers.

    Parameters
    ----------
    operator : OperatorFolder
    silo : SiloFolder
        Whose certificate and node key are shown.
    name : str
        The silo's.
    """

    def __init__(self, operator: OperatorFolder, silo: SiloFolder, name: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="q-", dir="/tmp")
        root = Path(self._folder.name)
        own = make_loopback(root)
        behind, self.port, self.plain_port, *metrics = free_ports(5)
        (root / "nodes.map").write_text(render_keys(node_keys(operator)))
        server = root / "server-both.pem"
        server.write_bytes(operator.server_certificate.read_bytes() + operator.server_key.read_bytes())
        self._running: list[subprocess.Popen[bytes]] = []
        self._start(root, "behind", _BEHIND.format(port=behind, both=own.both), behind)
        most = 10**6  # the limits are another matter; what is counted, is counted
        found = []
        for port, counted in zip((self.port, self.plain_port), metrics, strict=True):
            proxy = ServerProxy(
                Server("127.0.0.1", port),
                server,
                operator.ca_certificate,
                operator.crl,
                behind,
                own.certificate,
                root / "nodes.map",
                counted,
                requests=most,
                connections=most,
                handshakes=most,
                open_connections=most,
            )
            found.append(proxy.render())
        self.mutual = self._start(root, "mutual", found[0], self.port)
        self.plain = self._start(root, "plain", without_certificates(found[1], name), self.plain_port)
        self.context = ssl.create_default_context(cafile=str(operator.ca_certificate))
        self.context.load_cert_chain(silo.client_certificate, silo.client_key)
        key = base64.b64encode(node_keys(operator)[name]).decode()
        self.request = (
            f"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: localhost\r\n{KEY_HEADER}: {key}\r\n"
            "content-type: application/protobuf\r\ncontent-length: 16\r\n\r\n" + "x" * 16
        ).encode()

    def _start(self, root: Path, name: str, text: str, port: int) -> psutil.Process:
        (root / f"{name}.cfg").write_text(text)
        with (root / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [find_haproxy(_PATH), "-db", "-f", str(root / f"{name}.cfg")],
                cwd=root,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._running.append(process)
        deadline = time.monotonic() + 30
        while not listens("127.0.0.1", port):
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError((root / f"{name}.log").read_text())
            time.sleep(0.05)
        return psutil.Process(process.pid)

    def close(self) -> None:
        """Stop all."""
        for process in self._running:
            process.terminate()
            process.wait()
        self._folder.cleanup()

    def load(self, mutual: bool, fresh: bool, seconds: float, threads: int = 4) -> Load:
        """Ask for some seconds, from several threads.

        Parameters
        ----------
        mutual : bool
            Whether of the proxy that wants certificates.
        fresh : bool
            Whether each request has a connection of its own.
        seconds : float
        threads : int
        """
        port, process = (self.port, self.mutual) if mutual else (self.plain_port, self.plain)
        taken: list[float] = []
        before, began = sum(process.cpu_times()[:2]), time.monotonic()

        def work() -> None:
            with contextlib.ExitStack() as open_ones:
                tls: ssl.SSLSocket | None = None
                while time.monotonic() < began + seconds:
                    asked = time.perf_counter()
                    if tls is None or fresh:
                        open_ones.close()
                        tls = open_ones.enter_context(self._connected(port))
                    tls.sendall(self.request)
                    answer = tls.recv(4096)
                    if not answer.startswith(b"HTTP/1.1 200"):
                        raise RuntimeError(f"the proxy answered {answer[:80]!r}")
                    taken.append(time.perf_counter() - asked)

        _together(work, threads)
        spent, length = sum(process.cpu_times()[:2]) - before, time.monotonic() - began
        cuts = statistics.quantiles(taken, n=100)
        return Load(len(taken) / length, 1e3 * cuts[49], 1e3 * cuts[98], 1e3 * spent / len(taken))

    @contextlib.contextmanager
    def _connected(self, port: int) -> Iterator[ssl.SSLSocket]:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
            self.context.wrap_socket(plain, server_hostname="localhost") as tls,
        ):
            yield tls


def _together(work: Callable[[], None], threads: int) -> None:
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=guarded) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if errors:
        raise errors[0]


def without_certificates(configuration: str, member: str) -> str:
    """Return the same configuration for clients that show no certificate: all of them count as one member.

    Raises
    ------
    ValueError
        If the configuration is not the one that this was written for.
    """
    start = configuration.index(" ca-file", configuration.index("frontend fleet"))
    end = configuration.index(" verify required", start) + len(" verify required")
    changed = configuration[:start] + configuration[end:]
    for old, new in (
        ("track-sc0 ssl_c_s_dn(CN)", f"track-sc0 str({member})"),
        ('"ssl_c_s_dn(CN),map_str', f'"str({member}),map_str'),
    ):
        if changed.count(old) != 1:
            raise ValueError(f"the proxy's configuration does not say {old} once")
        changed = changed.replace(old, new)
    return changed


def main(home: Path, name: str) -> None:
    """Ask a running SuperLink for messages through its proxy, as a member may, until the process is ended.

    The requests are signed by the member's node key, as its SuperNode's are, and there are as many of them as the proxy
    lets through. Told on standard input: the address, and how many threads.
    """
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key
    from flwr.proto.fleet_pb2 import PullMessagesRequest
    from flwr.proto.node_pb2 import Node
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    operator, silo = OperatorFolder(home / "operator"), SiloFolder(home / name)
    told = json.loads(input())
    context = ssl.create_default_context(cafile=str(operator.ca_certificate))
    context.load_cert_chain(silo.client_certificate, silo.client_key)
    key = load_ssh_private_key(silo.node_key.read_bytes(), None)
    interceptors = [RuntimeVersionHttpInterceptor("SuperNode"), NodeAuthHttpInterceptor(key, key.public_key())]

    def work() -> None:
        with FleetHttpClient(told["address"], interceptors=interceptors, verify=context) as client:
            while True:
                with contextlib.suppress(Exception):  # 503 beyond the limit: it goes on
                    client.PullMessages(PullMessagesRequest(node=Node(node_id=told["node"])))

    _together(work, told["threads"])


if __name__ == "__main__":
    import sys

    main(Path(sys.argv[1]), sys.argv[2])
