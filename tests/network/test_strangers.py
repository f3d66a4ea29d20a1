"""Who is no member gets nowhere: not from another machine, on any path, with no certificate or with another one."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from evidence import both_of, status
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from heart import HOSPITALS, STRANGER
from provisioned import pem, secret
from running import SERVER, Running, request

from quire.consortium.authority import Authority

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
#: All that Flower serves at the SuperLink's port, by its own table, and what its web framework adds to it.
PATHS = sorted({*PROTOBUF_REQUEST_TYPES, *(("GET", f"/{name}") for name in ("", "docs", "openapi.json", "health"))})
PATHS += [("GET", "/metrics"), ("GET", "/v1/fleet/pull-messages"), ("POST", "/v1/fleet/../control/start-run")]
ALL = [request(method, path) for method, path in PATHS]
_REACH = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2)"


def test_every_family_of_paths_is_asked_for() -> None:
    families = {path.split("/")[2] for _, path in PATHS if path.startswith("/v1/")}
    assert families >= {"fleet", "control", "runtime"}


@pytest.mark.parametrize("whose", ["no certificate", "a foreign one"])
def test_a_stranger_gets_no_answer_on_any_path(hearts: Running, tmp_path: Path, whose: str) -> None:
    """The foreign authority has the consortium's name, and signs for a member's."""
    key, now, both = ec.generate_private_key(ec.SECP256R1()), int(time.time()), tmp_path / "both.pem"
    both.write_bytes(pem(Authority.new("hearts", now).client("cleveland", key.public_key(), now, 1)) + secret(key))
    answers = hearts.send_raw(ALL, None if whose == "no certificate" else both, at=STRANGER)
    assert answers == [b""] * len(PATHS)


def test_a_member_gets_to_the_fleet_api_alone_and_not_without_its_nodes_key(hearts: Running, tmp_path: Path) -> None:
    answers = hearts.send_raw(ALL, both_of(hearts, "hungarian", tmp_path), at="hungarian")
    for (method, path), answer in zip(PATHS, answers, strict=True):
        fleet = method == "POST" and path.startswith("/v1/fleet/") and ".." not in path
        assert status(answer) == (401 if fleet else 403), f"{method} {path}"


def test_nothing_but_the_proxy_is_reached_from_another_machine(hearts: Running) -> None:
    assert hearts.wires is not None
    hearts.wires.needed()
    told = json.loads((hearts.folders[SERVER] / "run" / "superlink.json").read_text())
    host, _, port = hearts.listen.rpartition(":")
    for name in (STRANGER, *HOSPITALS):
        for inner in (told["address"].rpartition(":")[2], str(told["metrics"])):
            assert hearts.wires.run(SERVER, sys.executable, "-c", _REACH, "127.0.0.1", inner).returncode == 0
            assert hearts.wires.run(name, sys.executable, "-c", _REACH, host, inner).returncode == 1
            assert hearts.wires.run(name, sys.executable, "-c", _REACH, "127.0.0.1", inner).returncode == 1
        assert hearts.wires.run(name, sys.executable, "-c", _REACH, host, port).returncode == 0
