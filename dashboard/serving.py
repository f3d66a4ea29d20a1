"""Where the dashboard listens: this machine alone, or elsewhere under TLS, and nowhere else."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from cryptography import x509
from uvicorn.protocols.http.h11_impl import H11Protocol

from quire.clients.identity import IdentityFileError, files
from quire.dashboard.errors import DashboardError
from quire.dashboard.users import read_users
from quire.dashboard.views import Folder
from quire.dashboard.web import Web

#: Where it listens if nothing else is said.
HOST, PORT = "127.0.0.1", 8460
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_MAX_PEM = 1024 * 1024
# Connections at once: whoever watches, and their browsers' spare ones.
_CONNECTIONS = 100
# Seconds after which a connection is looked at again: who asks for nothing at two looks is let go.
_PATIENCE = 10.0


class Impatient(H11Protocol):
    """Uvicorn's connection, which by itself waits for a request for ever, and counts connections at requests only."""

    _idle = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, if there is room for it."""
        super().connection_made(transport)
        if len(self.connections) > _CONNECTIONS:
            transport.abort()
            return
        self.loop.call_later(_PATIENCE, self._look)

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        busy = self.cycle is not None and not self.cycle.response_complete
        if self._idle and not busy:
            self.transport.abort()
            return
        self._idle = not busy
        self.loop.call_later(_PATIENCE, self._look)


@dataclass(frozen=True)
class Tls:
    """What the server shows.

    Attributes
    ----------
    certificate, key : pathlib.Path
        PEM; the key unencrypted, for its owner alone.
    """

    certificate: Path
    key: Path

    def names(self) -> set[str]:
        """Read by which names and addresses the certificate knows its server.

        Raises
        ------
        DashboardError
            If the two files are not a certificate and its key.
        """
        try:
            data = files.read(self.certificate, _MAX_PEM)
            files.read(self.key, _MAX_PEM, secret=True)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            # An encrypted key would have the terminal asked for a passphrase, in the middle of starting.
            context.load_cert_chain(self.certificate, self.key, password=lambda: b"")
            found = x509.load_pem_x509_certificates(data)[0]
            told = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except IdentityFileError as error:
            raise DashboardError(str(error)) from error
        except x509.ExtensionNotFound:
            raise DashboardError(f"{self.certificate} names no host that it is for (subjectAltName).") from None
        except (OSError, ValueError):
            raise DashboardError(
                f"{self.certificate} and {self.key} are not a certificate in PEM and its key without a passphrase."
            ) from None
        addresses = {str(address) for address in told.get_values_for_type(x509.IPAddress)}
        return {name.lower() for name in told.get_values_for_type(x509.DNSName)} | addresses


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's alone; a name is not taken for one, but ``localhost``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def hosts_of(host: str, tls: Tls | None) -> set[str]:
    """Return by which names browsers may call a server.

    Raises
    ------
    DashboardError
        If it would listen to other machines without TLS, or the certificate is none.
    """
    if tls is None and not is_loopback(host):
        raise DashboardError(
            f"{host} can be reached from other machines, so passwords would travel in clear: give --certificate and "
            f"--key, or leave out --host and come by a tunnel (ssh -L {PORT}:127.0.0.1:{PORT})."
        )
    names = set() if tls is None else tls.names()
    return names | {host} | (set(_LOOPBACK_NAMES) if is_loopback(host) else set())


def serve(
    root: Path,
    host: str = HOST,
    port: int = PORT,
    tls: Tls | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Serve the dashboard of a folder until it is interrupted.

    Parameters
    ----------
    root : pathlib.Path
        An operator's folder, a silo's, or a folder of runs.
    host : str
    port : int
        0: one that the system gives.
    tls : Tls or None
    say : callable
        Told the address once it listens.

    Raises
    ------
    DashboardError
        If it cannot be started: no such folder, nobody who could log in, no TLS, the port is taken.
    """
    folder = Folder.of(root)
    hosts = hosts_of(host, tls)
    if not read_users(root):
        raise DashboardError(
            f"Nobody could log in: `quire dashboard user add NAME --role ROLE --folder {root}` adds somebody."
        )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    with _listening(host, port) as listener:
        port = listener.getsockname()[1]
        web = Web(folder, hosts, tls is not None, port)
        config = uvicorn.Config(
            web.app(),
            http=Impatient,  # h11 bounds what it reads of a request's head
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=3,
            ssl_certfile=None if tls is None else tls.certificate,
            ssl_keyfile=None if tls is None else tls.key,
        )
        shown = f"[{host}]" if ":" in host else host
        say(f"{'http' if tls is None else 'https'}://{shown}:{port}/")
        uvicorn.Server(config).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise DashboardError(
            f"Nothing can listen on {host}, port {port} ({error.strerror}): say another --port."
        ) from None
