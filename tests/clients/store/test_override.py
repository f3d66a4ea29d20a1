"""The operator's override keeps the history and the most that anything still shows; the command line says all of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import command_line
from stores import HEART, Home, gaussian, go_on

from quire.clients.identity import new_identity
from quire.clients.identity.keyfile import load_identity
from quire.clients.store import Spending, StoreDamaged, StoreError, Unit
from quire.clients.store.entries import Charge
from quire.clients.store.inspection import Inspection
from quire.clients.store.override import reset
from quire.privacy.dp.events import Gaussian
from quire.privacy.identity.keys import PrivateIdentity

DAMAGE = ["flip", "cut", "deleted", "heads", "store.json", "counters", "nothing"]


def harm(home: Home, how: str) -> None:
    file = home.ledger_file
    good = file.read_bytes()
    if how == "flip":
        file.write_bytes(good.replace(b'"round":4', b'"round":5'))
    elif how == "cut":
        file.write_bytes(good[: len(good) // 2])
    elif how == "deleted":
        file.unlink()
    elif how != "nothing":
        (home.store / {"heads": "heads.json", "counters": "counters.jsonl"}.get(how, how)).unlink()


@pytest.mark.parametrize("how", DAMAGE)
def test_an_override_begins_with_all_that_was_spent(home: Home, how: str) -> None:
    home.run(5)
    harm(home, how)
    if how != "nothing":
        with pytest.raises(StoreDamaged), home.open() as store:
            store.ledger(HEART)
    done = reset(home.store, HEART, "the disk failed", home.identity)
    assert (done.found == "") is (how == "nothing")
    with home.open() as store:
        ledger = store.ledger(HEART)
        assert ledger.spent(Unit.RECORD).rdp == pytest.approx(Spending.of(Gaussian(20.0, 5)).rdp, rel=1e-12)
        assert ledger.receipt.count == 7
        go_on(store, ledger, 1)
        assert store.counters.last("run-1").round == 6 or how in ("deleted", "cut")
    books = Inspection(home.store).books(HEART, whole=True)
    assert (books.openings[0].because, books.openings[0].found) == ("the disk failed", done.found)


def test_a_copy_that_was_put_back_is_overridden_with_what_the_witness_knows(witnessed: Home) -> None:
    witnessed.run(2)
    shutil.copytree(witnessed.store, witnessed.folder / "backup")
    witnessed.run(3)
    shutil.rmtree(witnessed.store)
    shutil.copytree(witnessed.folder / "backup", witnessed.store)
    done = reset(witnessed.store, HEART, "restored Monday's backup", witnessed.identity, witness=witnessed.witness)
    assert done.carried[Unit.RECORD].rdp == pytest.approx(Spending.of(Gaussian(20.0, 5)).rdp, rel=1e-12)
    assert witnessed.run(1).count == 8


def test_forgetting_has_to_be_asked_for_and_stays_on_record(home: Home) -> None:
    home.run(5)
    done = reset(home.store, HEART, "new consent of all patients", home.identity, forget=True)
    assert done.carried == {}
    assert done.kept is not None
    assert len(done.kept.read_bytes().splitlines()) == 6
    with home.open() as store:
        assert store.ledger(HEART).spent(Unit.RECORD) == Spending.zero()
    Inspection(home.store).books(HEART, whole=True)
    done.kept.write_bytes(done.kept.read_bytes()[:-1])
    with pytest.raises(StoreDamaged, match="history from before an override, has changed"):
        Inspection(home.store).books(HEART, whole=True)


def test_a_new_identity_takes_the_balance_over(home: Home) -> None:
    home.run(5)
    new = Home(home.folder, PrivateIdentity.from_seed(b"j" * 32))
    with pytest.raises(StoreError, match="quire ledger reset"):
        new.open()
    reset(new.store, HEART, "the old key was lost", new.identity)
    assert new.run(1).count == 8
    with new.open() as store:
        assert store.ledger(HEART).spent(Unit.RECORD).rdp == pytest.approx(
            Spending.of(Gaussian(20.0, 6)).rdp, rel=1e-12
        )


@pytest.mark.parametrize("because", ["", "  ", "x" * 501])
def test_an_override_needs_a_reason(home: Home, because: str) -> None:
    home.run(1)
    with pytest.raises(StoreError, match="needs a reason"):
        reset(home.store, HEART, because, home.identity)


SILO = """
data: {connector: shipped, partition: 0, partitions: 2}
population: {name: heart-2020, records: 303}
policy: {modes: [record], aggregation: [plain], code: [], epsilon: 4.0, delta: 1.0e-5}
"""


@pytest.fixture
def silo(tmp_path: Path) -> Home:
    new_identity(tmp_path / "silo.key", "hospital-1", False, None)
    (tmp_path / "silo.yaml").write_text(SILO)
    return Home(tmp_path, load_identity(tmp_path / "silo.key"))


def test_the_command_line_shows_verifies_and_overrides(
    silo: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quire = command_line(monkeypatch, capsys)
    file = str(silo.folder / "silo.yaml")
    assert quire("ledger", "show", file)[0] == 1
    silo.run(3)
    silo.run(2, "run-2")
    status, out, _ = quire("ledger", "show", file)
    epsilon = f"{Spending.of(Gaussian(20.0, 5)).epsilon(1e-5):.4g}"
    assert status == 0
    assert f"Population {HEART}: 6 entries" in out
    assert ["record", "2", "5", epsilon, epsilon, "4"] in [line.split()[:6] for line in out.splitlines()]
    assert any(line.split()[:1] == ["run-2"] for line in out.splitlines())
    assert quire("ledger", "show", str(silo.store), "--population", HEART, "--delta", "1e-6")[0] == 0
    status, out, _ = quire("ledger", "verify", file)
    assert status == 0
    assert f"{HEART}: 6 entries are sound." in out
    assert "the silo's own key" in out
    assert "named by the store itself" in quire("ledger", "verify", str(silo.store))[1]

    silo.ledger_file.write_bytes(silo.ledger_file.read_bytes().replace(b'"round":2', b'"round":3'))
    status, _, err = quire("ledger", "verify", file)
    assert status == 1
    assert err.startswith("quire: The line after entry 2 of ")
    assert len(err.strip().splitlines()) == 1
    status, out, _ = quire("ledger", "reset", file, HEART, "--because", "a cosmic ray")
    assert status == 0
    assert f"begins with epsilon {epsilon} per record at delta 1e-05" in out
    status, out, _ = quire("ledger", "verify", file)
    assert status == 0
    assert "a cosmic ray" in out
    assert quire("ledger", "verify", file, "--population", "no-such")[0] == 1


def test_looking_changes_nothing_and_waits_for_nobody(silo: Home) -> None:
    silo.run(2)
    before = {path: path.read_bytes() for path in silo.store.rglob("*") if path.is_file()}
    with silo.open():
        Inspection(silo.store).books(HEART, whole=True)
    after = {path: path.read_bytes() for path in silo.store.rglob("*") if path.is_file()}
    assert after | {silo.store / "lock": b""} == before | {silo.store / "lock": b""}


def test_an_entry_that_is_booked_at_less_than_it_costs_is_found(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the silo's own key signed it."""
    monkeypatch.setattr(Charge, "spending", Spending.of(Gaussian(40.0)), raising=True)
    home.run(1)
    monkeypatch.undo()
    entry = json.loads(home.ledger_file.read_text().splitlines()[1])
    assert entry["charges"][0]["event"]["noise_multiplier"] == 20.0
    with pytest.raises(StoreDamaged, match=r"Entry 2 of .* is booked at less than its event costs"):
        Inspection(home.store).books(HEART, whole=True)
    assert gaussian().spending == Spending.of(Gaussian(20.0))
