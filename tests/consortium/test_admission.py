"""What is admitted and what is not; and that nobody else's material changes when somebody comes or goes."""

from __future__ import annotations

import base64
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from consortium_parties import NOW, Parties, snapshot
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_ssh_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from quire.clients.data.silo_file import read_operator_of
from quire.clients.identity import PrivateIdentity, load_identity, load_roster
from quire.clients.policy.membership import not_a_member
from quire.consortium import documents
from quire.consortium.certificates import check_client
from quire.consortium.documents import Document, text_of
from quire.consortium.errors import ConsortiumError
from quire.consortium.index import read_index
from quire.consortium.operator import opened
from quire.consortium.places import node_text, read_key
from quire.consortium.requests import INVITATION_DAYS
from quire.consortium.silo import authority_of, certificate_of
from quire.errors import QuireError


def remade(parties: Parties, asked: Document, **changes: Any) -> Document:
    """The request with other values in it, signed by the silo again: what a malicious silo could send."""
    identity = load_identity(parties.silo(asked.body["name"]).identity_key)
    body = {key: value for key, value in asked.body.items() if key != "format"} | changes
    return documents.sign(documents.REQUEST, body, identity)


def csr(key: Any, *extensions: x509.ExtensionType, subject: str = "hospital-1") -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return text_of(builder.sign(key, digest).public_bytes(Encoding.DER))


def refused(parties: Parties, asked: Document) -> str:
    """Have a request refused with one sentence, and nothing changed by it."""
    before = snapshot(parties.operator.root)
    with pytest.raises(QuireError) as caught:
        parties.admit(asked)
    assert snapshot(parties.operator.root) == before
    words = str(caught.value)
    assert words.endswith(".")
    assert "\n" not in words
    return words


def test_a_silo_joins_with_a_certificate_of_its_own(parties: Parties) -> None:
    silo = parties.bring("hospital-1")
    found, authority = certificate_of(silo), authority_of(silo)
    check_client(found, authority, NOW)
    assert found.public_key() == read_key(silo.client_key).public_key()
    assert found.subject.rfc4514_string() == "CN=hospital-1,O=heart"
    assert found.not_valid_after_utc - found.not_valid_before_utc == timedelta(days=90, seconds=600)
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    node = load_ssh_private_key(silo.node_key.read_bytes(), None)
    assert isinstance(node, ec.EllipticCurvePrivateKey)
    assert node.curve.name == "secp384r1"
    assert parties.operator.node_key("hospital-1").read_text().split()[:2] == node_text(node.public_key()).split()
    assert not parties.operator.invitation("hospital-1").exists()


def test_the_silo_is_a_member_of_the_roster_that_its_silo_file_pins(parties: Parties) -> None:
    parties.bring("hospital-1")
    silo = parties.bring("hospital-2")
    own = read_operator_of(silo.silo_file)
    assert own.roster is not None
    roster = load_roster(own.roster.file, own.roster.sha256)
    assert [member.name for member in roster.members] == ["hospital-1", "hospital-2"]
    identity = load_identity(own.identity)
    assert not_a_member(roster, "hospital-2", identity.public.fingerprint, NOW) is None


def test_secret_keys_are_their_owners_alone_and_never_leave(parties: Parties) -> None:
    silo = parties.bring("hospital-1")
    for folder in (parties.operator, silo):
        assert stat.S_IMODE(folder.root.stat().st_mode) == 0o700
        for path in folder.root.rglob("*.key"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700, path
    node = load_ssh_private_key(silo.node_key.read_bytes(), None)
    assert isinstance(node, ec.EllipticCurvePrivateKey)
    tls = read_key(silo.client_key)
    secrets = [key.private_numbers().private_value.to_bytes(key.key_size // 8, "big") for key in (node, tls)]
    secrets.append(load_identity(silo.identity_key).encode_secret()[2:])
    outside = b"".join(snapshot(parties.operator.root).values()) + silo.request.read_bytes()
    for secret in secrets:
        assert all(trace not in outside for trace in traces(secret))
    # The search can find: the same traces are where the keys are.
    assert any(trace in tls_text(silo.client_key) for trace in traces(secrets[1]))


def traces(secret: bytes) -> list[bytes]:
    """A secret as it is, in hexadecimal digits, and in base64 wherever it begins."""
    shifted = [base64.b64encode(bytes(shift) + secret)[4:-4] for shift in range(3)]
    return [secret, secret.hex().encode(), *(text for text in shifted if text)]


def tls_text(path: Path) -> bytes:
    return b"".join(line for line in path.read_bytes().splitlines() if b"-----" not in line)


def test_nobody_elses_material_changes_when_somebody_comes_or_goes(parties: Parties) -> None:
    first = parties.bring("hospital-1")
    own, place = snapshot(first.root), parties.operator.member("hospital-1")
    filed, server = snapshot(place), snapshot(parties.operator.server)
    parties.bring("hospital-2")
    parties.revoke("hospital-2")
    assert snapshot(first.root) == own
    assert snapshot(place) == filed
    assert snapshot(parties.operator.server) == server


def test_of_a_request_for_a_certificate_only_the_key_is_taken(parties: Parties) -> None:
    asked = parties.ask("hospital-1")
    evil = csr(
        read_key(parties.silo("hospital-1").client_key),
        x509.BasicConstraints(ca=True, path_length=9),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
        x509.SubjectAlternativeName([x509.DNSName("fl.example.org")]),
        subject="hospital-2",
    )
    parties.admit(remade(parties, asked, csr=evil))
    found = x509.load_pem_x509_certificate(parties.operator.client_certificate("hospital-1").read_bytes())
    assert found.subject.rfc4514_string() == "CN=hospital-1,O=heart"
    assert found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert list(found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in names] == ["quire:heart/hospital-1"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: rsa.generate_private_key(65537, 2048), "ECDSA key over P-256 or P-384"),
        (lambda: ed25519.Ed25519PrivateKey.generate(), "ECDSA key over P-256 or P-384"),
        (lambda: ec.generate_private_key(ec.SECP521R1()), "ECDSA key over P-256 or P-384"),
        (lambda: ec.generate_private_key(ec.SECP224R1()), "ECDSA key over P-256 or P-384"),
    ],
)
def test_keys_of_other_kinds_are_not_certified(parties: Parties, make: Callable[[], Any], words: str) -> None:
    asked = parties.ask("hospital-1")
    assert words in refused(parties, remade(parties, asked, csr=csr(make())))


def test_a_p384_key_is_certified(parties: Parties) -> None:
    asked = parties.ask("hospital-1")
    parties.admit(remade(parties, asked, csr=csr(ec.generate_private_key(ec.SECP384R1()))))


def test_a_request_for_a_certificate_proves_its_key(parties: Parties) -> None:
    asked = parties.ask("hospital-1")
    data = bytearray(base64.b64decode(asked.body["csr"]))
    data[-1] ^= 1
    assert "was not signed with its own key" in refused(parties, remade(parties, asked, csr=text_of(bytes(data))))


def test_a_request_is_signed_by_the_identity_in_it(parties: Parties) -> None:
    asked = parties.ask("hospital-1")
    other = PrivateIdentity.from_seed(bytes(32))
    swapped = replace(asked, body=asked.body | {"identity": other.public.encode().hex()})
    refused(parties, swapped)
    node = node_text(ec.generate_private_key(ec.SECP384R1()).public_key())
    refused(parties, replace(asked, body=asked.body | {"node": node}))


def test_the_node_key_is_p384(parties: Parties) -> None:
    asked = parties.ask("hospital-1")
    short = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(ValueError, match="ecdsa-sha2-nistp384"):
        remade(parties, asked, node=node_text(short))
    mixed = "ecdsa-sha2-nistp384 " + node_text(short).split()[1]
    assert "must be ECDSA over P-384" in refused(parties, remade(parties, asked, node=mixed))


def test_the_invitation_is_known_open_and_not_old(parties: Parties) -> None:
    asked = parties.ask("hospital-1")
    assert "another invitation" in refused(parties, remade(parties, asked, nonce="00" * 16))
    assert "was not invited" in refused(parties, remade_as(parties, asked, "hospital-9"))
    assert "this consortium is heart" in refused(parties, remade(parties, asked, consortium="lung"))
    late = Parties(parties.root, NOW + INVITATION_DAYS * 86_400 + 1)
    assert "--again" in refused(late, asked)
    parties.admit(asked)
    parties.revoke("hospital-1")
    assert "was used before" in refused(parties, asked)


def remade_as(parties: Parties, asked: Document, name: str) -> Document:
    identity = load_identity(parties.silo("hospital-1").identity_key)
    body = {key: value for key, value in asked.body.items() if key != "format"} | {"name": name}
    return documents.sign(documents.REQUEST, body, identity)


def test_an_invitation_that_was_replaced_is_worth_nothing(parties: Parties) -> None:
    asked = parties.ask("hospital-1")
    with pytest.raises(ConsortiumError, match="invited already"):
        parties.invite("hospital-1")
    parties.invite("hospital-1", again=True)
    assert "another invitation" in refused(parties, asked)


def test_the_same_request_again_gives_the_same_admission(parties: Parties) -> None:
    asked = parties.ask("hospital-1")
    before = parties.admit(asked).read_bytes()
    assert parties.admit(asked).read_bytes() == before
    assert read_index(parties.operator.issued).events == 2


def test_a_member_is_not_admitted_twice(parties: Parties) -> None:
    asked = parties.ask("hospital-1")
    parties.admit(asked)
    with pytest.raises(ConsortiumError, match="member already"):
        parties.invite("hospital-1")
    assert "member already" in refused(parties, remade(parties, asked, created=NOW + 1))


def test_the_fingerprint_decides(parties: Parties) -> None:
    asked = parties.ask("hospital-1")
    good = asked.identity("identity").fingerprint
    with opened(parties.operator.root, None, NOW) as operator:
        for typed in ("", good[:-1], good[:-1] + ("0" if good[-1] != "0" else "1"), "0" * 64):
            with pytest.raises(ConsortiumError, match="ingerprint"):
                operator.admit(asked, typed, 90, NOW)
        assert not operator.state.members
        spaced = ":".join(good[start : start + 4] for start in range(0, 64, 4)).upper()
        operator.admit(asked, spaced, 90, NOW)
        assert list(operator.state.members) == ["hospital-1"]


def test_keys_are_nobody_elses_and_never_come_back(parties: Parties) -> None:
    parties.bring("hospital-1")
    first = parties.silo("hospital-1")
    asked = parties.ask("hospital-2")
    stolen = csr(read_key(first.client_key))
    assert "TLS key of hospital-2 was used before, by hospital-1" in refused(
        parties, remade(parties, asked, csr=stolen)
    )
    node = " ".join(first.node_public_key.read_text().split()[:2])
    assert "node key" in refused(parties, remade(parties, asked, node=node))
    identity = load_identity(first.identity_key)
    body = {key: value for key, value in asked.body.items() if key != "format"}
    body |= {"identity": identity.public.encode().hex()}
    assert "identity of hospital-2" in refused(parties, documents.sign(documents.REQUEST, body, identity))
    parties.revoke("hospital-1")
    again = parties.ask("hospital-1", folder="elsewhere")
    back = body | {"name": "hospital-1", "nonce": again.body["nonce"]}
    assert "identity of hospital-1" in refused(parties, documents.sign(documents.REQUEST, back, identity))
    parties.admit(again)


def test_the_admins_own_keys_are_no_silos(parties: Parties) -> None:
    asked = parties.ask("hospital-1")
    admin = load_identity(parties.operator.admin_key)
    body = {key: value for key, value in asked.body.items() if key != "format"}
    body |= {"identity": admin.public.encode().hex()}
    assert "admin's own keys" in refused(parties, documents.sign(documents.REQUEST, body, admin))


def test_a_certificate_does_not_outlast_the_authority(parties: Parties) -> None:
    asked = parties.ask("hospital-1")
    with pytest.raises(ConsortiumError, match="outlast the authority"):
        parties.admit(asked, days=3651)
    parties.admit(asked)


def test_an_admission_that_is_refused_late_leaves_no_trace(parties: Parties) -> None:
    parties.bring("hospital-2")
    parties.bring("hospital-1")
    parties.revoke("hospital-1")
    asked = parties.ask("hospital-1", folder="anew")
    before = snapshot(parties.operator.root)
    with pytest.raises(ConsortiumError, match="outlast the authority"):
        parties.admit(asked, days=3651)
    assert snapshot(parties.operator.root) == before
    assert not parties.operator.member("hospital-1").exists()
    parties.revoke("hospital-2")  # the folder opens, and goes on


def test_who_comes_and_leaves_again_at_once_is_put_beside_its_former_folder(parties: Parties) -> None:
    """Within one second, too: no folder is written over, and none stands in the way."""
    parties.bring("hospital-2")
    for folder in ("one", "two", "three"):
        parties.admit(parties.ask("hospital-1", folder=folder))
        parties.revoke("hospital-1")
    former = sorted(parties.operator.former.iterdir())
    assert [path.name for path in former] == [f"hospital-1-{NOW}{more}" for more in ("", "-2", "-3")]
    assert len({(path / "node.pub").read_bytes() for path in former}) == 3
    assert all((path / "request.json").exists() for path in former)


def test_what_a_killed_admission_of_a_former_member_left_is_dropped(parties: Parties) -> None:
    """As it was left when the request was still written first: the folder could not be opened any more."""
    parties.bring("hospital-2")
    parties.bring("hospital-1")
    parties.revoke("hospital-1")
    asked = parties.ask("hospital-1", folder="anew")
    parties.operator.member("hospital-1").mkdir(mode=0o700)
    parties.operator.request("hospital-1").write_bytes(asked.encode())
    with opened(parties.operator.root, None, NOW) as operator:
        assert operator.settle(NOW) == []
    assert not parties.operator.member("hospital-1").exists()
    parties.admit(asked)
    assert parties.operator.request("hospital-1").read_bytes() == asked.encode()
