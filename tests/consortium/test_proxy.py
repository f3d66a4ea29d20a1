"""The proxy: real HAProxy, as rendered, before a server of ours that says what reached it."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate
from provisioned import DAYS, pem, secret
from proxied import FLEET, Place, needs_haproxy, running

from quire.consortium.about import Server
from quire.consortium.authority import Authority
from quire.consortium.loopback import make_loopback, write_private
from quire.consortium.proxy import SiloProxy
from quire.consortium.services import free_ports

CLOSED = [
    "/",
    "/health",
    "/docs",
    "/openapi.json",
    "/metrics",
    "/v1/control/list-runs",
    "/v1/control/start-run",
    "/v1/runtime/acquire-task",
    "/v1/fleet",
    "/v1/fleetx/pull-messages",
    "/V1/fleet/pull-messages",
    "/v1/fleet/../control/list-runs",
    "/v1/fleet/..%2fcontrol/list-runs",
    "/v1/fleet/%2e%2e/control/list-runs",
    "/v1/fleet//control",
    "/v1/fleet/\\..\\control",
    "/v1/control/list-runs?/v1/fleet/",
    "/v1/control/list-runs#/v1/fleet/",
    "//v1/fleet/pull-messages",
    "https://localhost/v1/control/list-runs",
]


@needs_haproxy
def test_a_member_reaches_the_fleet_api_and_is_named_in_the_log(place: Place) -> None:
    body = bytes(1_500_000)
    back = place.send(
        f"POST {FLEET} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{place.key('clinic')}\r\n"
        f"content-length: {len(body)}\r\n\r\n".encode()
        + body,
        place.context("clinic"),
    )
    assert back.startswith(b"HTTP/1.1 200")
    assert back.endswith(body)
    lines = [json.loads(line) for line in (place.folder / "server.log").read_text().splitlines() if line[0] == "{"]
    told = [line for line in lines if line.get("member") == "clinic" and line["status"] == 200]
    assert told[-1]["path"] == FLEET
    assert told[-1]["bytes_in"] > len(body)


@needs_haproxy
@pytest.mark.parametrize("path", CLOSED)
def test_nothing_else_is_reached_even_with_a_good_certificate(place: Place, path: str) -> None:
    before = list(place.backend.seen)
    for method in ("POST", "GET"):
        assert place.status(path, "clinic", method) in (400, 403)
    assert place.backend.seen == before


@needs_haproxy
@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", (), 403),
        ("CONNECT", (), 400),
        (
            "POST",
            ("upgrade: websocket", "connection: upgrade", f"sec-websocket-key: {'A' * 22}==", "content-length: 0"),
            403,
        ),
        ("POST", ("content-length: 2000001",), 413),
        *(("POST", (f"content-length: {2**bits + 1}",), 413) for bits in (31, 32, 33)),
        ("POST", ("content-length: 2147483648",), 413),
        ("POST", ("transfer-encoding: chunked",), 400),
        ("POST", ("content-length: 1", "content-length: 2"), 400),
        ("POST", ("content-length: 1", "transfer-encoding: chunked"), 400),
    ],
    ids=lambda value: str(value).replace("\n", " ")[:40],
)
def test_what_is_no_plain_request_is_refused(place: Place, method: str, headers: tuple[str, ...], status: int) -> None:
    before = list(place.backend.seen)
    assert place.status(FLEET, "clinic", method, *headers) == status
    assert place.backend.seen == before


@needs_haproxy
def test_no_other_protocol_is_asked_for_behind_it(place: Place) -> None:
    asked = ("upgrade: h2c", "connection: close, upgrade, http2-settings", "http2-settings: AAAA")
    assert place.status(FLEET, "clinic", "POST", *asked) == 200
    assert place.backend.seen[-1] == f"POST {FLEET}"


@needs_haproxy
@pytest.mark.parametrize("path", [FLEET, *CLOSED])
def test_who_has_no_certificate_of_the_consortium_gets_nothing_on_any_path(place: Place, path: str) -> None:
    other = Authority.new("hearts", int(time.time()))  # of the same name
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = pem(other.client("clinic", key.public_key(), int(time.time()), DAYS))
    (place.folder / "foreign.pem").write_bytes(certificate + secret(key))
    foreign, bare = place.context(None), place.context(None)
    foreign.load_cert_chain(place.folder / "foreign.pem")
    raw = f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode()
    before = list(place.backend.seen)
    assert place.send(raw, foreign) == b""
    assert place.send(raw, bare) == b""
    assert place.backend.seen == before


@needs_haproxy
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_is_refused(place: Place, version: ssl.TLSVersion) -> None:
    context = place.context("clinic")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    assert place.send(f"POST {FLEET} HTTP/1.1\r\nhost: x\r\n\r\n".encode(), context) == b""
    context = place.context("clinic")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    raw = f"POST {FLEET} HTTP/1.0\r\n{place.key('clinic')}\r\ncontent-length: 0\r\n\r\n".encode()
    assert place.send(raw, context).startswith(b"HTTP/1.1 200")


@needs_haproxy
def test_the_servers_certificate_is_none_for_a_client(place: Place) -> None:
    context = place.context(None)
    context.load_cert_chain(place.proxy.certificate)
    assert place.send(f"POST {FLEET} HTTP/1.1\r\nhost: x\r\n\r\n".encode(), context) == b""


@needs_haproxy
def test_expired_and_revoked_certificates_get_nothing(place: Place) -> None:
    made, port, metrics = place.made, *free_ports(2)
    now = int(time.time())
    key = ec.generate_private_key(ec.SECP256R1())
    old = made.authority.client("clinic", key.public_key(), now - 40 * 86_400, 30)
    (place.folder / "old.pem").write_bytes(pem(old) + secret(key))
    serial = load_pem_x509_certificate(made.silos["clinic"].client_certificate.read_bytes()).serial_number
    crl = made.authority.crl({serial: now}, 2, now)
    (place.folder / "crl2.pem").write_bytes(crl.public_bytes(Encoding.PEM))
    proxy = replace(place.proxy, bind=Server("127.0.0.1", port), crl=place.folder / "crl2.pem", metrics=metrics)
    raw = f"POST {FLEET} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode()
    other = raw.replace(b"host: x\r\n", f"host: x\r\n{place.key('server')}\r\n".encode())
    with running(place.folder, "revoked", proxy.render(), port):
        there = replace(place, proxy=proxy)
        expired = place.context(None)
        expired.load_cert_chain(place.folder / "old.pem")
        assert there.send(raw, there.context("clinic")) == b""
        assert there.send(raw, expired) == b""
        assert there.send(other, there.context("server")).startswith(b"HTTP/1.1 200")


@needs_haproxy
def test_a_certificate_is_worth_nothing_with_another_members_node_key(place: Place) -> None:
    own, other = place.key("clinic"), place.key("server")
    assert own != other
    before = list(place.backend.seen)
    name, _, text = other.partition(": ")
    for headers in (
        (other,),
        (own, other),
        (other, own),
        (f"{own},{text}",),
        (f"{other}, {own.partition(': ')[2]}",),
        (f"{name}:",),
        (f"{own[:-4]}",),
    ):
        assert place.status(FLEET, "clinic", "POST", *headers) == 401, headers
    assert place.status(FLEET, "server", "POST", own) == 401
    raw = f"POST {FLEET} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode()
    assert place.send(raw, place.context("clinic")).startswith(b"HTTP/1.1 401")
    assert place.backend.seen == before
    assert place.status(FLEET, "clinic", "POST", own) == 200


@needs_haproxy
def test_a_certificate_without_an_entry_for_its_name_gets_nothing(place: Place, tmp_path: Path) -> None:
    port, metrics = free_ports(2)
    (tmp_path / "nodes.map").write_text(place.key("clinic").replace("flwr-public-key:", "clinic") + "\n")
    proxy = replace(place.proxy, bind=Server("127.0.0.1", port), metrics=metrics, keys=tmp_path / "nodes.map")
    with running(place.folder, "unknown", proxy.render(), port):
        there = replace(place, proxy=proxy)
        assert there.status(FLEET, "clinic") == 200
        for header in (place.key("server"), "flwr-public-key:", "flwr-public-key: 0"):
            assert there.status(FLEET, "server", "POST", header) == 401


@needs_haproxy
def test_the_superlink_is_told_no_host_and_no_origin_by_a_member(place: Place) -> None:
    told = ("host: evil", "x-forwarded-for: 6.6.6.6", "x-forwarded-proto: http", "forwarded: for=6.6.6.6")
    raw = "\r\n".join([f"POST {FLEET} HTTP/1.1", *told, place.key("clinic"), "content-length: 0", "connection: close"])
    assert place.send(f"{raw}\r\n\r\n".encode(), place.context("clinic")).startswith(b"HTTP/1.1 200")
    found = place.backend.headers[-1]
    assert found["host"] == "localhost"
    assert not [name for name in found if "forwarded" in name]


@needs_haproxy
def test_http2_is_not_spoken_even_if_it_is_begun_unasked(place: Place) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
    assert place.send(preface, place.context("clinic"), once=True)[:12] in (b"HTTP/1.1 400", b"")


@needs_haproxy
@pytest.mark.slow
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_silo_finds_its_server_and_no_other(place: Place, tmp_path: Path, host: str) -> None:
    """By name and by address; an impostor has another authority's certificate, or a member's own."""
    made = place.made
    client = write_private(
        tmp_path / "client.pem",
        made.silos["clinic"].client_certificate.read_bytes() + made.silos["clinic"].client_key.read_bytes(),
    )
    now, key = int(time.time()), ec.generate_private_key(ec.SECP256R1())
    ca, foreign = pem(made.authority.certificate), Authority.new("hearts", now)
    shown = {
        "true": pem(made.authority.for_server(Server(host), key.public_key(), now, DAYS)) + ca,
        "other authority": pem(foreign.for_server(Server(host), key.public_key(), now, DAYS)),
        "other host": pem(made.authority.for_server(Server("elsewhere.example"), key.public_key(), now, DAYS)) + ca,
        "expired": pem(made.authority.for_server(Server(host), key.public_key(), now - 40 * 86_400, 30)) + ca,
        "member called server": pem(made.authority.client("server", key.public_key(), now, DAYS)) + ca,
        "member called localhost": pem(made.authority.client("localhost", key.public_key(), now, DAYS)) + ca,
    }
    if host == "127.0.0.1":  # a server that has an address only is known by being this authority's server
        del shown["other host"]
    found = {}
    own = make_loopback(tmp_path)
    for what, certificate in shown.items():
        front, out, metrics, others = free_ports(4)
        both = write_private(tmp_path / "shown.pem", certificate + secret(key))
        server = replace(place.proxy, bind=Server("127.0.0.1", front), certificate=both, metrics=metrics)
        silo = SiloProxy(
            Server(host, front),
            client,
            made.silos["clinic"].ca_certificate,
            made.silos["clinic"].crl,
            out,
            own.both,
            others,
        )
        with running(tmp_path, "server", server.render(), front), running(tmp_path, "silo", silo.render(), out):
            name, _, key_text = place.key("clinic").partition(": ")
            request = urllib.request.Request(f"https://127.0.0.1:{out}{FLEET}", b"xyz", {name: key_text}, method="POST")
            context = ssl.create_default_context(cafile=str(own.certificate))
            try:
                found[what] = urllib.request.urlopen(request, timeout=10, context=context).status
            except urllib.error.HTTPError as error:
                found[what] = error.code
    assert found == {what: 200 if what == "true" else 503 for what in shown}
