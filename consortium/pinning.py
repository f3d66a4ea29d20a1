"""The roster that a silo takes part under: which may follow which, and the one line of ``silo.yaml`` that pins it.

Every version has a file of its own, and the line in `silo.yaml` names file and hash together: it changes at once, and
there is no moment at which the one is new and the other old.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from quire.clients.data.silo_file import name_in, read_operator_of
from quire.clients.identity import SignedRoster, files, read_roster
from quire.clients.identity.rosters import check_roster, differences
from quire.consortium.about import SiloAbout
from quire.consortium.errors import ConsortiumError
from quire.consortium.layout import SiloFolder
from quire.consortium.places import put
from quire.privacy.identity.errors import RosterError
from quire.privacy.identity.roster import Admin
from quire.privacy.identity.signed import check_signed, signers, succeeds

_MAX_BYTES = 256 * 1024
_LINE = re.compile(r"^roster:[^\n]*$", re.MULTILINE)
_PIN = re.compile(r"roster:\s*\{[^{}]*\}\s*(?:#.*)?")


@dataclass(frozen=True)
class Pinned:
    """Rosters that a silo may take part under.

    Attributes
    ----------
    new : tuple of SignedRoster
        Those that are not here yet, oldest first; the last of them is to be pinned.
    now : SignedRoster
        The one that is pinned in the end.
    words : tuple of str
        What changes, for people.
    """

    new: tuple[SignedRoster, ...]
    now: SignedRoster
    words: tuple[str, ...]


def take_rosters(folder: SiloFolder, about: SiloAbout, came: tuple[SignedRoster, ...], lone: bool) -> Pinned:
    """Check rosters that came from the operator against what is pinned; write nothing.

    Parameters
    ----------
    folder : SiloFolder
    about : SiloAbout
    came : tuple of SignedRoster
        Oldest first, one version after another.
    lone : bool
        Whether they came with a certificate: then versions may be missing, and the pin stays until a bulletin has them.

    Raises
    ------
    ConsortiumError
        If they are another consortium's, do not follow the pinned one, or contradict it.
    RosterError, BadSignature
        If signatures are missing or bad.
    """
    check_silo_file(folder, about)
    old = pinned_roster(folder)
    if old is None:
        newest = came[-1]
        check_signed(newest)
        if not signers(newest, (Admin("admin", about.admin),)):
            raise RosterError("The roster is not signed with the operator's admin key.")
        if newest.roster.roster_id != about.name:
            raise RosterError(f"The roster is that of {newest.roster.roster_id}, and not of {about.name}.")
        return Pinned((newest,), newest, (f"the roster is pinned: version {newest.roster.version}",))
    there = old.roster.version
    for one in came:
        if one.roster.version == there and one.roster.hash != old.roster.hash:
            raise ConsortiumError(
                f"It has another version {there} of the roster than the one that is pinned: two were signed, so stop, "
                "and ask the operator in person."
            )
    new = tuple(one for one in came if one.roster.version > there)
    if new and new[0].roster.version != there + 1:
        if lone:
            return Pinned((), old, ("the roster has changed since: join with the newest bulletin as well",))
        raise ConsortiumError(
            f"Version {there} of the roster is pinned, the oldest in it is {new[0].roster.version}: ask for the files "
            "of the versions between, and hold each to the one before it with `quire roster verify --pinned`."
        )
    before = old
    words: list[str] = []
    for one in new:
        succeeds(before.roster, one)
        words += differences(before.roster, one.roster)
        before = one
    if new:
        words.append(f"the roster is pinned: version {before.roster.version}")
    return Pinned(new, before, tuple(words))


def check_place(about: SiloAbout, roster: SignedRoster, fingerprint: str) -> str | None:
    """Say in words why a silo is not in a roster; None if it is, under its name and keys."""
    member = next((one for one in roster.roster.members if one.name == about.member), None)
    if member is None:
        return f"{about.member} is in version {roster.roster.version} of the roster no more: it was revoked."
    if member.identity.fingerprint != fingerprint:
        return f"Version {roster.roster.version} of the roster has {about.member} with other keys than this silo's."
    return None


def install(folder: SiloFolder, pinned: Pinned) -> None:
    """Write rosters that were checked, and pin the last of them.

    Raises
    ------
    ConsortiumError
        If the line in `silo.yaml` is not one that can be changed.
    """
    for one in pinned.new:
        put(folder.roster_version(one.roster.version), one.encode())
    version, digest = pinned.now.roster.version, pinned.now.roster.hash
    if pinned.new:
        line = f'roster: {{file: roster/{folder.roster_version(version).name}, hash: "{digest}"}}'
        put(folder.silo_file, with_line(files.read(folder.silo_file, _MAX_BYTES), line, folder.silo_file))


def with_line(data: bytes, line: str, path: Path) -> bytes:
    """Return a `silo.yaml` with this line in the place of its line ``roster: {...}``, or at its end if it has none.

    Raises
    ------
    ConsortiumError
        If it has several, or one of another form; then people change it.
    """
    text = data.decode("utf-8", "strict")
    found = _LINE.findall(text)
    if len(found) > 1 or (found and not _PIN.fullmatch(found[0])):
        raise ConsortiumError(f"{path} has 'roster' in a form that is not changed by a program: write {line}")
    if found:
        return _LINE.sub(lambda match: line, text).encode()
    return f"{text.rstrip()}\n{line}\n".encode()


def pinned_roster(folder: SiloFolder) -> SignedRoster | None:
    """Return the roster that `silo.yaml` pins, checked against its hash; None if none is pinned.

    Raises
    ------
    IdentityFileError
        If it cannot be read, or is another one.
    DataError
        If `silo.yaml` says something that it cannot say.
    """
    pin = read_operator_of(folder.silo_file).roster
    if pin is None:
        return None
    signed = read_roster(pin.file)
    check_roster(pin.file, signed, pin.sha256)
    return signed


def check_silo_file(folder: SiloFolder, about: SiloAbout) -> None:
    """Check that `silo.yaml` names the silo as the consortium does, and the keys that are in the folder.

    Raises
    ------
    ConsortiumError
        If it does not.
    DataError
        If it says something that it cannot say.
    """
    name = name_in(folder.silo_file)
    if name != about.member:
        raise ConsortiumError(f"{folder.silo_file} must have the line 'name: {about.member}', as the roster has.")
    identity = read_operator_of(folder.silo_file).identity
    if identity.resolve() != folder.identity_key.resolve():
        raise ConsortiumError(
            f"{folder.silo_file} must have the line 'identity: identity/silo.key', as the roster has."
        )
