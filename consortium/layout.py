"""Where every file is: the operator's folder and a silo's folder. The one place that knows their names.

::

    operator/                            silo/
      consortium.json                      consortium.json
      ca/ca.pem ca.key                     silo.yaml
      charter/charter-1.json ...           charter/charter-1.json ...
         crl.pem issued.jsonl              identity/silo.key silo.key.pub
      server/server.pem server.key         tls/client.key client.pem ca.pem crl.pem
      roster/admin.key admin.key.pub       node/node.key node.pub
             roster-1.json ...             roster/roster-1.json ...
      members/NAME/request.json            request.json
                   client.pem node.pub     run/
                   admission.json
      invitations/NAME.json
      former/NAME-TIME/
      bulletin.json
      run/

``run/`` is the launchers': state, logs, secrets and the rendered configuration of the proxy.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from quire.consortium.errors import ConsortiumError

#: What a silo can be called: what `silo.yaml` admits, less a dash at the end, which no host name may have.
_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,30}[a-z0-9])?")
NAME_WORDS = "at most 32 lower-case letters, digits and dashes, begin with a letter and not end with a dash"
_VERSION = re.compile(r"roster-([1-9][0-9]{0,8})\.json")


def check_name(name: str, what: str) -> str:
    """Return a name that may become part of a path, of a certificate and of a roster.

    Raises
    ------
    ConsortiumError
        If it may not.
    """
    if not _NAME.fullmatch(name):
        raise ConsortiumError(f"{what} must have {NAME_WORDS}.")
    return name


@dataclass(frozen=True)
class Folder:
    """What the operator's folder and a silo's have alike.

    Attributes
    ----------
    root : pathlib.Path
        The folder itself, mode 0700.
    """

    root: Path

    @property
    def lock(self) -> Path:
        """Held by the one command that changes the folder."""
        return self.root / ".lock"

    @property
    def roster(self) -> Path:
        """The folder of the roster's versions: the operator has the admin's key there, and a silo pins one."""
        return self.root / "roster"

    def roster_version(self, version: int) -> Path:
        """Return where a version of the roster is."""
        return self.roster / f"roster-{version}.json"

    def rosters(self) -> tuple[Path, ...]:
        """Return every version of the roster that is here, oldest first."""
        found = self.roster.iterdir() if self.roster.is_dir() else ()
        versions = [(int(match.group(1)), path) for path in found if (match := _VERSION.fullmatch(path.name))]
        return tuple(path for _, path in sorted(versions))

    @property
    def run(self) -> Path:
        """The launchers' folder."""
        return self.root / "run"


@dataclass(frozen=True)
class OperatorFolder(Folder):
    """The folder of a consortium's operator."""

    @property
    def about(self) -> Path:
        """Name, server, port, when it was made: canonical JSON."""
        return self.root / "consortium.json"

    @property
    def charter(self) -> Path:
        """The folder of the charter's versions, where the consortium has one."""
        return self.root / "charter"

    @property
    def ca(self) -> Path:
        """The folder of the certificate authority."""
        return self.root / "ca"

    @property
    def ca_certificate(self) -> Path:
        """The authority's certificate, PEM."""
        return self.ca / "ca.pem"

    @property
    def ca_key(self) -> Path:
        """The authority's key, encrypted with the passphrase unless there is none; mode 0600."""
        return self.ca / "ca.key"

    @property
    def crl(self) -> Path:
        """The certificates that are refused, signed, PEM."""
        return self.ca / "crl.pem"

    @property
    def issued(self) -> Path:
        """The index of every certificate: JSON lines, only ever appended to."""
        return self.ca / "issued.jsonl"

    @property
    def server(self) -> Path:
        """The folder of what the proxy shows to silos."""
        return self.root / "server"

    @property
    def approvals(self) -> Path:
        """The bundles that the server's side runs, as ``quire submit`` has shipped them; mode 0600."""
        return self.root / "server.approved.json"

    @property
    def server_certificate(self) -> Path:
        """The server's certificate and then the authority's, PEM."""
        return self.server / "server.pem"

    @property
    def server_key(self) -> Path:
        """The server's key, PEM (PKCS#8), unencrypted because the proxy reads it; mode 0600."""
        return self.server / "server.key"

    @property
    def admin_key(self) -> Path:
        """The admin's secret keys, which sign the roster and every document of the operator's; mode 0600."""
        return self.roster / "admin.key"

    @property
    def next_server_key(self) -> Path:
        """A fresh server key whose certificate is not in the index yet; mode 0600."""
        return self.server / "server.key.next"

    @property
    def members(self) -> Path:
        """The folder of the members' folders."""
        return self.root / "members"

    def member_names(self) -> tuple[str, ...]:
        """Return the names of the members' folders that there are; what else lies among them is nobody's.

        Raises
        ------
        OSError
            If the folder cannot be read.
        """
        found = sorted(self.members.iterdir()) if self.members.is_dir() else []
        return tuple(path.name for path in found if _NAME.fullmatch(path.name) and path.is_dir())

    def member(self, name: str) -> Path:
        """Return the folder of one member."""
        return self.members / check_name(name, "A member's name")

    def request(self, name: str) -> Path:
        """Return where the request is that a member was admitted by."""
        return self.member(name) / "request.json"

    def client_certificate(self, name: str) -> Path:
        """Return where a member's present certificate is, PEM."""
        return self.member(name) / "client.pem"

    def node_key(self, name: str) -> Path:
        """Return where a member's public key for Flower's node authentication is, in OpenSSH's form."""
        return self.member(name) / "node.pub"

    def admission(self, name: str) -> Path:
        """Return where the file is that goes back to a member."""
        return self.member(name) / "admission.json"

    @property
    def former(self) -> Path:
        """The folder of what is kept of members who left: nothing in it counts any more."""
        return self.root / "former"

    @property
    def invitations(self) -> Path:
        """The folder of invitations that were not used yet."""
        return self.root / "invitations"

    def invitation(self, name: str) -> Path:
        """Return where the invitation of a silo is."""
        return self.invitations / f"{check_name(name, 'The name of a silo')}.json"

    @property
    def bulletin(self) -> Path:
        """What every member is told when the roster or the list of revoked certificates changes."""
        return self.root / "bulletin.json"


@dataclass(frozen=True)
class SiloFolder(Folder):
    """The folder of one silo."""

    @property
    def about(self) -> Path:
        """Consortium, server, port, the member's name, the admin's keys: canonical JSON."""
        return self.root / "consortium.json"

    @property
    def silo_file(self) -> Path:
        """The silo's own file."""
        return self.root / "silo.yaml"

    @property
    def readme(self) -> Path:
        """What to do next, in three commands."""
        return self.root / "README.md"

    @property
    def identity(self) -> Path:
        """The folder of the silo's own keys."""
        return self.root / "identity"

    @property
    def identity_key(self) -> Path:
        """The silo's secret keys; mode 0600."""
        return self.identity / "silo.key"

    @property
    def tls(self) -> Path:
        """The folder of what the proxy at the silo shows to the server."""
        return self.root / "tls"

    @property
    def client_key(self) -> Path:
        """The silo's TLS key, PEM (PKCS#8), unencrypted because the proxy reads it; mode 0600."""
        return self.tls / "client.key"

    @property
    def next_client_key(self) -> Path:
        """A fresh TLS key that waits for its certificate; mode 0600."""
        return self.tls / "client.key.next"

    @property
    def client_certificate(self) -> Path:
        """The silo's certificate, PEM."""
        return self.tls / "client.pem"

    @property
    def ca_certificate(self) -> Path:
        """The authority's certificate, PEM."""
        return self.tls / "ca.pem"

    @property
    def crl(self) -> Path:
        """The certificates that are refused, PEM."""
        return self.tls / "crl.pem"

    @property
    def node(self) -> Path:
        """The folder of the key for Flower's node authentication."""
        return self.root / "node"

    @property
    def node_key(self) -> Path:
        """The node's key: ECDSA P-384 in OpenSSH's form, unencrypted because Flower reads it; mode 0600."""
        return self.node / "node.key"

    @property
    def node_public_key(self) -> Path:
        """The node's public key in OpenSSH's form, as the operator registers it at the SuperLink."""
        return self.node / "node.pub"

    @property
    def request(self) -> Path:
        """What was last sent to the operator: the request, or a request for renewal."""
        return self.root / "request.json"
