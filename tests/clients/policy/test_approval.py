"""With `approval: true` a silo answers nothing in a run that its operator has not approved: that run, and no other."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_silo import RealSilo
from typer.testing import CliRunner

from quire import approve_cli, cli
from quire.clients import client_app, contract
from quire.clients.policy.books import Books
from quire.clients.store import decisions
from quire.clients.store.decision_book import FILE, look
from quire.errors import QuireError
from quire.privacy.approval import Statement

NONE = {"epsilon": None, "delta": None}
STAGES = ["query.moments", "train", "evaluate"]


@pytest.fixture
def silo(tmp_path):
    silo = RealSilo(tmp_path)
    silo.write(approval="true")
    return silo


def quire(silo, *words):
    return CliRunner().invoke(cli.app, [*words, "--silo", str(silo.folder / "silo.yaml")], catch_exceptions=True)


def good(silo, *words):
    done = quire(silo, *words)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def refused(silo, *words):
    done = quire(silo, *words)
    assert isinstance(done.exception, QuireError), (done.output, done.exception)
    assert str(done.exception).endswith(".")
    return str(done.exception)


def asked(silo, overrides=""):
    """Return what the answer to `query` says: the code that the silo withholds itself with, and the statement."""
    identity = silo.ask("query", overrides).content["identity"]
    code, statement = identity.get(contract.WITHHELD), identity.get(contract.APPROVAL)
    return (contract.Code(code).name if code else "ANSWERED"), Statement.decode(statement) if statement else None


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_is_answered_before_an_approval_and_no_row_is_opened(silo, stage, monkeypatch, caplog):
    monkeypatch.setattr(client_app, "load", lambda *args: pytest.fail("data was touched"))
    silo.write(modes="[none]", approval="true", **NONE)
    assert silo.refused(stage, "privacy=none") == "AWAITING_APPROVAL"
    assert silo.charges() == []
    assert "policy.approval (silo.yaml, line" in caplog.text
    assert "quire approve --list" in caplog.text


def test_the_question_who_it_is_tells_a_name_and_that_it_waits_and_nothing_else(silo):
    reply = silo.ask("query")
    told = dict(reply.content["identity"])
    assert told == {
        **{"silo": "clinic-1", "code-hash": client_app.CODE_HASH, "contract": 1},
        "withheld": int(contract.Code.AWAITING_APPROVAL),
    }
    assert list(reply.content) == ["identity"]


def test_an_approved_run_goes_on_and_its_reply_carries_a_statement_signed_by_the_silo(silo):
    assert asked(silo) == ("AWAITING_APPROVAL", None)
    assert "Approved: run 5" in good(silo, "approve", "5", "--reason", "vote 26-117", "--by", "anna")
    code, statement = asked(silo)
    assert code == "ANSWERED"
    with silo.open() as store:
        statement.check(store._identity.public)
    assert (statement.body["silo"], statement.body["decision"], statement.body["reason"]) == (
        *("clinic-1", "approved"),
        None,
    )
    assert statement.binding.run == "5"
    assert statement.binding.code == client_app.CODE_HASH
    assert silo.code("train") == "ANSWERED"
    assert "clinic-1" not in good(silo, "approve", "--list")


def test_a_run_is_put_before_its_operator_in_plain_words(silo):
    asked(silo, "privacy.epsilon=1.5")
    for command in ("approve", "reject"):
        said = good(silo, command)
        for words in ("Run 5", "task tabular, model", "from clinic", "record: epsilon 1.5 at delta 0.0001"):
            assert words in said
        for words in ("the server sees this silo's update by itself", "at least 4", "4, by strategy fedavg"):
            assert words in said
        assert client_app.CODE_HASH in said
        assert "quire approve 5 --silo" in said
    assert good(silo, "approve", "5", "--list") == good(silo, "approve")


def test_what_an_approval_does_not_bind_is_shown_by_name_alone(silo):
    asked(silo, "privacy.epsilon=1.5 output.report=false tracking=mlflow tracking.experiment=epsilon:0.1")
    said = good(silo, "approve")
    assert "0.1" not in said
    (bound,) = [line for line in said.splitlines() if line.startswith("  settings ")]
    assert "privacy.epsilon=1.5" in bound
    assert not any(word in bound for word in ("output", "tracking"))
    (beside,) = [line for line in said.splitlines() if line.startswith("  not approved  ")]
    names, _, words = beside.removeprefix("  not approved  ").partition(": ")
    assert sorted(names.split(", ")) == ["output.report", "tracking", "tracking.experiment"]
    assert words == "the server's own affair, not part of what is approved"


@given(st.text())
def test_no_text_is_shown_as_more_than_one_line_or_padded_so_that_it_wraps_like_more(text):
    shown = approve_cli._plain(text)
    assert shown.isprintable()
    assert "  " not in shown
    assert approve_cli._plain("one" + " " * 70 + "two") == "one two"


def test_an_approval_is_for_that_run_alone(silo, monkeypatch):
    asked(silo)
    good(silo, "approve", "5")
    assert asked(silo)[0] == "ANSWERED"
    assert asked(silo, "strategy.rounds=5")[0] == "AWAITING_APPROVAL"  # other settings
    assert silo.refused("train", "privacy.epsilon=1.9") == "AWAITING_APPROVAL"
    silo.run = 6
    assert asked(silo)[0] == "AWAITING_APPROVAL"  # another run
    silo.run = 5
    monkeypatch.setattr(client_app, "CODE_HASH", "c" * 64)
    assert asked(silo)[0] == "AWAITING_APPROVAL"  # other code
    monkeypatch.undo()
    known = Books.__init__
    monkeypatch.setattr(Books, "__init__", lambda self, *args: known(self, *args[:4], 4, "d" * 64))
    assert asked(silo)[0] == "AWAITING_APPROVAL"  # another roster
    monkeypatch.undo()
    assert asked(silo)[0] == "ANSWERED"
    said = refused(silo, "approve", "5")
    assert "4 runs go by 5" not in said
    assert "5 runs go by 5" in said
    book = look(silo.store)
    assert len({matter.request.what for matter in book.matters.values()}) == 6
    one = next(matter for matter in book.pending if matter.request.binding.code == "c" * 64)
    assert one.request.what[:12] in good(silo, "approve", one.request.what[:12])


def test_what_the_policy_refuses_is_put_before_nobody(silo):
    assert silo.code("query", "privacy.epsilon=5") == "BUDGET_REFUSED"
    assert silo.code("query", "strategy.min_silos=2") == "POLICY_REFUSED"
    assert not (silo.store / FILE).exists()
    assert good(silo, "approve") == "No run waits for a decision.\n"


def test_a_rejection_after_a_round_stops_the_run_here_and_another_approval_lets_it_go_on(silo):
    asked(silo)
    good(silo, "approve", "5")
    assert silo.code("train", round_number=1) == "ANSWERED"
    assert "Rejected: run 5" in good(silo, "reject", "5", "--reason", "the vote was withdrawn", "--by", "ben")
    assert silo.refused("train", round_number=2) == "REJECTED"
    code, statement = asked(silo)
    assert (code, statement.body["decision"], statement.body["reason"]) == ("REJECTED", "rejected", None)
    assert len(silo.charges()) == 1
    good(silo, "approve", "5", "--by", "anna")
    assert silo.code("train", round_number=2) == "ANSWERED"
    said = good(silo, "approve", "--list", "--all")
    assert said.index("approved      by") < said.index("rejected      by ben on") < said.index("by anna on")
    assert "the vote was withdrawn" in said


def test_a_reason_travels_where_the_operator_says_so(silo):
    asked(silo)
    good(silo, "reject", "5", "--reason", "ε ist zu groß", "--tell")
    assert asked(silo)[1].body["reason"] == "ε ist zu groß"
    assert "(told to the server)" in good(silo, "approve", "--list", "--all")


def test_a_decision_made_twice_is_said_and_not_written_twice(silo):
    asked(silo)
    good(silo, "approve", "5", "--by", "anna")
    before = (silo.store / FILE).read_bytes()
    assert "is approved (by anna on" in good(silo, "approve", "5", "--by", "ben")
    assert (silo.store / FILE).read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("approve", "7"), "was not asked for a run 7; there wait: 5."),
        (("reject", "\x1b[2J"), "was not asked for a run ?[2J; there wait: 5."),
        (("approve", "abcdef"), "was not asked for a run abcdef"),
        (("approve", "7", "--list"), "was not asked for a run 7"),
        (("approve", "5", "--reason", "one\ntwo"), "one line of at most 500 characters"),
        (("approve", "5", "--reason", "x" * 501), "one line of at most 500 characters"),
        (("approve", "5", "--by", ""), "name yourself with --by"),
        (("reject", "5", "--tell"), "add --reason, or leave out --tell"),
        (("approve", "--begin-anew", "why not"), "is sound: there is no need for a new book"),
    ],
)
def test_every_wrong_input_is_one_sentence_and_decides_nothing(silo, words, said):
    asked(silo)
    assert said in refused(silo, *words)
    assert asked(silo)[0] == "AWAITING_APPROVAL"


def test_a_file_a_key_or_a_store_that_is_not_there(silo, tmp_path):
    assert good(silo, "approve") == "No run waits for a decision.\n"
    assert "was not asked for a run 5; there wait: none." in refused(silo, "approve", "5")
    silo.write()
    assert "demands none" in good(silo, "approve")
    (silo.folder / "silo.yaml").unlink()
    assert "cannot be read" in refused(silo, "approve")


def test_runs_that_wait_are_few(silo, monkeypatch, caplog):
    monkeypatch.setattr(decisions, "MAX_PENDING", 3)
    for silo.run in range(1, 6):
        assert asked(silo)[0] == "AWAITING_APPROVAL"
    assert [matter.request.binding.run for matter in look(silo.store).pending] == ["1", "2", "3"]
    assert "3 runs wait for a decision, and no further one is noted" in caplog.text
    good(silo, "reject", "2")
    assert asked(silo)[0] == "AWAITING_APPROVAL"
    assert "Run 5 (" in good(silo, "approve")


def damaged(text):
    lines = text.splitlines(keepends=True)
    first, *middle, last = lines
    yield "a byte of a line", text.replace('"by":"anna"', '"by":"Anna"')
    yield "the rejection cut off", "".join(lines[:-1])
    yield "a line left out", first + last
    yield "another order", "".join([first, last, *middle])
    yield "a line twice", text + last
    yield "half of a line, ended", text + last[:100] + "\n"
    yield "nothing", ""


@pytest.mark.parametrize("number", range(7))
def test_a_damaged_book_approves_nothing_and_is_given_up_by_the_operator_alone(silo, number, caplog):
    asked(silo)
    good(silo, "approve", "5", "--by", "anna")
    good(silo, "reject", "5", "--by", "ben")
    path = silo.store / FILE
    before = path.read_text()
    name, text = list(damaged(before))[number]
    assert text != before, name
    path.write_text(text)
    assert silo.code("query") == silo.refused("train") == "BOOKS_UNUSABLE"
    assert "--begin-anew" in caplog.text
    for words in (("approve",), ("approve", "5"), ("reject", "5")):
        assert "--begin-anew" in refused(silo, *words)
    assert "kept as" in good(silo, "approve", "--begin-anew", "the disk failed")
    assert (silo.store / "approvals.000.jsonl").read_text() == text
    assert asked(silo)[0] == "AWAITING_APPROVAL"
    assert "the disk failed" in good(silo, "approve", "--list", "--all")
    good(silo, "approve", "5")
    assert asked(silo)[0] == "ANSWERED"
    path.write_text(before)  # the book from before, put back
    assert silo.code("query") == "BOOKS_UNUSABLE"


def test_a_book_that_was_taken_away_approves_nothing(silo):
    asked(silo)
    (silo.store / FILE).unlink()
    assert silo.code("query") == "BOOKS_UNUSABLE"
    assert "not there" in good(silo, "approve", "--begin-anew", "it is gone")
    assert asked(silo)[0] == "AWAITING_APPROVAL"


def test_what_a_crash_left_unfinished_is_cut_off(silo):
    asked(silo)
    path = silo.store / FILE
    before = path.read_bytes()
    path.write_bytes(before + b'{"seq":2,"prev"')
    assert "Run 5 (" in good(silo, "approve")
    good(silo, "approve", "5")
    assert path.read_bytes().startswith(before)
    assert asked(silo)[0] == "ANSWERED"
    assert [json.loads(line)["seq"] for line in path.read_text().splitlines()] == [1, 2]


def test_without_the_field_no_book_is_kept(tmp_path):
    silo = RealSilo(tmp_path)
    assert silo.code("query") == "ANSWERED"
    assert not (silo.store / FILE).exists()
