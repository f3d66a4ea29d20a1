"""``consortium.json``: which consortium a folder belongs to, and where its server is."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any

from quire.clients.identity import files
from quire.clients.identity.errors import sentences
from quire.consortium.errors import ConsortiumError
from quire.consortium.layout import OperatorFolder, SiloFolder, check_name
from quire.privacy.identity.canonical import dumps, loads
from quire.privacy.identity.errors import BadEncoding
from quire.privacy.identity.keys import PublicIdentity
from quire.privacy.identity.roster import fields, hexadecimal

#: Of the proxy that silos reach, where the operator names none.
PORT = 8443
OPERATOR_FORMAT, SILO_FORMAT = "quire-consortium-1", "quire-consortium-silo-1"

_MAX_BYTES = 64 * 1024
_HOST = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_HEX_SIZE = 64


@dataclass(frozen=True)
class Server:
    """Where silos reach the server: the proxy's public face, never Flower's own ports.

    Attributes
    ----------
    host : str
        A host name in lower case, or an IP address; an IPv6 address stands without brackets.
    port : int
        From 1 to 65535.

    Raises
    ------
    ConsortiumError
        If it is neither.
    """

    host: str
    port: int = PORT

    def __post_init__(self) -> None:
        if type(self.port) is not int or not 0 < self.port < 2**16:
            raise ConsortiumError("The server's port must be from 1 to 65535.")
        if self.address is None and (self.host.replace(".", "").isdecimal() or not _HOST.fullmatch(self.host)):
            raise ConsortiumError("The server must be a host name in lower case or an IP address, as in HOST:PORT.")

    @property
    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The IP address, if it is one and not a name."""
        try:
            found = ipaddress.ip_address(self.host)
        except ValueError:
            return None
        return found if found.compressed == self.host else None

    @classmethod
    def parse(cls, text: str) -> Server:
        """Read ``HOST``, ``HOST:PORT``, ``IPV6`` or ``[IPV6]:PORT``.

        Raises
        ------
        ConsortiumError
            If it is none of them.
        """
        found = re.fullmatch(r"\[([^\]]*)\](?::([0-9]{1,5}))?", text) or re.fullmatch(r"([^:]*):([0-9]{1,5})", text)
        host, port = found.groups() if found else (text, None)
        try:
            host = ipaddress.ip_address(host).compressed
        except ValueError:
            host = host.lower()
        return cls(host, PORT if port is None else int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class OperatorAbout:
    """What the operator's folder says of itself.

    Attributes
    ----------
    name : str
        The consortium's.
    server : Server
        Where silos reach it.
    created : int
        Seconds since 1970 UTC.
    admin : str
        Fingerprint of the key that signs rosters, invitations and admissions: what is read out to silos.
    """

    name: str
    server: Server
    created: int
    admin: str


@dataclass(frozen=True)
class SiloAbout:
    """What a silo's folder says of itself.

    Attributes
    ----------
    name : str
        The consortium's.
    member : str
        The silo's.
    server : Server
        Where it reaches the server.
    admin : PublicIdentity
        Whose signature the silo accepts on rosters and admissions; compared by people when it was invited.
    joined : int or None
        Seconds since 1970 UTC; None while it waits to be admitted.
    """

    name: str
    member: str
    server: Server
    admin: PublicIdentity
    joined: int | None


def encode_operator(about: OperatorAbout) -> bytes:
    """Return the contents of the operator's ``consortium.json``."""
    return dumps(
        {"format": OPERATOR_FORMAT, "name": about.name, "created": about.created, "admin": about.admin}
        | _server(about.server)
    )


def encode_silo(about: SiloAbout) -> bytes:
    """Return the contents of a silo's ``consortium.json``."""
    found = {"format": SILO_FORMAT, "name": about.name, "member": about.member, "joined": about.joined}
    return dumps(found | _server(about.server) | {"admin": about.admin.encode().hex()})


def read_operator_about(folder: OperatorFolder) -> OperatorAbout:
    """Read the operator's ``consortium.json``.

    Raises
    ------
    ConsortiumError
        If this is no operator's folder.
    IdentityFileError
        If the file cannot be read, or was changed by hand.
    """
    found = _read(folder, OPERATOR_FORMAT, "an operator's folder", "quire consortium init")
    with sentences(folder.about):
        types: dict[str, type | None] = {"format": str, "name": str, "created": int, "admin": str}
        fields(found, "consortium.json", types | {"server": str, "port": int})
        if len(hexadecimal(found["admin"], "'admin'")) * 2 != _HEX_SIZE or found["created"] < 0:
            raise BadEncoding("'admin' or 'created' is not what it can be.")
    name = check_name(found["name"], f"The consortium's name in {folder.about}")
    return OperatorAbout(name, Server(found["server"], found["port"]), found["created"], found["admin"])


def read_silo_about(folder: SiloFolder) -> SiloAbout:
    """Read a silo's ``consortium.json``.

    Raises
    ------
    ConsortiumError
        If this is no silo's folder.
    IdentityFileError
        If the file cannot be read, or was changed by hand.
    """
    found = _read(folder, SILO_FORMAT, "a silo's folder", "quire consortium request")
    with sentences(folder.about):
        types: dict[str, type | None] = {"format": str, "name": str, "member": str, "joined": None, "admin": str}
        fields(found, "consortium.json", types | {"server": str, "port": int})
        if found["joined"] is not None and (type(found["joined"]) is not int or found["joined"] < 0):
            raise BadEncoding("'joined' must be a time or null.")
        admin = PublicIdentity.decode(hexadecimal(found["admin"], "'admin'"))
    name = check_name(found["name"], f"The consortium's name in {folder.about}")
    member = check_name(found["member"], f"The silo's name in {folder.about}")
    return SiloAbout(name, member, Server(found["server"], found["port"]), admin, found["joined"])


def is_operator(root: OperatorFolder) -> bool:
    """Whether a folder is an operator's; a silo's has no certificate authority."""
    return root.ca.is_dir()


def _server(server: Server) -> dict[str, Any]:
    return {"server": server.host, "port": server.port}


def _read(folder: OperatorFolder | SiloFolder, form: str, what: str, maker: str) -> dict[str, Any]:
    if not folder.about.exists():
        raise ConsortiumError(f"{folder.root} is not {what}: `{maker}` makes one.")
    data = files.read(folder.about, _MAX_BYTES)
    with sentences(folder.about):
        found = loads(data, _MAX_BYTES)
        if not isinstance(found, dict) or found.get("format") != form:
            raise ConsortiumError(f"{folder.root} is not {what}, or was made by another version of Quire.")
    return found
