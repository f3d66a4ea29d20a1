"""Which nodes a SuperLink lets in: the members' keys, and no others.

Flower's node authentication knows a list of public keys. It is held against the operator's folder when the SuperLink
starts and whenever the folder changes: who is admitted is registered, who is revoked or gone is struck off.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quire.consortium.errors import ConsortiumError
from quire.consortium.layout import OperatorFolder

if TYPE_CHECKING:
    import httpx
    from flwr.supercore.control import ControlHttpClient


class RegistryError(ConsortiumError):
    """The SuperLink cannot be told who the members are."""

    exit_code = 1


@dataclass(frozen=True)
class Connection:
    """The way to a SuperLink's Control API, on this machine.

    Attributes
    ----------
    address : str
        Host and port.
    certificate : pathlib.Path
        The SuperLink's.
    """

    address: str
    certificate: Path

    @contextlib.contextmanager
    def client(self) -> Iterator[ControlHttpClient]:
        """Open Flower's own client.

        Raises
        ------
        RegistryError
            If the SuperLink does not answer, or answers with an error.
        """
        import httpx
        from flwr.supercore.control import ControlHttpClient
        from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

        with _no_proxies():
            made = ControlHttpClient.from_server_address(
                server_address=self.address,
                insecure=False,
                root_certificates=str(self.certificate),
                interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
            )
        try:
            yield made
        except httpx.HTTPStatusError as error:
            raise RegistryError(f"The SuperLink at {self.address} refuses: {_words(error)}.") from None
        except httpx.HTTPError as error:
            raise RegistryError(f"The SuperLink at {self.address} does not answer ({type(error).__name__}).") from None
        finally:
            made.close()


@contextlib.contextmanager
def _no_proxies() -> Iterator[None]:
    """Hide the proxies that the environment names: the SuperLink is on this machine, and no proxy finds it there."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.lower().endswith("_proxy")}
    try:
        yield
    finally:
        os.environ.update(hidden)


def members_in(folder: OperatorFolder) -> dict[str, Path]:
    """Return the node keys of the members whose present certificate is not revoked, by name.

    Raises
    ------
    RegistryError
        If a certificate, or the list of revoked ones, cannot be read: in doubt nobody new is let in.
    """
    from cryptography import x509

    try:
        revoked = {one.serial_number for one in x509.load_pem_x509_crl(folder.crl.read_bytes())}
        found = {}
        for name in folder.member_names():
            certificate, key = folder.client_certificate(name), folder.node_key(name)
            if not (certificate.is_file() and key.is_file()):
                continue
            if x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number not in revoked:
                found[name] = key
    except (OSError, ValueError) as error:
        raise RegistryError(f"The members in {folder.members} cannot be read: {error}.") from None
    return found


def node_keys(folder: OperatorFolder) -> dict[str, bytes]:
    """Return the node keys of the members by name, in the bytes that Flower keeps and sends.

    Raises
    ------
    RegistryError
        If the folder cannot be read.
    """
    return {name: _bytes_of(path) for name, path in members_in(folder).items()}


def synchronise(folder: OperatorFolder, connection: Connection) -> list[str]:
    """Register the keys of members, and strike off all others.

    Returns
    -------
    list of str
        What was changed, in words.

    Raises
    ------
    RegistryError
        If the SuperLink refuses, or the folder cannot be read.
    """
    import httpx
    from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, UnregisterNodeRequest

    wanted = {key: name for name, key in node_keys(folder).items()}
    done = []
    with connection.client() as client:
        there = {
            node.public_key: node for node in client.ListNodes(ListNodesRequest()).nodes_info if _counts(node.status)
        }
        for key, node in there.items():
            if key not in wanted:
                client.UnregisterNode(UnregisterNodeRequest(node_id=node.node_id))
                done.append(f"{node.name or node.node_id} is struck off")
        for key, name in wanted.items():
            if key not in there:
                try:
                    client.RegisterNode(RegisterNodeRequest(public_key=key, name=name))
                    done.append(f"{name} is registered")
                except httpx.HTTPStatusError as error:  # the others are let in all the same
                    done.append(
                        f"{name} cannot be registered (a key that was struck off is not taken again): {_words(error)}"
                    )
    return done


def _words(error: httpx.HTTPStatusError) -> str:
    from flwr.supercore.error import FlowerError

    told = FlowerError.from_json(error.response.text)
    words = f"{told.message} {told.public_details or ''}" if told else f"status {error.response.status_code}"
    return " ".join(words.split()).rstrip(".")


def _counts(status: str) -> bool:
    return status != "unregistered"


def _bytes_of(path: Path) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    try:
        key = load_ssh_public_key(path.read_bytes())
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise ValueError("it is no key over an elliptic curve")
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise RegistryError(f"{path} is not a node's public key: {error}.") from None
    return public_key_to_bytes(key)
