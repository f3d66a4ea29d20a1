"""``quire erasure`` and ``quire lineage`` as a silo's operator meets them."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from command_line import Call, command_line
from consenting import Consenting

from quire.clients.identity import load_identity
from quire.clients.identity.rosters import Change, first_roster, write_new
from quire.privacy.identity.signed import SignedRoster


@pytest.fixture
def silo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Consenting:
    monkeypatch.chdir(tmp_path)
    return Consenting(tmp_path)


@pytest.fixture
def quire(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    return command_line(monkeypatch, capsys)


def number_in(out: str) -> str:
    return out.split("Request ", 1)[1].split()[0]


def test_from_a_request_to_an_attestation(silo: Consenting, quire: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    one = silo.load().sifted.train_ids[0]
    silo.withdraw(one)
    assert silo.train(1) == "ANSWERED"
    silo.withdraw()
    assert silo.train(2) == "ANSWERED"
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{one}\n"))
    status, out, _ = quire("erasure", "request", "silo.yaml", "--from", "-")
    assert status == 0
    assert "is recorded: the subject's rows are left out from the next message on" in out
    assert "Run 5: rounds 2 to 2 were trained on the subject." in out
    model = silo.lines()[1]["model"]
    assert f"the model after round 1 ({model[:16]})" in out
    assert "`quire submit FOLDER --resume 5` goes on from there" in out
    number = number_in(out)
    assert silo.train(3) == "ANSWERED"

    (silo.folder / "id.txt").write_text(one)
    assert "is about this subject already" in quire("erasure", "request", "silo.yaml", "--from", "id.txt")[1]
    _, out, _ = quire("erasure", "list", "silo.yaml")
    assert out.count(f"Request {number}") == 1
    assert one not in out.split()

    status, out, err = quire("erasure", "attest", "silo.yaml", number, "--out", "a.json", "--say", "rows deleted")
    assert (status, err) == (0, "")
    assert "No proof" in out
    status, out, _ = quire("erasure", "verify", "a.json", "--key", "silo.key.pub")
    assert status == 0
    assert "1 rounds trained since" in out
    assert "The operator says: rows deleted" in out
    assert "An attestation, not a proof." in out
    assert "attested" in quire("erasure", "list", "silo.yaml")[1]


@pytest.mark.parametrize("how", ["file", "standard input"])
def test_a_mark_at_the_beginning_is_no_part_of_the_id(
    silo: Consenting, quire: Call, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    one = silo.load().sifted.train_ids[0]
    (silo.folder / "id.txt").write_text(f"{one}\r\n", encoding="utf-8-sig")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"\ufeff{one}\n"))
    status, out, _ = quire("erasure", "request", "silo.yaml", "--from", "id.txt" if how == "file" else "-")
    assert status == 0
    assert "No row of this silo" not in out
    assert one not in silo.load().sifted.train_ids


def test_a_request_about_nobody_says_so_and_is_recorded(
    silo: Consenting, quire: Call, caplog: pytest.LogCaptureFixture
) -> None:
    (silo.folder / "id.txt").write_text("P3")
    status, out, _ = quire("erasure", "request", "silo.yaml", "--from", "id.txt")
    assert status == 0
    assert "is recorded" in out
    assert "No row of this silo has this id now" in out
    assert silo.train(1) == "ANSWERED"
    assert "1 of 1 requests for erasure are about nobody of the silo's rows" in caplog.text
    silo.csv.unlink()
    (silo.folder / "id.txt").write_text("p4")
    status, out, _ = quire("erasure", "request", "silo.yaml", "--from", "id.txt")
    assert status == 0
    assert "is recorded" in out
    assert "could not be looked up" in out


def test_a_roster_says_who_has_to_have_signed(silo: Consenting, quire: Call) -> None:
    (silo.folder / "id.txt").write_text("p1\n")
    number = number_in(quire("erasure", "request", "silo.yaml", "--from", "id.txt")[1])
    quire("erasure", "attest", "silo.yaml", number, "--out", "a.json")
    admin = load_identity(silo.folder / "silo.key")
    for name, status in (("clinic-1", 0), ("clinic-2", 2)):
        roster = first_roster("heart", Change(members={name: admin.public}, admins={"admin": admin.public}))
        write_new(silo.folder / f"{name}.json", SignedRoster(roster, ()).sign(admin))
        found, _, err = quire("erasure", "verify", "a.json", "--roster", f"{name}.json")
        assert found == status
        assert status == 0 or "has no member 'clinic-1'" in err


def test_lineage_shows_counts_and_no_subject(silo: Consenting, quire: Call) -> None:
    assert "has no lineage" in quire("lineage", "silo.yaml")[1]
    silo.withdraw("p3", "p4")
    assert silo.train(1) == "ANSWERED"
    status, out, _ = quire("lineage", "silo.yaml")
    assert status == 0
    assert {"60", "2", "5"} <= set(out.split())
    (line,) = [json.loads(text) for text in quire("lineage", "silo.yaml", "--run", "5", "--json")[1].splitlines()]
    assert (line["came"], line["left_out"]) == (60, {"withdrawn": 2})
    assert "has no lineage of run 6" in quire("lineage", "silo.yaml", "--run", "6")[1]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("request", "silo.yaml", "--from", "nothing.txt"), "nothing.txt cannot be read"),
        (("request", "silo.yaml", "--from", "silo.key"), "does not hold one subject id"),
        (("request", "silo.yaml", "--from", "unseen.txt"), "does not hold one subject id"),
        (("request", "plain.yaml", "--from", "id.txt"), "has no 'consent'"),
        (("attest", "silo.yaml", "0123456789abcdef", "--out", "a.json"), "has no request 0123456789abcdef"),
        (("verify", "silo.yaml", "--key", "silo.key.pub"), "no attestation of an erasure"),
        (("verify", "nothing.json", "--key", "silo.key.pub"), "nothing.json cannot be read"),
    ],
)
def test_a_mistake_is_one_sentence(silo: Consenting, quire: Call, args: tuple[str, ...], says: str) -> None:
    (silo.folder / "id.txt").write_text("p1")
    (silo.folder / "unseen.txt").write_text("p\u200b1")
    (silo.folder / "plain.yaml").write_text("name: clinic-1\ndata: {connector: csv, path: rows.csv}\n")
    status, _, err = quire("erasure", *args)
    assert status == 2
    assert says in err
    assert err.startswith("quire: ")
    assert err.count("\n") == 1


def test_the_id_is_asked_for_unseen(silo: Consenting) -> None:
    """At a terminal, and no process ever has it among its arguments."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "quire", "erasure", "request", str(silo.folder / "silo.yaml")],
        stdin=child,
        stdout=child,
        stderr=child,
        cwd=Path(__file__).resolve().parent.parent,
        env=os.environ,
    )
    os.close(child)
    seen = b""
    deadline = time.monotonic() + 60
    while b"Subject id" not in seen:
        assert time.monotonic() < deadline, seen
        seen += os.read(parent, 1024)
    while termios.tcgetattr(parent)[3] & termios.ECHO:  # the prompt is out a moment before
        assert time.monotonic() < deadline, seen
        time.sleep(0.01)
    os.write(parent, b"p1-Ottoline\n")
    while True:
        try:
            more = os.read(parent, 1024)
        except OSError:
            break
        if not more:
            break
        seen += more
    os.close(parent)
    assert process.wait(60) == 0, seen
    assert b"is recorded" in seen
    assert b"Ottoline" not in seen
