"""A silo's page beside the commands that say the same, and over books that cannot be used."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Call, command_line
from consenting import Consenting
from dashboard_places import silos
from dashboards import Browser, browser, leave_run, snapshot
from real_silo import RealSilo

from quire.clients.data.consent.sieve import REASONS
from quire.dashboard.journal import read_journal
from quire.dashboard.pictures import drawn
from quire.dashboard.roles import Place, Role
from quire.dashboard.views import Folder


@pytest.fixture
def quire(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    return command_line(monkeypatch, capsys)


@pytest.fixture
def silo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    return silos(tmp_path)


def text_of(page: str) -> str:
    """Return what is written in a page, without its tags."""
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def test_it_says_what_the_commands_say(silo: Path, quire: Call) -> None:
    text = text_of(browser(silo, Role.MEMBER).ask("/").text)
    _, shown, _ = quire("ledger", "show", str(silo / "silo.yaml"))
    row = next(line.split() for line in shown.splitlines() if line.startswith("record"))
    runs, rounds, spent, now, budget, left = row[1:]
    told = re.search(r"record (\d+) (\d+) (\S+) (\S+) (\S+) (\S+)", text)
    assert told is not None
    assert (told[1], told[2], told[5]) == (runs, rounds, budget)
    for one, other in ((told[3], spent), (told[4], now), (told[6], left)):
        assert float(one) == pytest.approx(float(other), rel=5e-3)
    _, waiting, _ = quire("approve", "--silo", str(silo / "silo.yaml"))
    (run, what) = re.findall(r"Run (\d+) \((\w{12})\)", waiting)[0]
    assert f"Run {run} {what} , asked" in text
    assert "1 run waits for your decision." in text


def test_what_it_refuses_is_read_as_the_silo_logs_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    (tmp_path / "clinic").mkdir()
    own = RealSilo(tmp_path / "clinic")
    assert own.code(overrides="privacy.epsilon=9") == "BUDGET_REFUSED"
    logged = next(message for message in caplog.messages if "BUDGET_REFUSED" in message)
    (own.folder / "run" / "log").mkdir(parents=True)
    gate = "2026-01-31 12:00:01,123 gate INFO: Answered train with BUDGET_REFUSED"
    (own.folder / "run" / "log" / "gate.log").write_text(f"{logged}\n{gate}\n")
    text = text_of(browser(own.folder, Role.MEMBER).ask("/").text)
    assert "this run would make it" in text
    assert "train budget_refused policy.epsilon (silo.yaml, line" in text


def test_lineage_is_shown_to_who_may_see_it_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    (tmp_path / "clinic").mkdir()
    own = Consenting(tmp_path / "clinic")
    assert own.train(1) == "ANSWERED"
    own.withdraw("p3", "p4")
    assert own.train(2) == "ANSWERED"
    user = browser(own.folder, Role.MEMBER)
    before = snapshot(own.folder)
    text = text_of(user.ask("/").text)
    assert snapshot(own.folder) == before
    lines = own.lines()
    assert lines[1]["left_out"]["withdrawn"] == 2
    for line in lines:
        out = " ".join(str(line["left_out"].get(why, 0)) for why in REASONS)
        moment = line["time"].replace("T", " ")[:19]
        row = f"{line['round']} {moment} {line['came']} {out} {line['trained']} {line['scored']}"
        assert row in text
    assert "Data lineage" not in browser(own.folder, Role.OPERATOR).ask("/").text
    (own.store / "consent" / "lineage.jsonl").write_text("<script>\n")
    answer = browser(own.folder, Role.AUDITOR).ask("/")
    assert answer.status == 200
    assert 'class="trouble"' in answer.text
    assert "<script" not in answer.text


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no silo.yaml that can be read": (lambda silo: (silo / "silo.yaml").write_text("{["), "silo.yaml"),
    "a ledger cut off": (lambda silo: _cut(silo / "store" / "ledger" / "clinic.jsonl"), "clinic.jsonl"),
    "a store without its heads": (lambda silo: (silo / "store" / "heads.json").unlink(), "heads.json"),
    "a book of decisions cut off": (
        lambda silo: (silo / "store" / "approvals.jsonl").write_bytes(b""),
        "an old copy was put back",
    ),
    "a book of decisions that is none": (
        lambda silo: (silo / "store" / "approvals.jsonl").write_bytes(b"<script>\n"),
        "Line 1 of store/approvals.jsonl",
    ),
    "a log of the gate that is a link": (
        lambda silo: (
            (silo / "run" / "log" / "gate.log").unlink(),
            (silo / "run" / "log" / "gate.log").symlink_to("/etc/passwd"),
        ),
        "gate.log cannot be read",
    ),
    "a key that others can read": (lambda silo: (silo / "silo.key").chmod(0o644), "chmod 600 silo.key"),
    "a certificate that is none": (lambda silo: (silo / "tls" / "client.pem").write_text("x"), "client.pem"),
    "a memory of logs that is none": (
        lambda silo: next((silo / "store" / "logs").iterdir()).write_text("x"),
        "damaged, or being written",
    ),
    "no store yet": (
        lambda silo: (silo / "store").rename(silo.parent / "elsewhere"),
        "No run waits for your decision.",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_books_that_cannot_be_used_are_a_sentence_and_the_rest_stands(silo: Path, what: str) -> None:
    damage, words = DAMAGE[what]
    damage(silo)
    user = browser(silo, Role.MEMBER)
    before = snapshot(silo)
    answer = user.ask("/")
    assert answer.status == 200
    assert words in text_of(answer.text)
    assert "Data lineage" in answer.text
    assert "root:" not in answer.text
    assert "<script" not in answer.text
    assert str(silo.parent) not in answer.text
    assert snapshot(silo) == before


def test_a_silo_has_no_pages_of_runs(silo: Path) -> None:
    leave_run(silo / "runs" / "7", rounds=0)
    user = browser(silo, Role.MEMBER)
    assert "/run/" not in user.ask("/").text
    assert Folder.of(silo).place is Place.SILO
    assert isinstance(user, Browser)


def test_who_may_not_see_single_silos_gets_no_line_of_them_either(tmp_path: Path) -> None:
    run = leave_run(tmp_path / "7")
    journal = read_journal(run / "metrics.jsonl")
    whole, mean = (drawn(one, run)[0] for one in (journal, journal.without_silos()))
    assert [title for title, _ in whole] == [title for title, _ in mean] == ["Accuracy", "Loss"]
    for (_, with_silos), (_, without) in zip(whole, mean, strict=True):
        assert with_silos.count("var(--alone)") == 2
        assert "var(--alone)" not in without
    # A last round without scores by silo does not make the two the same drawing.
    with (run / "metrics.jsonl").open("a") as file:
        line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        file.write(json.dumps(line | {"round": 3, "silos": {}}) + "\n")
    journal = read_journal(run / "metrics.jsonl")
    by_silo, none = (drawn(one, run)[0] for one in (journal, journal.without_silos()))
    assert "var(--alone)" in str(by_silo)
    assert "var(--alone)" not in str(none)
    assert ' style="' not in "".join(str(svg) for _, svg in [*whole, *mean])
