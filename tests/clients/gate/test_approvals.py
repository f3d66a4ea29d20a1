"""The operator's list: who may write it, what it holds, and that in doubt it approves nothing."""

from __future__ import annotations

import json
import multiprocessing
import stat
from pathlib import Path

import pytest
from bundles import APP, packed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from quire.cli import app
from quire.clients.code import code_hash
from quire.clients.gate.approvals import (
    Approval,
    ApprovalError,
    approvals_file,
    approve,
    approved_hash,
    read_approvals,
    revoke,
)
from quire.clients.gate.bundle import Bundle, BundleError, read_bundle
from quire.errors import QuireError
from quire.simulation.flower_app import stage

ROOT = Path(__file__).resolve().parents[3]
A, B, C = (letter * 64 for letter in "abc")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "silo.approved.json"


def test_the_list_lies_beside_the_silos_file() -> None:
    assert approvals_file(Path("x/clinic-1.yaml")) == Path("x/clinic-1.approved.json")


def test_what_is_approved_is_read_back_until_it_is_revoked(path: Path) -> None:
    one, two = Approval((A, B), "reviewed", "anna", "2026-01-31T00:00:00+00:00"), Approval((C,))
    assert read_approvals(path) == ()
    assert approve(path, one)
    assert approve(path, two)
    assert not approve(path, Approval((B,)))
    assert read_approvals(path) == (one, two)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert revoke(path, (B,))
    assert not revoke(path, (B,))
    assert read_approvals(path) == (two,)
    assert [item.name for item in path.parent.iterdir()] == [path.name]  # no litter


def test_either_hash_lets_a_bundle_in_and_no_other_does() -> None:
    bundle, other = Bundle(packed(APP)), Bundle(packed({**APP, "app/__init__.py": b"client = 2"}))
    assert approved_hash(bundle, (Approval((bundle.fab,)),)) == bundle.fab
    assert approved_hash(bundle, (Approval((bundle.content,)),)) == bundle.content
    for entries in ((), (Approval((A,)),), (Approval((other.content, other.fab)),)):
        assert approved_hash(bundle, entries) is None


def test_an_archive_on_the_list_is_not_unpacked_to_be_recognised() -> None:
    bundle = Bundle(packed(APP))
    assert approved_hash(bundle, (Approval((bundle.fab,)),))
    assert "files" not in vars(bundle)


def test_a_damaged_bundle_is_refused_and_not_merely_unknown() -> None:
    with pytest.raises(BundleError):
        approved_hash(Bundle(b"PK\x03\x04"), (Approval((A,)),))


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_list_that_others_may_write_approves_nothing(path: Path, mode: int) -> None:
    approve(path, Approval((A,)))
    path.chmod(mode)
    for use in (lambda: read_approvals(path), lambda: approve(path, Approval((B,))), lambda: revoke(path, (A,))):
        with pytest.raises(ApprovalError, match="chmod go-w"):
            use()


def test_a_list_of_another_user_approves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    approve(path, Approval((A,)))
    path.chmod(0o644)
    monkeypatch.setattr("os.geteuid", lambda: path.stat().st_uid + 1)
    if path.stat().st_uid == 0:  # root's files are trusted, and here everything is root's
        assert read_approvals(path)
        return
    with pytest.raises(ApprovalError, match="another user"):
        read_approvals(path)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", '"x"', "[" * 100_000, '{"version": 1}', '{"version": 2, "approved": []}'),
        *('{"version": 1, "approved": [1]}', '{"version": 1, "approved": [{"hashes": []}]}'),
        '{"version": 1, "approved": [{"hashes": ["' + "A" * 64 + '"], "note": "", "by": "", "at": ""}]}',
        '{"version": 1, "approved": [{"hashes": [7], "note": "", "by": "", "at": ""}]}',
        '{"version": 1, "approved": [{"hashes": [], "note": "", "by": "", "at": ""}]}',
        '{"version": 1, "approved": [{"hashes": ["' + A + '"], "note": 1, "by": "", "at": ""}]}',
        '{"version": 1, "approved": {}, "more": 1}',
        '{"version": 1, "approved": 5}',
        "x" * 1_100_000,
    ],
)
def test_a_list_of_another_form_approves_nothing(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ApprovalError):
        read_approvals(path)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.binary(max_size=200))
def test_any_other_bytes_are_a_sentence(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ApprovalError):
        read_approvals(path)


@pytest.mark.parametrize("bad", [(), ("",), ("a" * 63,), ("A" * 64,), (A, "x")])
def test_only_hashes_are_approved(path: Path, bad: tuple[str, ...]) -> None:
    with pytest.raises(ApprovalError, match="64 hexadecimal"):
        approve(path, Approval(bad))
    with pytest.raises(ApprovalError, match="one line"):
        approve(path, Approval((A,), "two\nlines"))
    assert not path.exists()


def _approve_many(path: Path, first: int) -> None:
    for number in range(first, first + 20):
        approve(path, Approval((f"{number:064x}",)))


def test_operators_at_two_desks_do_not_lose_each_others_entries(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    desks = [context.Process(target=_approve_many, args=(path, first)) for first in (0, 100, 200)]
    for desk in desks:
        desk.start()
    for desk in desks:
        desk.join()
    assert len(read_approvals(path)) == 60


# ---------------------------------------------------------------------------------------------- the command line
def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["app", *arguments])
    if isinstance(result.exception, QuireError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def silo(tmp_path: Path) -> Path:
    (tmp_path / "silo.yaml").write_text("data: {}\n")
    return tmp_path / "silo.yaml"


def test_hash_approve_list_and_revoke(tmp_path: Path, silo: Path) -> None:
    fab = tmp_path / "app.fab"
    fab.write_bytes(packed(APP))
    bundle, where = Bundle(packed(APP)), ("--silo", str(silo))
    hashes = f"content {bundle.content}\nfab     {bundle.fab}\n"
    assert run("hash", str(fab)) == f"{hashes}code    none: it is no bundle of Quire\n"
    assert run("approve", str(fab), *where, "--note", "release 1") == f"Approved: {bundle.content}\n"
    assert run("approve", bundle.content, *where) == f"Already approved: {bundle.content}\n"
    assert run("approve", A, *where) == f"Approved: {A}\n"
    first, second = run("list", *where).splitlines()
    assert first.startswith(bundle.content)
    assert first.endswith("release 1")
    assert second.startswith(A)
    (entry, _) = json.loads((tmp_path / "silo.approved.json").read_text())["approved"]
    assert entry["hashes"] == [bundle.content, bundle.fab]
    assert run("revoke", bundle.fab, *where) == f"Revoked: {bundle.fab}\n"
    assert run("revoke", A, *where)
    assert run("list", *where) == ""


def test_the_hash_of_the_code_is_the_one_that_silos_check_and_runs_record(tmp_path: Path) -> None:
    shown = run("hash", str(stage(tmp_path / "app"))).splitlines()
    assert [line.split()[0] for line in shown] == ["content", "fab", "code"]
    assert shown[2].split() == ["code", code_hash()]
    fab = tmp_path / "app.fab"
    fab.write_bytes(read_bundle(tmp_path / "app").raw)  # as `flwr build` writes it
    assert run("hash", str(fab)).splitlines() == shown
    (tmp_path / "app" / "privacy" / "csprng.py").write_text("# other code")
    assert run("hash", str(tmp_path / "app")).splitlines()[2] != shown[2]


@pytest.mark.slow  # Flower's own search for what is packed goes through all that lies in a checkout
def test_a_checkout_has_the_hash_of_the_code_that_runs_in_it() -> None:
    assert run("hash", str(ROOT)).splitlines()[2] == f"code    {code_hash()}"


def test_mistakes_at_the_command_line_are_sentences(tmp_path: Path, silo: Path) -> None:
    with pytest.raises(ApprovalError, match="is not approved in"):
        run("revoke", A, "--silo", str(silo))
    with pytest.raises(ApprovalError, match="There is no file"):
        run("approve", A, "--silo", str(tmp_path / "other.yaml"))
    with pytest.raises(BundleError, match="cannot be read"):
        run("hash", str(tmp_path / "none"))
