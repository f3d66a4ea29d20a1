"""Who may log in: ``dashboard/users.json`` in the folder that is watched, for its owner alone, passwords hashed.

::

    {"format": "quire-dashboard-users-1", "users": {
      "anna": {"role": "operator", "cost": 17, "salt": "<hex>", "hash": "<hex>"}}}

Hashes are scrypt's (RFC 7914) with r = 8 and p = 1: one guess costs 128 MiB and some tenths of a second.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import threading
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from quire.clients.identity import IdentityFileError, files
from quire.clients.identity.passphrase import COST, check_strength
from quire.consortium.places import locked, private_folder
from quire.dashboard.errors import DashboardError
from quire.dashboard.roles import Role

FOLDER, FILE = "dashboard", "users.json"
#: Characters of a password: hashing what is longer is work that anybody could ask for.
LONGEST = 1024

_FORMAT, _MAX_BYTES, _MOST = "quire-dashboard-users-1", 1024 * 1024, 1000
_NAME = re.compile(r"[a-z][a-z0-9._-]{0,31}")
_SALT, _HASH, _R = 16, 32, 8
# A file names its own cost: bounded, so that none takes gigabytes.
_COSTS = range(12, 21)
# One hash at a time: each takes 128 MiB.
_HASHING = threading.Lock()


@dataclass(frozen=True)
class User:
    """Somebody who may log in.

    Attributes
    ----------
    name : str
    role : Role
    cost : int
        scrypt's N is two to the power of this.
    salt, hash : bytes
    """

    name: str
    role: Role
    cost: int
    salt: bytes
    hash: bytes


def users_file(root: Path) -> Path:
    """Return where the users of a folder are."""
    return root / FOLDER / FILE


def read_users(root: Path) -> dict[str, User]:
    """Read who may log in to the dashboard of a folder; nobody where there is no file.

    Raises
    ------
    DashboardError
        If others than its owner have rights to the file, or it is not what was written.
    """
    path = users_file(root)
    if not os.path.lexists(path):
        return {}
    try:
        found = json.loads(files.read(path, _MAX_BYTES, secret=True))
        if set(found) != {"format", "users"} or found["format"] != _FORMAT:
            raise ValueError
        return {name: _user(name, told) for name, told in found["users"].items()}
    except IdentityFileError as error:
        raise DashboardError(str(error)) from error
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise DashboardError(
            f"{path} is not what was written: put its backup in its place, or remove it and add its users anew."
        ) from None


def _user(name: str, told: Mapping[str, object]) -> User:
    cost, salt, digest = told["cost"], bytes.fromhex(str(told["salt"])), bytes.fromhex(str(told["hash"]))
    if (
        set(told) != {"role", "cost", "salt", "hash"}
        or not _NAME.fullmatch(name)
        or type(cost) is not int
        or cost not in _COSTS
        or (len(salt), len(digest)) != (_SALT, _HASH)
    ):
        raise ValueError
    return User(name, Role(str(told["role"])), cost, salt, digest)


def add_user(root: Path, name: str, role: Role, password: str, cost: int = COST) -> bool:
    """Add a user, or give one that exists a new password and role, which ends their sessions.

    Parameters
    ----------
    root : pathlib.Path
        The folder that the dashboard watches.
    name : str
    role : Role
    password : str
    cost : int
        scrypt's N is two to the power of this.

    Returns
    -------
    bool
        Whether the name is new.

    Raises
    ------
    DashboardError
        If the name or the password cannot be one, or the file cannot be used.
    ConsortiumError, IdentityFileError
        If it cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise DashboardError(
            "A user's name has at most 32 lower-case letters, digits, dots, dashes and underscores, and begins with a "
            "letter."
        )
    if len(password) > LONGEST:
        raise DashboardError(f"A password has at most {LONGEST} characters.")
    try:
        check_strength(password)
    except IdentityFileError as error:
        raise DashboardError(str(error).replace("passphrase", "password")) from None
    salt = secrets.token_bytes(_SALT)
    user = User(name, role, cost, salt, hashed(password, salt, cost))
    private_folder(root / FOLDER)
    with locked(root / FOLDER / ".lock"):
        known = read_users(root)
        if name not in known and len(known) >= _MOST:
            raise DashboardError(f"There are {_MOST} users already: remove one first.")
        _write(root, {**known, name: user})
    return name not in known


def remove_user(root: Path, name: str) -> None:
    """Take a user away, which ends their sessions.

    Raises
    ------
    DashboardError
        If there is no such user, or the file cannot be used.
    """
    if name not in read_users(root):
        raise DashboardError(f"There is no user '{name[:40]}': `quire dashboard user list` shows who there is.")
    with locked(root / FOLDER / ".lock"):
        _write(root, {key: user for key, user in read_users(root).items() if key != name})


def _write(root: Path, users: Mapping[str, User]) -> None:
    told = {
        user.name: {"role": str(user.role), "cost": user.cost, "salt": user.salt.hex(), "hash": user.hash.hex()}
        for user in users.values()
    }
    path = users_file(root)
    beside = path.with_name(f".{FILE}.{secrets.token_hex(4)}")
    data = json.dumps({"format": _FORMAT, "users": told}, indent=1).encode() + b"\n"
    files.create(beside, data, files.OWNER_ONLY)
    try:
        os.replace(beside, path)
    except OSError as error:
        raise DashboardError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        beside.unlink(missing_ok=True)


def hashed(password: str, salt: bytes, cost: int) -> bytes:
    """Return the hash of a password, typed in whatever normal form of Unicode."""
    data = unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
    with _HASHING:
        return hashlib.scrypt(data, salt=salt, n=2**cost, r=_R, p=1, maxmem=2**cost * _R * 128 + 2**21, dklen=_HASH)


def check(users: Mapping[str, User], name: str, password: str) -> User | None:
    """Return the user whose password this is; None for anybody else, in the same time whether there is such a name."""
    user = users.get(name)
    cost = max((one.cost for one in users.values()), default=COST) if user is None else user.cost
    salt, expected = (b"\0" * _SALT, secrets.token_bytes(_HASH)) if user is None else (user.salt, user.hash)
    if len(password) > LONGEST:
        return None
    good = hmac.compare_digest(hashed(password, salt, cost), expected)
    return user if good else None
