"""Opening: wrong recipient, expired, altered, revoked, rolled back, another releaser, an older registry: refused."""

from __future__ import annotations

import json
import shutil

import pytest
from private_runs import Consortium
from released import (
    DAY,
    NOW,
    PIN,
    RELEASER,
    STRANGER,
    arrays_of,
    envelope_of,
    file_of,
    key_file,
    parts_of,
    registry_of,
    released,
)

from quire.clients.arrays import fingerprint
from quire.clients.identity import IdentityFileError
from quire.privacy.identity.roster import Admin, Member, Roster
from quire.releases.errors import Refused, RegistryDamaged, ReleaseError
from quire.releases.header import MODEL
from quire.releases.opening import ABOUT, Trust, open_envelope, write_out
from quire.releases.registry import BOOK, opened

PINNED = Trust(PIN)


@pytest.fixture
def place(tmp_path):
    registry_of(tmp_path / "registry", 2, "berlin", "basel")
    key_file(tmp_path, "berlin")
    key_file(tmp_path, "basel")
    key_file(tmp_path, "bern")
    return tmp_path


def look(place, number=2, name="berlin", registry="registry", trust=PINNED, now=NOW, version=None):
    folder = None if registry is None else place / registry
    return open_envelope(
        file_of(place / "registry", number), place / f"{name}.recipient", trust, folder, now, version=version
    )


def refused(words, *args, **kwargs):
    with pytest.raises(Refused, match=words) as found:
        look(*args, **kwargs)
    assert str(found.value).endswith(".")


def test_the_current_version_opens_and_lands_in_a_folder(place):
    found = look(place)
    assert fingerprint(arrays_of(2)) == found.header.model
    write_out(found, place / "out")
    assert (place / "out" / MODEL).read_bytes() == parts_of(2)[MODEL]
    about = json.loads((place / "out" / ABOUT).read_text())
    assert (about["name"], about["version"], about["purpose"]) == ("heart", 2, "Research, Zürich.")
    assert (place / "out").stat().st_mode & 0o77 == 0
    with pytest.raises(ReleaseError, match="exists already"):
        write_out(found, place / "out")
    assert not [path for path in place.iterdir() if path.name.startswith(".out")]


def test_wrong_recipient(place):
    refused("not for this key", place, name="bern")


def test_expired(place):
    look(place, now=NOW + 30 * DAY - 1)
    refused("has expired", place, now=NOW + 30 * DAY)


def test_from_the_future(place):
    refused("see the clock", place, now=NOW - 2 * DAY)


def test_altered(place):
    path = file_of(place / "registry", 2)
    data = path.read_bytes()
    for at in (0, 60, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        refused(r"\.$", place)


def test_replaced_by_an_older_version(place):
    shutil.copy(file_of(place / "registry", 1), file_of(place / "registry", 2))
    refused("version 1 is not the current one, which is version 2", place)


def test_replaced_by_one_that_was_never_released(place):
    with opened(place / "registry", RELEASER, NOW) as registry:
        book = registry.book
    before = book.models["heart"].versions[0].envelope
    other = envelope_of("berlin", registry=book.id, version=2, previous=before, purpose="Something else.")
    file_of(place / "registry", 2).write_bytes(other.encode())
    refused("never released", place)
    later = envelope_of("berlin", registry=book.id, version=3, previous=before)
    file_of(place / "registry", 3).write_bytes(later.encode())
    refused("does not know heart version 3", place, 3)
    foreign = envelope_of("berlin")
    file_of(place / "registry", 1).write_bytes(foreign.encode())
    refused("from another registry", place, 1)


def test_rolled_back_and_revoked(place):
    with opened(place / "registry", RELEASER, NOW) as registry:
        registry.roll_back("heart", 1, "wrong units", NOW)
    look(place, 1)
    refused("rolled back to: wrong units; --version 2", place, 2)
    look(place, 2, version=2)
    with opened(place / "registry", RELEASER, NOW) as registry:
        registry.revoke("heart", 1, "a silo left", NOW)
    refused("revoked: a silo left", place, 1)
    refused("revoked: a silo left", place, 1, version=1)
    refused("no current version", place, 2)
    look(place, 2, version=2)


def test_the_asked_version_is_the_one_inside(place):
    refused("not the current one|not version", place, 1, version=2)
    refused("not version 1", place, 2, version=1)


def test_an_older_copy_of_the_registry_is_refused_once_a_newer_was_seen(place):
    shutil.copytree(place / "registry", place / "old")
    with opened(place / "registry", RELEASER, NOW) as registry:
        registry.revoke("heart", 2, "it leaks", NOW)
    refused("revoked", place, 2)  # refused, and remembered
    refused("was seen with 4 entries and has 3 now", place, 2, registry="old")
    look(place, 2, name="basel", registry="old")  # has seen nothing: cannot know


def test_a_forked_registry_is_refused(place):
    shutil.copytree(place / "registry", place / "fork")
    with opened(place / "registry", RELEASER, NOW) as registry:
        registry.revoke("heart", 1, "one tale", NOW)
    with opened(place / "fork", RELEASER, NOW) as registry:
        registry.revoke("heart", 1, "another tale", NOW)
        released(registry, "berlin", number=3)
    look(place)
    refused("entry 4 was replaced", place, 2, registry="fork")


def test_who_has_seen_the_registry_cannot_be_shown_an_envelope_without_it(place):
    assert "not known" in look(place, registry=None).notes[-1]
    look(place)
    refused("name it with --registry", place, registry=None)


def test_whose_it_is_has_to_be_said_once(place):
    refused("Nobody has said", place, trust=Trust())
    refused("not the pinned", place, trust=Trust(STRANGER.public.fingerprint))
    look(place)
    assert "first opened" in look(place, trust=Trust()).notes[0]
    refused("not the pinned", place, trust=Trust(STRANGER.public.fingerprint))


def test_an_envelope_cannot_claim_a_registry_that_was_another_releasers(place):
    registry = look(place).header.registry
    path = place / "claimed.envelope"
    path.write_bytes(envelope_of("berlin", identity=STRANGER, registry=registry).encode())
    for trust in (Trust(), Trust(STRANGER.public.fingerprint)):
        with pytest.raises(Refused, match="was that of"):
            open_envelope(path, place / "berlin.recipient", trust, None, NOW)


def test_a_roster_says_whose(place):
    def roster(identity, **times):
        members = (Member(0, "server", identity.public, **times),)
        return Roster("hearts", 1, members, (Admin("admin", Consortium().admin.public),), 1, 1)

    assert "member server of hearts" in look(place, trust=Trust(None, roster(RELEASER))).notes[0]
    refused("nobody of the roster", place, trust=Trust(None, roster(STRANGER)))
    refused("nobody of the roster", place, trust=Trust(None, roster(RELEASER, valid_to=NOW)))


def test_a_roster_without_its_admins_signatures_is_none(place):
    path = place / "roster.json"
    path.write_bytes(Consortium().signed.encode())
    assert Trust.named(None, path).roster is not None
    path.write_bytes(type(Consortium().signed)(Consortium().signed.roster).encode())
    with pytest.raises(IdentityFileError):
        Trust.named(None, path)
    with pytest.raises(ReleaseError, match="64 hexadecimal"):
        Trust.named("3f0c", None)


def test_a_damaged_memory_is_said(place):
    look(place)
    memory = place / "berlin.recipient.seen"
    data = memory.read_bytes()
    for changed in (b"", b"{}", data.replace(b'"lines":3', b'"lines":2'), data[:-2]):
        memory.write_bytes(changed)
        with pytest.raises(RegistryDamaged, match="newest copy"):
            look(place)
    assert memory.stat().st_mode & 0o77 == 0


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_bytes(b"{}\n")])
def test_a_registry_that_is_none(place, change):
    change(place / "registry" / BOOK)
    with pytest.raises(ReleaseError):
        look(place)


def test_a_key_that_others_can_read_or_that_is_none(place):
    key = place / "berlin.recipient"
    key.chmod(0o644)
    with pytest.raises(IdentityFileError, match="chmod 600"):
        look(place)
    key.chmod(0o600)
    for data in (b"", b"{}\n", key.read_bytes()[:-3], b"\xff" * 50, key.read_bytes().replace(b"secret-1", b"secret-2")):
        key.write_bytes(data)
        with pytest.raises(ReleaseError, match="secret key of a recipient"):
            look(place)


def test_a_model_that_is_none_does_not_come_out(place):
    """Signed by the releaser itself, who made a mistake."""
    envelope = envelope_of("berlin", model="ab" * 32)
    path = place / "wrong.envelope"
    path.write_bytes(envelope.encode())
    with pytest.raises(Refused, match="not the one that its header names"):
        open_envelope(path, place / "berlin.recipient", PINNED, None, NOW)
