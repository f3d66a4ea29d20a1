"""A consortium in folders, through the same functions as the command line, without passphrases and at a chosen time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from quire.consortium import documents
from quire.consortium.about import Server
from quire.consortium.founding import init
from quire.consortium.joining import join
from quire.consortium.layout import OperatorFolder, SiloFolder
from quire.consortium.operator import opened
from quire.consortium.silo import read_invitation, request

NOW = int(time.time())
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Parties:
    """An operator and silos below one folder."""

    root: Path
    now: int = NOW

    @property
    def operator(self) -> OperatorFolder:
        return OperatorFolder(self.root / "operator")

    def silo(self, name: str) -> SiloFolder:
        return SiloFolder(self.root / name)

    def found(self, name: str = "heart", host: str = HOST) -> Parties:
        init(self.operator.root, name, Server(host), None, now=self.now)
        return self

    def invite(self, name: str, again: bool = False) -> Path:
        with opened(self.operator.root, None, self.now) as operator:
            operator.invite(name, again, self.now)
        return self.operator.invitation(name)

    def ask(self, name: str, folder: str | None = None) -> documents.Document:
        invitation = read_invitation(self.invite(name))
        admin = invitation.identity("admin").fingerprint
        return request(self.silo(folder or name).root, invitation, admin, now=self.now)

    def admit(self, asked: documents.Document, days: int = 90) -> Path:
        with opened(self.operator.root, None, self.now) as operator:
            return operator.admit(asked, asked.identity("identity").fingerprint, days, self.now)

    def bring(self, name: str, days: int = 90) -> SiloFolder:
        """Invite, request, admit and join."""
        join(self.silo(name).root, self.admit(self.ask(name), days), now=self.now)
        return self.silo(name)

    def revoke(self, name: str, superseded: bool = False) -> None:
        with opened(self.operator.root, None, self.now) as operator:
            operator.revoke(name, superseded, self.now)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but locks."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
