"""The operator's list of approved bundles: a file of the operator's own, beside ``silo.yaml``.

For ``silo.yaml`` it is ``silo.approved.json``, written by ``quire app approve`` and read for every message, so that
what is revoked no longer runs from the next message on. A list that is missing, damaged, or open to others' writing
approves nothing.

::

    {"version": 1, "approved": [
      {"hashes": ["<content>", "<fab>"], "note": "release 1.2, reviewed by two", "by": "anna", "at": "2026-01-31T..."}]}
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from quire.clients.gate.bundle import Bundle
from quire.errors import QuireError

_VERSION = 1
_MAX_BYTES = 1024 * 1024
_MAX_NOTE = 500
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


class ApprovalError(QuireError):
    """The list of approved bundles cannot be used, or not be changed as asked."""

    exit_code = 2


class Approval(NamedTuple):
    """One entry of the list.

    Attributes
    ----------
    hashes : tuple of str
        By which a bundle is known: ``content``, ``fab``, or both (hex).
    note : str
        The operator's own words.
    by : str
        The login name of who approved.
    at : str
        When, as ISO 8601 in UTC.
    """

    hashes: tuple[str, ...]
    note: str = ""
    by: str = ""
    at: str = ""


def approvals_file(silo: Path) -> Path:
    """Return where the list of a silo is: ``silo.approved.json`` beside ``silo.yaml``."""
    return silo.with_name(f"{silo.stem}.approved.json")


def is_hash(text: str) -> bool:
    """Say whether a text is a SHA-256 in lower-case hex."""
    return _HASH.fullmatch(text) is not None


def private_to_us(path: Path, status: os.stat_result | None = None) -> None:
    """Refuse a file that somebody else owns or may write.

    Raises
    ------
    ApprovalError
        If it is not there, not a plain file, another's, or writable by the group or by others.
    """
    try:
        status = status or path.stat()
    except OSError as error:
        raise ApprovalError(f"{path} cannot be read: {error.strerror}.") from error
    if not stat.S_ISREG(status.st_mode):
        raise ApprovalError(f"{path} is not a file.")
    if status.st_uid not in (os.geteuid(), 0):
        raise ApprovalError(f"{path} belongs to another user, who could approve code: make it your own.")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ApprovalError(f"{path} may be written by others, who could approve code: chmod go-w {path}.")


def read_approvals(path: Path) -> tuple[Approval, ...]:
    """Read the list; a file that is not there is an empty one.

    Raises
    ------
    ApprovalError
        If it cannot be read, is not such a list, or may be written by others.
    """
    try:
        with path.open("rb") as file:
            private_to_us(path, os.fstat(file.fileno()))
            raw = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise ApprovalError(f"{path} cannot be read: {error.strerror}.") from error
    if len(raw) > _MAX_BYTES:
        raise ApprovalError(f"{path} is larger than {_MAX_BYTES} bytes, more than such a list needs.")
    try:
        found = json.loads(raw)
        if not isinstance(found, dict) or found.keys() != {"version", "approved"} or found["version"] != _VERSION:
            raise ValueError("another form")
        return tuple(_approval(entry) for entry in found["approved"])
    except (ValueError, TypeError, RecursionError) as error:
        raise ApprovalError(
            f"{path} is not a list of approved bundles as `quire app approve` writes it: move it away, approve again."
        ) from error


def _approval(entry: Any) -> Approval:
    if not isinstance(entry, dict) or entry.keys() != {"hashes", "note", "by", "at"}:
        raise ValueError("another form")
    words = {key: entry[key] for key in ("note", "by", "at")}
    if not isinstance(entry["hashes"], list) or not entry["hashes"]:
        raise ValueError("no hashes")
    if not all(isinstance(item, str) and is_hash(item) for item in entry["hashes"]):
        raise ValueError("no hash")
    if not all(isinstance(item, str) for item in words.values()):
        raise ValueError("no words")
    return Approval(tuple(entry["hashes"]), **words)


def login() -> str:
    """Return the login name of who runs this; empty for an account without one."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def approved_hash(bundle: Bundle, approvals: tuple[Approval, ...]) -> str | None:
    """Return the hash by which a bundle is approved, or None.

    Raises
    ------
    BundleError
        If it cannot be read. The archive's own hash is tried first: if it is on the list, nothing is unpacked.
    """
    known = {item for approval in approvals for item in approval.hashes}
    if bundle.fab in known:
        return bundle.fab
    return bundle.content if known and bundle.content in known else None


def require_approved(bundle: Bundle, path: Path, unknown: str) -> str:
    """Return the hash by which a bundle is approved in a list; a bundle or a list that cannot be read approves nothing.

    Parameters
    ----------
    bundle : Bundle
    path : pathlib.Path
        Of the list.
    unknown : str
        What to say, after the bundle's hashes, if it is not on the list.

    Raises
    ------
    BundleError, ApprovalError
        If it is not approved, or in doubt.
    """
    found = approved_hash(bundle, read_approvals(path))
    if found is None:
        raise ApprovalError(f"content {bundle.content} (fab {bundle.fab}) {unknown}")
    return found


def approve(path: Path, approval: Approval) -> bool:
    """Add an entry, unless all its hashes are approved already.

    Returns
    -------
    bool
        Whether the list has changed.

    Raises
    ------
    ApprovalError
        If the list cannot be read or written, or a hash is not one.
    """
    if not approval.hashes or not all(is_hash(item) for item in approval.hashes):
        raise ApprovalError("A hash is 64 hexadecimal digits in lower case, as `quire app hash` shows it.")
    if len(approval.note) > _MAX_NOTE or not approval.note.isprintable():
        raise ApprovalError(f"A note is one line of at most {_MAX_NOTE} characters.")

    def add(entries: tuple[Approval, ...]) -> tuple[Approval, ...]:
        known = {item for entry in entries for item in entry.hashes}
        return entries if known.issuperset(approval.hashes) else (*entries, approval)

    return _change(path, add)


def revoke(path: Path, hashes: tuple[str, ...]) -> bool:
    """Remove every entry that holds one of some hashes.

    Returns
    -------
    bool
        Whether there was one.

    Raises
    ------
    ApprovalError
        If the list cannot be read or written.
    """
    return _change(path, lambda entries: tuple(entry for entry in entries if not set(entry.hashes) & set(hashes)))


def _change(path: Path, how: Callable[[tuple[Approval, ...]], tuple[Approval, ...]]) -> bool:
    try:
        with _alone(path.parent):
            before = read_approvals(path)
            after = how(before)
            if after == before:
                return False
            content = {"version": _VERSION, "approved": [entry._asdict() for entry in after]}
            _replace(path, (json.dumps(content, indent=1) + "\n").encode())
            return True
    except OSError as error:
        raise ApprovalError(f"{path} cannot be written: {error.strerror}.") from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time change the lists of a folder."""
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(path: Path, content: bytes) -> None:
    import tempfile  # not above: who only reads the list starts sooner without

    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # 0600
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
