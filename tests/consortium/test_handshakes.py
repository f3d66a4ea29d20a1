"""Real TLS handshakes over loopback with the files that a consortium issues: who is let in, and who is not."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest
from consortium_parties import HOST, NOW, Parties
from cryptography.hazmat.primitives.serialization import Encoding

from quire.consortium.about import Server
from quire.consortium.authority import Authority
from quire.consortium.certificates import DAY, check_client, check_server, crl_number, load_crl, new_key
from quire.consortium.errors import ConsortiumError
from quire.consortium.joining import join
from quire.consortium.layout import OperatorFolder, SiloFolder
from quire.consortium.operator import opened
from quire.consortium.silo import renew

MINIMUM = ssl.TLSVersion.TLSv1_3


def server_context(operator: OperatorFolder) -> ssl.SSLContext:
    """As a proxy is set up: its chain, the authority, the list of revoked certificates, client certificates needed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = MINIMUM
    context.load_cert_chain(operator.server_certificate, operator.server_key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(operator.ca_certificate)
    context.load_verify_locations(operator.crl)
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF | ssl.VERIFY_X509_STRICT
    return context


def client_context(silo: SiloFolder, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """As a silo's proxy is set up: its certificate, the authority, and the list of revoked certificates."""
    context = ssl.create_default_context(cafile=str(silo.ca_certificate))
    context.minimum_version = MINIMUM
    context.load_verify_locations(silo.crl)
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF | ssl.VERIFY_X509_STRICT
    context.load_cert_chain(certificate or silo.client_certificate, key or silo.client_key)
    return context


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str = HOST) -> str:
    """Connect once; return the name of the client as the server has verified it."""
    seen: list[object] = []
    listener = socket.create_server((HOST, 0))
    listener.settimeout(10)

    def serve() -> None:
        try:
            raw, _ = listener.accept()
            raw.settimeout(10)
            with raw, server.wrap_socket(raw, server_side=True) as secured:
                seen.append(secured.getpeercert())
                secured.sendall(b"in")
        except OSError as error:
            seen.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with (
            socket.create_connection(listener.getsockname(), timeout=10) as raw,
            client.wrap_socket(raw, server_hostname=host) as secured,
        ):
            # In TLS 1.3 a client learns only with the first byte whether it was let in.
            let_in = secured.recv(2)
    finally:
        thread.join(10)
        listener.close()
    assert let_in == b"in"
    assert isinstance(seen[0], dict)
    return dict(part for parts in seen[0]["subject"] for part in parts)["commonName"]


def turned_away(server: ssl.SSLContext, client: ssl.SSLContext, host: str = HOST) -> str:
    with pytest.raises((ssl.SSLError, ConnectionError)) as caught:
        handshake(server, client, host)
    return str(caught.value)


@pytest.fixture
def silo(parties: Parties) -> SiloFolder:
    return parties.bring("hospital-1")


def test_an_admitted_silo_is_let_in_under_its_name(parties: Parties, silo: SiloFolder) -> None:
    assert handshake(server_context(parties.operator), client_context(silo)) == "hospital-1"


def test_without_a_certificate_nobody_is_let_in(parties: Parties, silo: SiloFolder) -> None:
    bare = ssl.create_default_context(cafile=str(silo.ca_certificate))
    assert "certificate required" in turned_away(server_context(parties.operator), bare).lower()


def test_a_revoked_silo_is_turned_away_and_the_others_are_not(parties: Parties, silo: SiloFolder) -> None:
    other = parties.bring("hospital-2")
    before = server_context(parties.operator)
    assert handshake(before, client_context(silo)) == "hospital-1"
    parties.revoke("hospital-1")
    after = server_context(parties.operator)
    assert "revoked" in turned_away(after, client_context(silo)).lower()
    assert handshake(after, client_context(other)) == "hospital-2"


def test_a_certificate_of_another_consortium_is_turned_away(parties: Parties, silo: SiloFolder, tmp_path: Path) -> None:
    foreign = Parties(tmp_path / "foreign").found()  # the same name, another authority
    other = foreign.bring("hospital-1")
    mixed = client_context(silo, other.client_certificate, other.client_key)
    assert "unknown ca" in turned_away(server_context(parties.operator), mixed).lower()
    assert "verify failed" in turned_away(server_context(parties.operator), client_context(other)).lower()


def test_an_expired_certificate_is_turned_away(parties: Parties, silo: SiloFolder, tmp_path: Path) -> None:
    past = Parties(tmp_path / "past", NOW - 100 * DAY).found()
    old = past.bring("hospital-1")
    assert "expired" in turned_away(server_context(past.operator), client_context(old)).lower()


def test_a_silo_renews_after_its_certificate_has_expired(tmp_path: Path) -> None:
    past = Parties(tmp_path, NOW - 100 * DAY).found()
    old, today = past.bring("hospital-1"), Parties(tmp_path, NOW)
    asked = renew(old.root, now=NOW)
    with opened(today.operator.root, None, NOW) as operator:
        admission = operator.renew(asked, 90, NOW)
    join(old.root, admission, now=NOW)
    assert handshake(server_context(today.operator), client_context(old)) == "hospital-1"


def test_a_silos_certificate_is_no_servers(parties: Parties, silo: SiloFolder) -> None:
    posing = server_context(parties.operator)
    posing.load_cert_chain(silo.client_certificate, silo.client_key)
    assert "verify failed" in turned_away(posing, client_context(silo)).lower()


def test_the_servers_certificate_is_no_silos(parties: Parties, silo: SiloFolder) -> None:
    operator = parties.operator
    posing = client_context(silo, operator.server_certificate, operator.server_key)
    turned_away(server_context(operator), posing)


def test_the_server_has_to_have_the_name_that_silos_were_told(parties: Parties, silo: SiloFolder) -> None:
    assert "mismatch" in turned_away(server_context(parties.operator), client_context(silo), "localhost").lower()


def test_the_servers_old_key_is_refused_once_it_has_a_fresh_one(parties: Parties, silo: SiloFolder) -> None:
    stolen = server_context(parties.operator)
    assert handshake(stolen, client_context(silo)) == "hospital-1"
    with opened(parties.operator.root, None, NOW) as operator:
        operator.renew_server(True, 365, NOW)
    join(silo.root, parties.operator.bulletin, now=NOW)
    assert "revoked" in turned_away(stolen, client_context(silo)).lower()
    assert handshake(server_context(parties.operator), client_context(silo)) == "hospital-1"


def test_a_superseded_certificate_is_refused_and_the_newest_is_not(
    parties: Parties, silo: SiloFolder, tmp_path: Path
) -> None:
    kept = tmp_path / "stolen.pem", tmp_path / "stolen.key"
    for copy, path in zip(kept, (silo.client_certificate, silo.client_key), strict=True):
        copy.write_bytes(path.read_bytes())
    asked = renew(silo.root, fresh=True, now=NOW + 1)
    with opened(parties.operator.root, None, NOW + 1) as operator:
        join(silo.root, operator.renew(asked, 90, NOW + 1), now=NOW + 1)
    assert handshake(server_context(parties.operator), client_context(silo)) == "hospital-1"
    assert handshake(server_context(parties.operator), client_context(silo, *kept)) == "hospital-1"
    parties.revoke("hospital-1", superseded=True)
    assert handshake(server_context(parties.operator), client_context(silo)) == "hospital-1"
    assert "revoked" in turned_away(server_context(parties.operator), client_context(silo, *kept)).lower()


def test_the_verifier_of_cryptography_agrees() -> None:
    authority, key = Authority.new("heart", NOW), new_key()
    foreign = Authority.new("heart", NOW).certificate
    client = authority.client("hospital-1", key.public_key(), NOW, 90)
    check_client(client, authority.certificate, NOW)
    check_client(client, authority.certificate, NOW + 90 * DAY - 1)
    wrong = ((foreign, NOW), (authority.certificate, NOW + 90 * DAY + 1), (authority.certificate, NOW - 3600))
    for root, moment in wrong:
        with pytest.raises(ConsortiumError, match="not good under the consortium's authority"):
            check_client(client, root, moment)
    for host in ("fl.example.org", "10.0.0.5", "::1"):
        server = authority.for_server(Server(host), key.public_key(), NOW, 365)
        check_server(server, authority.certificate, Server(host), NOW)
        for refusing in (
            lambda server=server: check_server(server, authority.certificate, Server("other.example.org"), NOW),
            lambda server=server: check_client(server, authority.certificate, NOW),
            lambda host=host: check_server(client, authority.certificate, Server(host), NOW),
        ):
            with pytest.raises(ConsortiumError):
                refusing()


def test_the_list_of_revoked_certificates_is_the_authoritys_alone() -> None:
    authority, other = Authority.new("heart", NOW), Authority.new("heart", NOW)
    data = authority.crl({7: NOW}, 3, NOW).public_bytes(Encoding.DER)
    found = load_crl(data, authority.certificate)
    assert crl_number(found) == 3
    assert found.get_revoked_certificate_by_serial_number(7) is not None
    with pytest.raises(ConsortiumError, match="was not signed"):
        load_crl(data, other.certificate)
    with pytest.raises(ConsortiumError, match="cannot be read"):
        load_crl(data[:-1], authority.certificate)
