"""How the running server follows the operator's folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from provisioned import Provisioned, provision
from proxied import Backend, needs_haproxy

from quire.consortium import superlink as server
from quire.consortium.about import Server
from quire.consortium.loopback import make_loopback
from quire.consortium.registry import Connection, RegistryError, members_in, node_keys
from quire.consortium.services import free_ports, prepare


def quiet(name: str, words: str) -> None:
    """Where nobody listens."""


def beside_a_backend(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Provisioned, Backend]:
    """Return a consortium without members, and what answers in the place of its SuperLink."""
    here = provision(folder, [], Server("localhost"))
    prepare(here.operator.run)
    backend = Backend(make_loopback(here.operator.run))
    monkeypatch.setattr(server, "free_ports", lambda count: [backend.server_address[1], *free_ports(count - 1)])
    return here, backend


def test_what_lies_among_the_members_and_is_none_is_passed_over(tmp_path: Path) -> None:
    here = provision(tmp_path, ["clinic"], Server("localhost"))
    for name in (".DS_Store", "notes", "A Name"):
        (here.operator.members / name).write_text("")
    (here.operator.members / "Another Name").mkdir()
    assert list(members_in(here.operator)) == list(node_keys(here.operator)) == ["clinic"]


@needs_haproxy
def test_the_superlink_is_asked_when_the_folder_changes_and_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, backend = beside_a_backend(tmp_path, monkeypatch)
    duty, _ = server.superlink(here.operator, quiet).duties
    duty.call()
    assert backend.seen == ["POST /v1/control/list-nodes"]
    duty.call()
    assert len(backend.seen) == 1
    (here.operator.members / ".DS_Store").write_text("")
    here.parties.bring("clinic")
    backend.seen.clear()
    backend.shutdown()
    backend.server_close()
    with pytest.raises(RegistryError, match="does not answer"):
        duty.call()


@needs_haproxy
def test_nodes_that_others_registered_are_found_though_the_folder_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, backend = beside_a_backend(tmp_path, monkeypatch)
    monkeypatch.setattr(server, "_ASK_EVERY", 0.0)
    duty, _ = server.superlink(here.operator, quiet).duties
    duty.call()
    duty.call()
    assert backend.seen == ["POST /v1/control/list-nodes"] * 2
    backend.shutdown()


def test_why_the_members_cannot_be_registered_is_told_once(tmp_path: Path) -> None:
    here, told = provision(tmp_path, ["clinic"], Server("localhost")), []
    here.operator.crl.write_text("damaged")
    members = server._Members(here.operator, Connection("127.0.0.1:1", here.operator.ca_certificate))
    members.tell = lambda name, words: told.append(f"{name}: {words}")
    here.operator.run.mkdir(exist_ok=True)
    assert [members.agreed(), members.agreed()] == [False, False]
    assert len(told) == 1
    assert told[0].startswith(f"members: The members in {here.operator.members} cannot be read")
