"""What the proxy lets no member and no address have too much of."""

from __future__ import annotations

import contextlib
import select
import socket
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

import pytest
from proxied import FLEET, Place, needs_haproxy, running

from quire.consortium.about import Server
from quire.consortium.proxy import MOST_AT_SUPERLINK
from quire.consortium.services import free_ports


@contextlib.contextmanager
def limited(place: Place, name: str, **limits: int) -> Iterator[tuple[Place, int, int]]:
    """Run a proxy with other limits beside this file's; yield where it is, its port and that of its figures."""
    port, metrics = free_ports(2)
    proxy = replace(place.proxy, bind=Server("127.0.0.1", port), metrics=metrics, **limits)
    with running(place.folder, name, proxy.render(), port):
        yield replace(place, proxy=proxy), port, metrics


@needs_haproxy
def test_a_member_over_its_rate_is_put_off_and_the_others_are_not(place: Place) -> None:
    with limited(place, "limited", requests=5) as (there, _, metrics):
        found = [there.status(FLEET, "clinic") for _ in range(8)]
        assert found == [200] * 5 + [503] * 3  # 503: what Flower's clients try again after
        assert there.status(FLEET, "server") == 200
        url = f"http://127.0.0.1:{metrics}/metrics"
        told = urllib.request.urlopen(url, timeout=5).read().decode()
        assert 'haproxy_frontend_http_responses_total{proxy="fleet",code="5xx"}' in told
        limit = 'haproxy_server_limit_sessions{proxy="superlink",server="superlink"}'
        assert f"{limit} {MOST_AT_SUPERLINK}" in told


def told_of(metrics: int, name: str) -> float:
    """Return a figure of the proxy's own."""
    told = urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=5).read().decode()
    return float(next(line for line in told.splitlines() if line.startswith(name)).rpartition(" ")[2])


LANE = 'haproxy_frontend_http_requests_total{proxy="lane"}'


@needs_haproxy
def test_a_busy_member_waits_and_is_answered_and_the_others_do_not_wait(place: Place) -> None:
    with limited(place, "busy", busy=10, calm=5, lane=2) as (there, _, metrics):
        assert [there.status(FLEET, "clinic") for _ in range(10)] == [200] * 10
        assert told_of(metrics, LANE) == 0
        began = time.monotonic()
        assert [there.status(FLEET, "clinic") for _ in range(6)] == [200] * 6
        assert time.monotonic() - began >= 1.0  # no more than two, and what came before them, in each second
        assert told_of(metrics, LANE) == 6
        assert [there.status(FLEET, "server") for _ in range(8)] == [200] * 8
        assert told_of(metrics, LANE) == 6
        (lane,) = place.folder.glob(f"lane-{metrics}.sock")
        assert lane.stat().st_mode & 0o777 == 0o600  # whoever reaches it is asked for no certificate


@pytest.mark.slow
@needs_haproxy
def test_a_member_that_has_calmed_down_waits_no_longer(place: Place) -> None:
    with limited(place, "calm", busy=10, calm=5, lane=5) as (there, _, metrics):
        assert [there.status(FLEET, "clinic") for _ in range(14)] == [200] * 14
        waited = told_of(metrics, LANE)
        assert waited >= 4
        time.sleep(20)  # twice the time over which requests are counted
        assert [there.status(FLEET, "clinic") for _ in range(4)] == [200] * 4
        assert told_of(metrics, LANE) == waited


@needs_haproxy
def test_one_connection_too_many_of_a_member_is_closed_and_the_others_are_not(place: Place) -> None:
    with limited(place, "crowded", connections=3) as (there, port, _):
        context = there.context("server")
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                plain = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
                stack.enter_context(context.wrap_socket(plain, server_hostname="localhost"))
            assert there.status(FLEET, "server") == 0
            assert there.status(FLEET, "clinic") == 200
        deadline = time.monotonic() + 10
        while there.status(FLEET, "server") != 200:  # once the proxy has seen the others' end
            assert time.monotonic() < deadline


@needs_haproxy
def test_an_address_that_floods_is_turned_away_before_any_handshake(place: Place) -> None:
    with limited(place, "flooded", handshakes=10) as (there, port, _):
        for _ in range(20):
            with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=20):
                pass
        assert there.status(FLEET, "clinic") == 0


@needs_haproxy
def test_connections_that_never_shake_hands_are_few_from_an_address(place: Place) -> None:
    raw = f"POST {FLEET} HTTP/1.1\r\n{place.key('clinic')}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    with limited(place, "silent", open_connections=20) as (there, port, metrics), contextlib.ExitStack() as stack:
        deadline = time.monotonic() + 20
        while told_of(metrics, 'haproxy_frontend_current_sessions{proxy="fleet"}'):  # who looked whether it listens
            assert time.monotonic() < deadline
        silent, turned = [], 0
        for _ in range(25):
            try:
                silent.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20)))
            except ConnectionError:  # one too many may be closed before connect() is back
                turned += 1
        deadline = time.monotonic() + 20
        while turned + len(select.select(silent, [], [], 0.05)[0]) < 5:  # its threads take them in any order
            assert time.monotonic() < deadline
        assert turned + len(select.select(silent, [], [], 0.2)[0]) == 5
        assert there.status(FLEET, "clinic") == 0
        plain = stack.enter_context(socket.create_connection(("127.0.0.1", port), 20, ("127.0.0.2", 0)))
        with place.context("clinic").wrap_socket(plain, server_hostname="localhost") as tls:  # from another address
            tls.sendall(raw.encode())
            assert tls.recv(64).startswith(b"HTTP/1.1 200")


@needs_haproxy
def test_connections_that_never_shake_hands_do_not_last(place: Place) -> None:
    with limited(place, "patient", patience=1) as (there, port, _):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as silent:
            assert silent.recv(1) == b""
        assert there.status(FLEET, "clinic") == 200
