"""A store that was put back is found by the silo's own receipts of earlier runs, which a server shows it again."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from real_silo import RealSilo, code_of, merged

from quire.clients import contract
from quire.clients.client_app import SILO_KEY, app
from quire.clients.identity import load_identity, new_identity
from quire.clients.store import ledger
from quire.clients.store.override import reset
from quire.privacy.identity.ephemeral import ephemeral_roster
from quire.privacy.identity.roster import Member, Roster
from quire.privacy.receipts import Receipt
from quire.simulation.grid import server_identity
from quire.strategies.witnessed import newest_receipts


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[RealSilo, bytes, bytes]:
    """A silo that trained two rounds, its receipts; a copy of its store after the first lies beside it."""
    silo = RealSilo(tmp_path_factory.mktemp("silo"))
    receipts = []
    for number in (1, 2):
        reply = silo.ask(round_number=number)
        receipts.append(bytes(reply.content[contract.IDENTITY][contract.RECEIPT]))
        if number == 1:
            shutil.copytree(silo.store, silo.folder / "backup")
    return silo, *receipts


def asked(silo: RealSilo, *witnessed: object) -> str:
    content = {contract.CONFIG: ConfigRecord({contract.WITNESSED: list(witnessed)})} if witnessed else {}
    context = Context(9, 10, {SILO_KEY: str(silo.folder / "silo.yaml")}, RecordDict(), {"overrides": merged("")})
    with server_identity(9):
        message = Message(RecordDict(content), 10, contract.QUERY)
        message.metadata.__dict__["_message_id"] = "m"
        return code_of(app(message, context))


def test_a_store_that_was_put_back_is_refused_with_what_to_do(trained, tmp_path, caplog) -> None:
    silo, first, second = trained
    assert asked(silo, first, second) == "ANSWERED"
    newest = tmp_path / "newest"
    shutil.move(silo.store, newest)
    try:
        shutil.copytree(silo.folder / "backup", silo.store)
        assert asked(silo) == "ANSWERED"  # by itself it agrees with itself
        assert asked(silo, first) == "ANSWERED"
        assert asked(silo, first, second) == "BOOKS_UNUSABLE"
        assert "this silo's own receipt for round 2 of run 5 has seen 3: an old copy was put back" in caplog.text
        assert "override with `quire ledger reset`" in caplog.text
        shutil.rmtree(silo.store)
        assert asked(silo, second) == "BOOKS_UNUSABLE"  # nor is a new store a way out
    finally:
        shutil.rmtree(silo.store, ignore_errors=True)
        shutil.move(newest, silo.store)
    assert asked(silo, second) == "ANSWERED"


def test_nobody_else_can_keep_a_silo_out(trained, tmp_path) -> None:
    silo, _, second = trained
    stranger = new_identity(tmp_path / "stranger.key")
    body = json.loads(second)["body"]
    body["ledger"] = {**body["ledger"], "entries": 99, "head": "ab" * 32}
    forged = Receipt.sign(body, load_identity(tmp_path / "stranger.key"))
    assert asked(silo, forged.encode()) == "ANSWERED"
    ours = json.loads(second)["signer"]
    assert ours != stranger.fingerprint
    taken = {**json.loads(forged.encode()), "signer": ours}
    assert asked(silo, json.dumps(taken, sort_keys=True, separators=(",", ":")).encode()) == "ANSWERED"


def test_what_is_no_receipt_is_a_bad_request(trained) -> None:
    silo, first, _ = trained
    assert asked(silo, b"{}") == "BAD_REQUEST"
    assert asked(silo, first[:-1]) == "BAD_REQUEST"


def test_what_the_server_finds_of_a_silo_tells_that_silo_that_it_was_put_back(trained, tmp_path: Path) -> None:
    """From the journal to the refusal, with receipts of others beside it that never reach this silo."""
    silo, first, second = trained
    key = load_identity(silo.folder / "silo.key")
    strangers, keys = ephemeral_roster(b"s" * 32, ["clinic-2"])
    admin = strangers.admins[0]
    roster = Roster("r", 1, (Member(0, "clinic-1", key.public), replace(strangers.members[0], index=1)), (admin,), 1, 2)
    body = json.loads(first)["body"]
    others = Receipt.sign({**body, "silo": "clinic-2"}, keys["clinic-2"]).encode()
    lines = [{"clinic-1": first}, {"clinic-1": second, "clinic-2": others}]
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / "metrics.jsonl").write_text(
        "".join(
            json.dumps({"receipts": {name: base64.b64encode(data).decode() for name, data in line.items()}}) + "\n"
            for line in lines
        )
    )
    shown = newest_receipts(tmp_path / "new", roster)
    assert shown == {"clinic-1": [second], "clinic-2": [others]}
    newest = tmp_path / "newest"
    shutil.move(silo.store, newest)
    try:
        shutil.copytree(silo.folder / "backup", silo.store)
        assert asked(silo, *shown["clinic-2"]) == "ANSWERED"
        assert asked(silo, *shown["clinic-1"]) == "BOOKS_UNUSABLE"
    finally:
        shutil.rmtree(silo.store, ignore_errors=True)
        shutil.move(newest, silo.store)


def test_who_has_no_newer_copy_goes_on_after_an_override(trained, tmp_path) -> None:
    silo, first, second = trained
    newest = tmp_path / "newest"
    shutil.move(silo.store, newest)
    key = load_identity(silo.folder / "silo.key")
    try:
        for copy in (silo.folder / "backup", None):  # an old one, and none at all
            shutil.rmtree(silo.store, ignore_errors=True)
            if copy is not None:
                shutil.copytree(copy, silo.store)
            assert asked(silo, first, second) == "BOOKS_UNUSABLE"
            done = reset(silo.store, "clinic", "the disk failed", key)
            assert "A receipt of this silo's own has seen 3 entries." in done.found
            assert asked(silo, first, second) == "ANSWERED"
            assert asked(silo, second) == "ANSWERED"
            assert not list((silo.store / "ledger").glob("*shown*"))
    finally:
        shutil.rmtree(silo.store, ignore_errors=True)
        shutil.move(newest, silo.store)


def test_a_note_that_was_tampered_with_is_said_and_not_believed(trained, tmp_path) -> None:
    silo, first, second = trained
    newest = tmp_path / "newest"
    shutil.move(silo.store, newest)
    try:
        shutil.copytree(silo.folder / "backup", silo.store)
        assert asked(silo, second) == "BOOKS_UNUSABLE"
        note = silo.store / "ledger" / "clinic:shown.json"
        note.write_bytes(note.read_bytes().replace(b":3,", b":9,"))
        done = reset(silo.store, "clinic", "the disk failed", load_identity(silo.folder / "silo.key"))
        assert "clinic:shown.json is not what was written." in done.found
        assert asked(silo, second) == "BOOKS_UNUSABLE"  # and is noted anew
        reset(silo.store, "clinic", "once more", load_identity(silo.folder / "silo.key"))
        assert asked(silo, first, second) == "ANSWERED"
    finally:
        shutil.rmtree(silo.store, ignore_errors=True)
        shutil.move(newest, silo.store)


def test_however_many_receipts_are_shown_the_ledger_is_read_once(trained, monkeypatch) -> None:
    silo, first, second = trained
    reads: list[int] = []
    before = ledger.read_ledger
    monkeypatch.setattr(ledger, "read_ledger", lambda *given, **more: reads.append(1) or before(*given, **more))
    asked(silo, first)
    alone = len(reads)
    reads.clear()
    assert asked(silo, first, *[second] * 20) == "ANSWERED"
    assert len(reads) == alone
