"""What an operator lays on the desk of an enclave: its silo's file, roster, charter, schema; taken in once, and sealed.

They cannot be in the list of files: a charter that names the measurement would change the measurement. So they come in
through standard input and lie in the sealed store. From outside they are one JSON object, names to contents in base64.
Nothing here is secret, and whoever runs the machine chooses it, as with any silo; what others can rely on is that an
enclave answers no challenge for another charter than the one that the silo's file on the desk pins.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from collections.abc import Iterable
from pathlib import Path

from quire.charter.errors import CharterError
from quire.charter.signed import SignedCharter
from quire.clients.data.silo_file import read_operator_of
from quire.clients.identity import PrivateIdentity, PublicIdentity, load_identity, new_identity
from quire.clients.store.errors import StoreError
from quire.clients.store.files import replace
from quire.enclave.errors import EnclaveError
from quire.text import visible

#: Within the sealed store.
FOLDER = "desk"
SILO_FILE = "silo.yaml"
MAX_FILES, MAX_BYTES = 512, 64 * 1024 * 1024
_NAME = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}/)?[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")


def packed(paths: Iterable[Path]) -> bytes:
    """Return files as an enclave takes them in; a folder with the files in it, under its name.

    Raises
    ------
    EnclaveError
        If one cannot be read, is nested deeper, or has a name that is not a plain one.
    """
    body: dict[str, str] = {}
    try:
        for path in paths:
            folder = path.is_dir()
            for one in sorted(path.iterdir()) if folder else [path]:
                name = f"{path.name}/{one.name}" if folder else one.name
                if name in body:
                    raise EnclaveError(f"Two files would lie on the desk as '{visible(name, 120)}': pack one of them.")
                if one.exists() and not one.is_file():  # a pipe would keep us until somebody writes into it
                    raise EnclaveError(f"'{visible(str(one), 200)}' is no file.")
                body[name] = base64.b64encode(one.read_bytes()).decode()
    except OSError as error:
        raise EnclaveError(f"'{visible(str(error.filename), 200)}' cannot be read: {error.strerror}.") from error
    data = (json.dumps(body, indent=0) + "\n").encode()
    unpacked(data)
    return data


def unpacked(data: bytes) -> dict[str, bytes]:
    """Read what :func:`packed` returned.

    Raises
    ------
    EnclaveError
        If it is anything else.
    """
    if len(data) > MAX_BYTES:
        raise EnclaveError(f"What is laid on the desk has at most {MAX_BYTES} bytes.")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict) or not 1 <= len(body) <= MAX_FILES:
        raise EnclaveError(
            f"What is laid on the desk is JSON as `quire enclave pack` writes it, of 1 to {MAX_FILES} files."
        )
    if strange := [name for name in body if not _NAME.fullmatch(name)]:
        raise EnclaveError(f"'{visible(strange[0], 120)}' cannot lie on the desk: a plain name, in one folder at most.")
    if both := sorted({name.split("/")[0] for name in body if "/" in name} & set(body)):
        raise EnclaveError(f"'{both[0]}' cannot lie on the desk as a file and as a folder.")
    if SILO_FILE not in body:
        raise EnclaveError(f"There is no {SILO_FILE} among what is laid on the desk.")
    try:
        return {name: base64.b64decode(text, validate=True) for name, text in body.items()}
    except (binascii.Error, TypeError, ValueError):
        raise EnclaveError("A file laid on the desk is not in base64.") from None


def install(data: bytes, store: Path) -> list[str]:
    """Take files in, each whole or not at all; one that lies there already under its name is replaced.

    Returns
    -------
    list of str
        Their names.

    Raises
    ------
    EnclaveError
        If they are none, or cannot be written.
    """
    found = unpacked(data)
    try:
        for name, content in sorted(found.items(), key=lambda item: item[0] == SILO_FILE):  # that one last
            place = store / FOLDER / name
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace(place, content)
    except (OSError, StoreError) as error:
        raise EnclaveError(f"{store / FOLDER} cannot be written: {str(error).rstrip('.')}.") from error
    return sorted(found)


def own_key(keys: Path) -> PublicIdentity:
    """Return the public keys of this enclave, made now if there are none."""
    place = keys / "identity.key"
    return load_identity(place).public if place.exists() else new_identity(place, "silo")


def sign_charter(data: bytes, keys: Path, now: int | None = None) -> bytes:
    """Return a charter with this silo's signature: its key never leaves the enclave.

    Raises
    ------
    EnclaveError
        If it is no charter, or this silo cannot sign it.
    """
    own_key(keys)
    identity: PrivateIdentity = load_identity(keys / "identity.key")
    try:
        return SignedCharter.decode(data).sign(identity, int(time.time()) if now is None else now).encode()
    except CharterError as error:
        raise EnclaveError(str(error)) from error


def hold_to_pin(policy: bytes, store: Path) -> None:
    """Refuse a challenge for another charter than the one that the silo's file on the desk pins.

    Raises
    ------
    EnclaveError
        If it is for another. Without a silo's file, or one that pins none, any will do.
    DataError
        If the file is not as it should be.
    """
    place = store / FOLDER / SILO_FILE
    if not place.exists():
        return
    pin = read_operator_of(place).charter
    if pin is not None and bytes.fromhex(pin.sha256) != policy:
        raise EnclaveError(
            f"The challenge is for {policy.hex()[:16]}, and this silo's file pins the charter {pin.sha256[:16]}."
        )
