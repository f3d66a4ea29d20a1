"""What a silo installs and what it refuses; renewal; the roster that it pins; how all of it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from consortium_parties import NOW, Parties, snapshot
from cryptography.hazmat.primitives.serialization import Encoding

from quire.clients.data.silo_file import read_operator_of
from quire.clients.identity import load_identity, load_roster
from quire.clients.identity.rosters import Change, next_roster, sign_roster
from quire.consortium import documents
from quire.consortium.authority import Authority
from quire.consortium.certificates import DAY, make_csr
from quire.consortium.documents import ADMISSION, BULLETIN, RENEWAL, Document, text_of
from quire.consortium.errors import ConsortiumError
from quire.consortium.joining import join
from quire.consortium.layout import SiloFolder
from quire.consortium.operator import opened
from quire.consortium.pinning import pinned_roster, with_line
from quire.consortium.places import read_key
from quire.consortium.silo import certificate_of, read_invitation, renew, request
from quire.consortium.standing import WRONG, standing
from quire.errors import QuireError
from quire.privacy.identity.canonical import loads
from quire.privacy.identity.signed import SignedRoster


def forged(parties: Parties, path: Path, kind: str, signer: Path | None = None, **changes: Any) -> Path:
    """A document of the operator's with other values, signed by its admin or by somebody else."""
    found = documents.read(path, kind)
    body = {key: value for key, value in found.body.items() if key != "format"} | changes
    made = documents.sign(kind, body, load_identity(signer or parties.operator.admin_key))
    place = parties.root / "forged.json"
    place.write_bytes(made.encode())
    return place


def refused(silo: SiloFolder, path: Path, now: int = NOW) -> str:
    before = snapshot(silo.root)
    with pytest.raises(QuireError) as caught:
        join(silo.root, path, now=now)
    assert snapshot(silo.root) == before, "something was installed"
    return str(caught.value)


@pytest.fixture
def waiting(parties: Parties) -> tuple[SiloFolder, Path]:
    """A silo that waits, and its admission."""
    return parties.silo("hospital-1"), parties.admit(parties.ask("hospital-1"))


def test_an_admission_is_the_operators_word_and_for_this_silo(
    parties: Parties, waiting: tuple[SiloFolder, Path]
) -> None:
    silo, admission = waiting
    foreign = Authority.new("heart", NOW)
    key = read_key(silo.client_key).public_key()
    ours = text_of(foreign.client("hospital-1", key, NOW, 90).public_bytes(Encoding.DER))
    theirs = text_of(foreign.certificate.public_bytes(Encoding.DER))
    other = text_of(certificate_of(parties.bring("hospital-2")).public_bytes(Encoding.DER))
    assert "does not verify" in refused(silo, forged(parties, admission, ADMISSION, silo.identity_key))
    assert "another silo" in refused(silo, parties.operator.admission("hospital-2"))
    assert "another silo" in refused(silo, forged(parties, admission, ADMISSION, consortium="lung"))
    assert "another authority" in refused(silo, forged(parties, admission, ADMISSION, authority=theirs))
    assert "not good" in refused(silo, forged(parties, admission, ADMISSION, certificate=ours))
    assert "not hospital-1's" in refused(silo, forged(parties, admission, ADMISSION, certificate=other))
    alien = text_of(foreign.crl({}, 0, NOW).public_bytes(Encoding.DER))
    assert "was not signed" in refused(silo, forged(parties, admission, ADMISSION, crl=alien))
    assert "admission comes before" in refused(silo, parties.operator.bulletin)
    assert "not valid" in refused(silo, admission, NOW + 91 * DAY)
    join(silo.root, admission, now=NOW)
    assert join(silo.root, admission, now=NOW)[:-1] == []


def test_a_certificate_for_a_key_that_the_silo_has_not_is_refused(
    parties: Parties, waiting: tuple[SiloFolder, Path]
) -> None:
    silo, admission = waiting
    silo.client_key.write_bytes(parties.bring("hospital-2").client_key.read_bytes())
    assert "another key" in refused(silo, admission)


def test_a_revoked_silo_does_not_join(parties: Parties, waiting: tuple[SiloFolder, Path]) -> None:
    silo, admission = waiting
    old = admission.read_bytes()
    parties.bring("hospital-2")
    parties.revoke("hospital-1")
    path = parties.root / "kept.json"
    path.write_bytes(old)
    newest = documents.read(parties.operator.bulletin, BULLETIN).body["crl"]
    assert "was revoked" in refused(silo, forged(parties, path, ADMISSION, crl=newest))


def test_the_invitation_is_held_to_the_fingerprint_that_was_read_out(parties: Parties) -> None:
    path = parties.invite("hospital-1")
    invitation = read_invitation(path)
    silo = parties.silo("hospital-1")
    with pytest.raises(ConsortiumError, match="not the fingerprint of the operator"):
        request(silo.root, invitation, "0" * 64, now=NOW)
    assert not silo.root.exists()
    changed = invitation.encode().replace(b'"port":8443', b'"port":8444')
    path.write_bytes(changed)
    with pytest.raises(QuireError, match="does not verify"):
        read_invitation(path)


def test_a_folder_belongs_to_one_silo(parties: Parties) -> None:
    parties.ask("hospital-1", folder="one")
    with pytest.raises(ConsortiumError, match="take a new folder"):
        parties.ask("hospital-2", folder="one")
    silo = parties.bring("hospital-3")
    with pytest.raises(ConsortiumError, match="member already"):
        parties.ask("hospital-3")
    assert certificate_of(silo)


def test_a_folder_that_others_can_enter_is_refused(parties: Parties) -> None:
    root = parties.silo("hospital-1").root
    root.mkdir(mode=0o755)
    with pytest.raises(ConsortiumError, match="chmod 700"):
        parties.ask("hospital-1")


def test_a_bulletin_moves_the_pin_along_the_versions(parties: Parties) -> None:
    silo = parties.bring("hospital-1")
    silo.silo_file.write_text(f"# kept\n{silo.silo_file.read_text()}# and kept\n")
    parties.bring("hospital-2")
    parties.bring("hospital-3")
    parties.revoke("hospital-2")
    changed = join(silo.root, parties.operator.bulletin, now=NOW)
    assert changed == [
        *("member added: hospital-2", "member added: hospital-3", "member removed: hospital-2"),
        "the roster is pinned: version 4",
    ]
    own = read_operator_of(silo.silo_file).roster
    assert own is not None
    assert [one.name for one in load_roster(own.file, own.sha256).members] == ["hospital-1", "hospital-3"]
    text = silo.silo_file.read_text()
    assert text.startswith("# kept\n")
    assert text.endswith("# and kept\n")
    assert text.count("roster:") == 1
    assert join(silo.root, parties.operator.bulletin, now=NOW) == []


def test_a_silo_that_was_revoked_is_told_so(parties: Parties) -> None:
    silo = parties.bring("hospital-1")
    parties.bring("hospital-2")
    parties.revoke("hospital-1")
    assert "it was revoked" in join(silo.root, parties.operator.bulletin, now=NOW)[-1]
    found = standing(silo.root, NOW)
    assert found.failing
    assert {item.what for item in found.items if item.state == WRONG} == {"certificate", "roster"}


def test_an_older_list_and_an_older_roster_change_nothing(parties: Parties) -> None:
    silo = parties.bring("hospital-1")
    parties.bring("hospital-2")
    old = parties.root / "old.json"
    old.write_bytes(parties.operator.bulletin.read_bytes())
    parties.revoke("hospital-2")
    join(silo.root, parties.operator.bulletin, now=NOW)
    assert "older than the one here" in refused(silo, old)
    newest = documents.read(parties.operator.bulletin, BULLETIN).body["crl"]
    assert join(silo.root, forged(parties, old, BULLETIN, crl=newest), now=NOW) == []
    pinned = pinned_roster(silo)
    assert pinned is not None
    assert pinned.roster.version == 3


def rosters(parties: Parties, version: int) -> SignedRoster:
    return SignedRoster.decode(parties.operator.roster_version(version).read_bytes())


def test_an_admission_that_comes_after_younger_bulletins_is_installed(parties: Parties) -> None:
    silo = parties.bring("hospital-1")
    admission = renewed(parties, renew(silo.root, now=NOW + 1), NOW + 1)
    parties.bring("hospital-2")
    parties.bring("hospital-3")
    parties.revoke("hospital-2")
    join(silo.root, parties.operator.bulletin, now=NOW + 1)
    list_of_bulletin = silo.crl.read_bytes()
    join(silo.root, admission, now=NOW + 1)
    assert silo.crl.read_bytes() == list_of_bulletin, "the older list has taken the place of the newer"
    pinned = pinned_roster(silo)
    assert pinned is not None
    assert pinned.roster.version == 4


def test_a_certificate_is_installed_across_a_gap_of_rosters_and_the_pin_stays(parties: Parties) -> None:
    silo = parties.bring("hospital-1")
    for name in ("hospital-2", "hospital-3"):
        parties.bring(name)
    asked = renew(silo.root, now=NOW + 1)
    changed = join(silo.root, renewed(parties, asked, NOW + 1), now=NOW + 1)
    assert "join with the newest bulletin" in changed[0]
    pinned = pinned_roster(silo)
    assert pinned is not None
    assert pinned.roster.version == 1
    join(silo.root, parties.operator.bulletin, now=NOW + 1)
    assert not standing(silo.root, NOW + 1).failing


def test_a_roster_without_the_silo_is_no_admission(parties: Parties, waiting: tuple[SiloFolder, Path]) -> None:
    silo, _ = waiting
    parties.bring("hospital-2")
    parties.revoke("hospital-1")
    without = [loads(rosters(parties, 3).encode(), 10**6)]
    kept = parties.operator.former.glob("hospital-1-*/admission.json")
    assert "no more" in refused(silo, forged(parties, next(kept), ADMISSION, rosters=without))


def test_two_rosters_of_one_version_are_found_out(parties: Parties) -> None:
    silo = parties.bring("hospital-1")
    parties.bring("hospital-2")
    join(silo.root, parties.operator.bulletin, now=NOW)
    admin = load_identity(parties.operator.admin_key)
    first = rosters(parties, 1)
    split = sign_roster(SignedRoster(next_roster(first.roster, Change(removed_admins=()))), admin, first.roster)
    lie = [loads(first.encode(), 10**6), loads(split.encode(), 10**6)]
    assert "two were signed" in refused(silo, forged(parties, parties.operator.bulletin, BULLETIN, rosters=lie))


def test_a_gap_between_rosters_is_not_jumped(parties: Parties) -> None:
    silo = parties.bring("hospital-1")
    parties.bring("hospital-2")
    parties.bring("hospital-3")
    last = [loads(rosters(parties, 3).encode(), 10**6)]
    words = refused(silo, forged(parties, parties.operator.bulletin, BULLETIN, rosters=last))
    assert "the oldest in it is 3" in words


def test_a_roster_that_the_admin_did_not_sign_is_refused(parties: Parties, waiting: tuple[SiloFolder, Path]) -> None:
    silo, admission = waiting
    bare = SignedRoster(rosters(parties, 1).roster)
    unsigned = [loads(bare.encode(), 10**6)]
    assert "needs 1" in refused(silo, forged(parties, admission, ADMISSION, rosters=unsigned))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: hospital-9\nidentity: identity/silo.key\ndata: {connector: csv}\n", "name: hospital-1"),
        ("identity: identity/silo.key\ndata: {connector: csv}\n", "name: hospital-1"),
        ("name: hospital-1\ndata: {connector: csv}\n", "identity: identity/silo.key"),
        ("name: hospital-1\nidentity: identity/silo.key\ndata: {connector: csv}\nroster: [\n", "silo.yaml"),
    ],
)
def test_a_silo_file_that_names_another_silo_is_refused(waiting: tuple[SiloFolder, Path], text: str, says: str) -> None:
    silo, admission = waiting
    silo.silo_file.write_text(text)
    assert says in refused(silo, admission)


def test_a_pin_that_people_have_written_otherwise_is_left_to_them(tmp_path: Path) -> None:
    assert with_line(b"a: 1\n", "roster: X", tmp_path) == b"a: 1\nroster: X\n"
    assert with_line(b"roster: {a}  # old\nb: 2\n", "roster: X", tmp_path) == b"roster: X\nb: 2\n"
    for text in (b"roster:\n  file: x\n", b"roster: {a}\nroster: {b}\n"):
        with pytest.raises(ConsortiumError, match="write roster: X"):
            with_line(text, "roster: X", tmp_path)


def renewed(parties: Parties, asked: Document, now: int) -> Path:
    with opened(parties.operator.root, None, now) as operator:
        return operator.renew(asked, 90, now)


def test_renewal_keeps_everything_but_the_certificate(parties: Parties) -> None:
    silo = parties.bring("hospital-1")
    before, files = certificate_of(silo), snapshot(silo.root)
    later = NOW + 80 * DAY
    join(silo.root, renewed(parties, renew(silo.root, now=later), later), now=later)
    after = certificate_of(silo)
    assert after.public_key() == before.public_key()
    assert after.not_valid_after_utc > before.not_valid_after_utc
    changed = {name for name, data in snapshot(silo.root).items() if files.get(name) != data}
    assert changed == {"tls/client.pem", "request.json"}
    assert not parties.operator.roster_version(2).exists()


def test_renewal_for_a_fresh_key(parties: Parties) -> None:
    silo = parties.bring("hospital-1")
    before = silo.client_key.read_bytes()
    asked = renew(silo.root, fresh=True, now=NOW + 1)
    assert silo.client_key.read_bytes() == before, "the old key serves until the certificate has come"
    join(silo.root, renewed(parties, asked, NOW + 1), now=NOW + 1)
    assert silo.client_key.read_bytes() != before
    assert not silo.next_client_key.exists()
    assert certificate_of(silo).public_key() == read_key(silo.client_key).public_key()


def test_a_renewal_is_answered_once_and_for_the_member_alone(parties: Parties) -> None:
    silo, other = parties.bring("hospital-1"), parties.bring("hospital-2")
    asked = renew(silo.root, now=NOW + 1)
    body = {key: value for key, value in asked.body.items() if key != "format"}
    posing = documents.sign(RENEWAL, body, load_identity(other.identity_key))
    with pytest.raises(QuireError, match="does not verify"):
        renewed(parties, posing, NOW + 1)
    admission = renewed(parties, asked, NOW + 1).read_bytes()
    assert renewed(parties, asked, NOW + 2).read_bytes() == admission
    join(silo.root, parties.operator.admission("hospital-1"), now=NOW + 1)
    renewed(parties, renew(silo.root, now=NOW + 3), NOW + 3)
    with pytest.raises(ConsortiumError, match="answered before"):
        renewed(parties, asked, NOW + 4)
    join(silo.root, parties.operator.admission("hospital-1"), now=NOW + 4)
    kept = parties.root / "kept.json"
    kept.write_bytes(admission)
    assert "older than the one" in refused(silo, kept, NOW + 4)
    parties.revoke("hospital-1")
    with pytest.raises(ConsortiumError, match="no member"):
        renewed(parties, asked, NOW + 5)


def test_a_renewal_for_a_key_of_before_is_refused(parties: Parties) -> None:
    """Else whoever stole an old key, and an old request, could have it certified again."""
    silo = parties.bring("hospital-1")
    old = read_key(silo.client_key)
    join(silo.root, renewed(parties, renew(silo.root, fresh=True, now=NOW + 1), NOW + 1), now=NOW + 1)
    asked = renew(silo.root, now=NOW + 2)
    body = {key: value for key, value in asked.body.items() if key != "format"}
    body |= {"csr": text_of(make_csr("hospital-1", old))}
    back = documents.sign(RENEWAL, body, load_identity(silo.identity_key))
    with pytest.raises(ConsortiumError, match="certified before"):
        renewed(parties, back, NOW + 2)


def test_renewal_extends_the_place_in_the_roster_before_it_ends(parties: Parties) -> None:
    silo = parties.bring("hospital-1", days=700)
    later = NOW + 400 * DAY
    join(silo.root, renewed(parties, renew(silo.root, now=later), later), now=later)
    pinned = pinned_roster(silo)
    assert pinned is not None
    assert pinned.roster.version == 2
    assert pinned.roster.member("hospital-1").valid_to == later + 730 * DAY
