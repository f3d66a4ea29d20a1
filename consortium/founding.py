"""A new consortium: the operator's folder, made whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from quire.clients.identity import files, load_identity, new_identity, passphrase
from quire.consortium.about import OperatorAbout, Server, encode_operator
from quire.consortium.authority import AUTHORITY_DAYS, SERVER_DAYS, Authority
from quire.consortium.certificates import new_key
from quire.consortium.documents import text_of
from quire.consortium.errors import ConsortiumError
from quire.consortium.index import SERVER, State, append
from quire.consortium.layout import OperatorFolder, check_name
from quire.consortium.places import private_folder, sync, write_key
from quire.consortium.settling import Settler
from quire.consortium.vault import write_authority


def init(
    root: Path,
    name: str,
    server: Server,
    words: str | None,
    post_quantum: bool = False,
    days: int = AUTHORITY_DAYS,
    server_days: int = SERVER_DAYS,
    now: int | None = None,
    cost: int = passphrase.COST,
) -> OperatorAbout:
    """Make the operator's folder: whole, or not at all.

    Parameters
    ----------
    root : pathlib.Path
        A folder that does not exist yet, or is empty.
    name : str
        The consortium's.
    server : Server
        Where silos will reach the server.
    words : str or None
        Passphrase for the keys of the authority and of the admin; None for none.
    post_quantum : bool
        Whether the admin has an ML-DSA-65 key too.
    days, server_days : int
        How long the certificates of the authority and of the server are good for.
    now : int or None
        Seconds since 1970 UTC; None for the clock's.
    cost : int
        scrypt's N is two to the power of this.

    Raises
    ------
    ConsortiumError
        If the folder holds something, or cannot be made.
    """
    check_name(name, "The consortium's name")
    now = int(time.time()) if now is None else now
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ConsortiumError(f"{root} exists already and is not empty: name a new folder.")
    beside = root.with_name(f".{root.name}.part-{secrets.token_hex(4)}")
    private_folder(beside)
    try:
        about = _fill(OperatorFolder(beside), name, server, words, post_quantum, days, server_days, now, cost)
        os.replace(beside, root)
        sync(root.parent)
    except OSError as error:
        raise ConsortiumError(f"The folder {root} cannot be made: {error.strerror}.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return about


def _fill(
    folder: OperatorFolder,
    name: str,
    server: Server,
    words: str | None,
    post_quantum: bool,
    days: int,
    server_days: int,
    now: int,
    cost: int,
) -> OperatorAbout:
    for place in (folder.ca, folder.server, folder.roster, folder.members, folder.invitations, folder.run):
        private_folder(place)
    public = new_identity(folder.admin_key, "admin", post_quantum, words, cost)
    admin = load_identity(folder.admin_key, words)
    authority = Authority.new(name, now, days)
    write_authority(folder, authority, words, cost)
    key = new_key()
    write_key(folder.server_key, key)
    certificate = authority.for_server(server, key.public_key(), now, server_days)
    event = {"event": SERVER, "at": now, "certificate": text_of(certificate.public_bytes(Encoding.DER))}
    files.create(folder.issued, b"", files.EVERYBODY)
    append(folder.issued, event)
    about = OperatorAbout(name, server, now, public.fingerprint)
    files.create(folder.about, encode_operator(about), files.EVERYBODY)
    Settler(folder, about, authority, admin, State().after(event)).settle(now)
    return about
