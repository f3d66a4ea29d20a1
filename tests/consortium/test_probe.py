"""A silo that does not reach its server is told why."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from provisioned import DAYS, pem, secret
from proxied import Place, needs_haproxy, proxied, running

from quire.consortium.about import Server
from quire.consortium.authority import Authority
from quire.consortium.layout import SiloFolder
from quire.consortium.loopback import write_private
from quire.consortium.probe import Unreached, check_end, reach
from quire.consortium.services import free_ports


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with proxied(tmp_path_factory.mktemp("probe")) as made:
        yield made


@needs_haproxy
def test_a_member_reaches_its_server(place: Place) -> None:
    before = list(place.backend.seen)
    reach(place.made.silos["clinic"], Server("localhost", place.port))
    assert place.backend.seen == before  # the proxy answers itself


@needs_haproxy
@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("revoked", "refuses this silo's certificate: .*revoked"),
        ("expired", "refuses this silo's certificate: .*expired"),
        ("foreign", "refuses this silo's certificate: "),
        ("impostor", "is not the server: "),
    ],
)
def test_it_is_told_who_refuses_whom(place: Place, tmp_path: Path, what: str, words: str) -> None:
    made, port, metrics, now = place.made, *free_ports(2), int(time.time())
    folder = SiloFolder(tmp_path / "silo")
    folder.tls.mkdir(parents=True)
    key = ec.generate_private_key(ec.SECP256R1())
    foreign = Authority.new("hearts", now)
    start = now - 40 * 86_400 if what == "expired" else now
    certificate = (foreign if what == "foreign" else made.authority).client("clinic", key.public_key(), start, DAYS)
    folder.ca_certificate.write_bytes(pem(made.authority.certificate))
    folder.crl.write_bytes(made.operator.crl.read_bytes())
    folder.client_certificate.write_bytes(pem(certificate))
    write_private(folder.client_key, secret(key))
    proxy = replace(place.proxy, bind=Server("127.0.0.1", port), metrics=metrics)
    if what == "revoked":
        list_ = made.authority.crl({certificate.serial_number: now}, 9, now)
        (tmp_path / "crl.pem").write_bytes(list_.public_bytes(Encoding.PEM))
        proxy = replace(proxy, crl=tmp_path / "crl.pem")
    if what == "impostor":
        shown = pem(foreign.for_server(Server("localhost"), key.public_key(), now, DAYS)) + secret(key)
        proxy = replace(proxy, certificate=write_private(tmp_path / "shown.pem", shown))
    with running(tmp_path, "server", proxy.render(), port), pytest.raises(Unreached, match=words) as told:
        reach(folder, Server("localhost", port))
    assert "\n" not in str(told.value)


@needs_haproxy
def test_nobody_there_is_told(place: Place) -> None:
    silo = place.made.silos["clinic"]
    with pytest.raises(Unreached, match="does not answer: Connection refused"):
        reach(silo, Server("localhost", free_ports(1)[0]))
    with pytest.raises(Unreached, match="is not known here"):
        reach(silo, Server("server.invalid", 1))
    bare = SiloFolder(silo.root / "nothing")
    with pytest.raises(Unreached, match="cannot be used: No such file"):
        reach(bare, Server("localhost", 1))


@pytest.mark.parametrize(("days", "words"), [(30, None), (5, r"ends in 5 days, on \d{4}-"), (-2, "has ended on")])
def test_the_end_of_a_certificate_is_told_in_time(tmp_path: Path, days: int, words: str | None) -> None:
    folder, now = SiloFolder(tmp_path), int(time.time())
    folder.tls.mkdir()
    start = now + (days - 20) * 86_400 + 60
    authority = Authority.new("hearts", now - 40 * 86_400)
    certificate = authority.client("clinic", ec.generate_private_key(ec.SECP256R1()).public_key(), start, 20)
    folder.client_certificate.write_bytes(pem(certificate))
    if words is None:
        check_end(folder)
        return
    with pytest.raises(Unreached, match=words):
        check_end(folder)
