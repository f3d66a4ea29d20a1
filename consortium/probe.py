"""Why a silo does not reach its server, in words: Flower's SuperNode would only go on trying."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime

from cryptography import x509

from quire.consortium.about import Server
from quire.consortium.errors import ConsortiumError
from quire.consortium.layout import SiloFolder

#: Days before the end of a certificate from which on it is told.
WARN_DAYS = 14
_LIMIT = 3.0
_DAY = 86_400.0


class Unreached(ConsortiumError):
    """The server is not reached, or does not want this silo."""

    exit_code = 1


def reach(folder: SiloFolder, server: Server) -> None:
    """Shake hands with the server as the silo's proxy does, and ask for what no proxy lets through.

    Raises
    ------
    Unreached
        If there is nobody, it is somebody else, or it refuses the silo's certificate.
    """
    try:
        context = ssl.create_default_context(cafile=str(folder.ca_certificate))
        context.load_verify_locations(cafile=str(folder.crl))
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
        context.load_cert_chain(folder.client_certificate, folder.client_key)
    except (OSError, ssl.SSLError) as error:
        raise Unreached(f"The certificates in {folder.tls} cannot be used: {_reason(error)}.") from None
    try:
        with (
            socket.create_connection((server.host, server.port), timeout=_LIMIT) as plain,
            context.wrap_socket(plain, server_hostname=server.host) as tls,
        ):
            tls.sendall(b"GET / HTTP/1.1\r\nhost: probe\r\nconnection: close\r\n\r\n")
            answered = bool(tls.recv(64))  # an alert about our own certificate comes only now
    except socket.gaierror:
        raise Unreached(f"The server's name {server.host} is not known here.") from None
    except ssl.SSLCertVerificationError as error:
        raise Unreached(f"Whoever answers at {server} is not the server: {error.verify_message}.") from None
    except ssl.SSLError as error:
        raise Unreached(f"The server at {server} refuses this silo's certificate: {_reason(error)}.") from None
    except OSError as error:
        raise Unreached(f"The server at {server} does not answer: {_reason(error)}.") from None
    if not answered:
        raise Unreached(f"The server at {server} hangs up: too many connections of this silo, or it is stopping.")


def check_end(folder: SiloFolder) -> None:
    """Tell when the silo's certificate is about to end.

    Raises
    ------
    Unreached
        If it is, or has ended.
    """
    try:
        end = x509.load_pem_x509_certificate(folder.client_certificate.read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        raise Unreached(f"{folder.client_certificate} is not a certificate.") from None
    left = (end - datetime.now(UTC)).total_seconds() / _DAY
    if left > WARN_DAYS:
        return
    when = f"ends in {left:.0f} days, on" if left > 0 else "has ended on"
    raise Unreached(
        f"This silo's certificate {when} {end.date().isoformat()}: `quire consortium renew {folder.root}` asks for the "
        "next."
    )


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return error.strerror or str(error) or type(error).__name__
