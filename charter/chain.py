"""All versions of a charter together: in order, signed, and which of them is in force."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from quire.charter.document import Charter
from quire.charter.errors import CharterError, CharterForked, CharterRefused
from quire.charter.signed import MAX_BYTES, SignedCharter, check_own, check_succession
from quire.privacy.identity.roster import is_hash

#: Most files in a folder of versions.
MAX_FILES = 1000


@dataclass(frozen=True)
class Chain:
    """Every version of a charter, each checked against the one before; made by :func:`verified`.

    Attributes
    ----------
    versions : tuple of SignedCharter
        The first one first.
    """

    versions: tuple[SignedCharter, ...]

    @property
    def first(self) -> Charter:
        """Version 1, whose hash a silo pins: the others follow from it."""
        return self.versions[0].charter

    @property
    def last(self) -> Charter:
        """The newest version, in force or not yet."""
        return self.versions[-1].charter

    def in_force(self, now: int) -> Charter:
        """Return the version that is in force: the newest that has taken force.

        This goes by the clock that it is given alone: with one that was set back, a version that was replaced, or has
        expired, is in force again. A silo remembers which it was under; that one has expired it does not.

        Parameters
        ----------
        now : int
            Seconds since 1970 UTC.

        Raises
        ------
        CharterRefused
            If none has taken force yet. Whether it is over, :func:`expired` tells.
        """
        begun = [signed.charter for signed in self.versions if signed.charter.not_before <= now]
        if not begun:
            raise CharterRefused(f"The charter {self.first.charter_id} is not in force yet.")
        return begun[-1]

    def holds(self, version: int, digest: str) -> bool:
        """Tell whether a version of this hash is in it."""
        return version <= len(self.versions) and self.versions[version - 1].charter.hash == digest


def expired(charter: Charter, now: int) -> bool:
    """Tell whether a charter is over."""
    return now > charter.not_after


def verified(found: Iterable[SignedCharter], root: str | None = None) -> Chain:
    """Check all versions of a charter, in whatever order they come.

    Parameters
    ----------
    found : iterable of SignedCharter
        Copies of one version that were signed by different members are taken together.
    root : str or None
        The hash that version 1 must have. Without one this says only that the versions agree with each other:
        anybody can make such.

    Returns
    -------
    Chain

    Raises
    ------
    CharterForked
        If two of them claim the same place.
    CharterRefused
        If a version is missing, is not signed by enough of the right members, or is backdated.
    """
    versions: dict[int, SignedCharter] = {}
    for signed in found:
        number, there = signed.charter.version, versions.get(signed.charter.version)
        if there is not None and there.charter != signed.charter:
            raise CharterForked(_forked(there, signed))
        versions[number] = signed if there is None else there.with_signatures(signed.signatures)
    if not versions:
        raise CharterError("There is no charter.")
    missing = sorted(set(range(1, max(versions) + 1)) - set(versions)) if max(versions) <= MAX_FILES else [1]
    if missing:
        raise CharterRefused(f"Version {missing[0]} of the charter is missing: a later one follows from it.")
    chain = tuple(versions[number] for number in sorted(versions))
    if root is not None and not is_hash(root):
        raise CharterError("What is pinned is the hash of version 1: 64 hexadecimal digits in lower case.")
    if root is not None and chain[0].charter.hash != root:
        raise CharterRefused(
            f"This is not the pinned charter: version 1 has the hash {chain[0].charter.hash}, and the pin is {root}."
        )
    check_own(chain[0])
    for old, new in pairwise(chain):
        check_succession(old.charter, new)
    return Chain(chain)


def read_charter(path: Path) -> SignedCharter:
    """Read one signed charter; no signature is checked.

    Raises
    ------
    CharterError
        If it cannot be read, or is none.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        return SignedCharter.decode(data)
    except OSError as error:
        raise CharterError(f"{path} cannot be read: {error.strerror}.") from error
    except CharterError as error:
        raise CharterError(f"{path}: {error}") from error


def charter_files(path: Path) -> tuple[Path, ...]:
    """Return the files of a charter's versions: those named ``*.json`` in a folder, or the one file that is named.

    Raises
    ------
    CharterError
        If there is none, or there are too many.
    """
    if not path.is_dir():
        return (path,)
    try:
        files = tuple(sorted(file for file in path.iterdir() if file.suffix == ".json" and file.is_file()))
    except OSError as error:
        raise CharterError(f"{path} cannot be read: {error.strerror}.") from error
    if not 1 <= len(files) <= MAX_FILES:
        raise CharterError(f"The folder {path} must hold 1 to {MAX_FILES} versions of a charter, *.json.")
    return files


def read_chain(path: Path, root: str | None = None) -> Chain:
    """Read and check all versions of a charter; see :func:`charter_files` and :func:`verified`.

    Raises
    ------
    CharterError
        If a file cannot be read, or the versions do not hold.
    """
    return verified((read_charter(file) for file in charter_files(path)), root)


def _forked(one: SignedCharter, other: SignedCharter) -> str:
    both = {signature.fingerprint for signature in one.signatures} & {
        signature.fingerprint for signature in other.signatures
    }
    names = sorted(member.name for print_ in both if (member := one.charter.signer(print_)) is not None)
    blame = f"; {', '.join(names)} signed both" if names else ""
    return (
        f"There are two different versions {one.charter.version} of the charter, {one.charter.hash[:16]} and "
        f"{other.charter.hash[:16]}{blame}: find out which the members meant."
    )
