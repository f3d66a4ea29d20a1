"""Silos whose operators decide on each run: who is waited for, what is believed of their statements."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from fake_grid import FakeGrid, identity
from flwr.app import Error
from hypothesis import given
from hypothesis import strategies as st

from quire.clients.contract import Code
from quire.conf.compose import compose
from quire.errors import RunFailed
from quire.privacy.approval import ApprovalStatementError, Binding, Statement
from quire.privacy.identity.keys import PrivateIdentity
from quire.privacy.receipts import settings_hash, simulated_identity, simulated_roster
from quire.strategies import approvals as module
from quire.strategies.approvals import APPROVALS_FILE, Approvals
from quire.strategies.cohort import enrol
from quire.strategies.reading import Unusable

SETTINGS = compose("strategy.deadlines=[approval:60]")
CODE, ROSTER = "c" * 64, simulated_roster(1, ["a", "b", "c"])
HERE = Binding("5", CODE, settings_hash(SETTINGS.as_dict()), ROSTER.hash)
AWAITING, REJECTED = 118, 119


def said(name, decision="approved", reason=None, binding=HERE, signer=None):
    return Statement.sign(binding, name, decision, 1763757962, reason, signer or simulated_identity(1, name))


def answer(name, statement=None, **more):
    told = {} if statement is None else {"approval": statement.encode()}
    return {**identity(name, CODE), **told, **more}


class Deciding(FakeGrid):
    """Nodes that answer otherwise from the n-th time on that they are asked."""

    def __init__(self, *answers):
        super().__init__(dict(answers[0]))
        self.later, self.asked = list(answers[1:]), []

    def push_messages(self, messages):
        if self.asked:
            self.answers |= self.later.pop(0) if self.later else {}
        self.asked.append([message.metadata.dst_node_id for message in messages])
        return super().push_messages(messages)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(module, "_SHORTEST_PAUSE", 0.001)


def about(settings=SETTINGS, roster=ROSTER):
    return Approvals.of("5", CODE, settings, roster)


def ask(grid, approvals, minimum=2, timeout=20.0):
    return enrol(grid, len(grid.answers), minimum, CODE, timeout, simulated=False, approvals=approvals)


WAITING = {1: answer("a"), 2: answer("b", withheld=AWAITING), 3: answer("c", withheld=AWAITING)}


def test_those_who_have_not_decided_are_asked_again_and_they_alone(caplog):
    caplog.set_level(logging.WARNING, "quire.strategies")
    grid, found = Deciding(WAITING, {3: answer("c", said("c"))}, {2: answer("b", said("b"))}), about()
    enrolled, failed = ask(grid, found)
    assert (enrolled.names, failed) == (["a", "b", "c"], [])
    assert grid.asked == [[1, 2, 3], [2, 3], [2]]
    assert "Waiting up to 60 seconds for the approval of b, c: `quire approve 5` at the silo." in caplog.text
    assert "for the approval of b:" in caplog.text
    assert sorted(found.statements) == ["b", "c"]
    lines = found.encode().splitlines()
    assert [Statement.decode(line).body["silo"] for line in lines] == ["b", "c"]


def test_without_a_deadline_nobody_is_waited_for_and_a_run_that_fails_names_who_is_missing():
    grid = Deciding(WAITING)
    with pytest.raises(
        RunFailed,
        match=r"1 of 3 silos could be enrolled, 2 are needed: b: its operator has not approved this run yet; c: its "
        r"operator has not approved this run yet\. A run is approved at each silo \(`quire approve 5`; "
        r"strategy\.deadlines=\[approval:SECONDS\] lets a run wait for it\)\.",
    ):
        ask(grid, about(compose("")))
    assert len(grid.asked) == 1
    enrolled, failed = ask(Deciding(WAITING), about(compose("")), minimum=1)
    assert (enrolled.names, [failure.silo for failure in failed]) == (["a"], ["b", "c"])


def test_when_the_time_is_over_the_run_begins_with_who_has_approved():
    short = compose("strategy.deadlines=[approval:0.3]")
    binding = replace(HERE, settings=settings_hash(short.as_dict()))
    enrolled, failed = ask(Deciding(WAITING, {2: answer("b", said("b", binding=binding))}), about(short))
    assert enrolled.names == ["a", "b"]
    assert [(failure.silo, failure.code) for failure in failed] == [("c", "awaiting_approval")]


def test_a_rejection_is_not_waited_for_and_says_why_where_it_may():
    why = said("b", "rejected", "ε ist zu groß")
    grid, found = Deciding(WAITING, {2: answer("b", why, withheld=REJECTED), 3: answer("c", said("c"))}), about()
    enrolled, failed = ask(grid, found)
    assert enrolled.names == ["a", "c"]
    (failure,) = failed
    assert (failure.silo, failure.code) == ("b", "rejected")
    assert failure.words == "its operator has rejected this run: 'ε ist zu groß'"
    assert {silo: one.body["decision"] for silo, one in found.statements.items()} == {"b": "rejected", "c": "approved"}


def test_nobody_is_waited_for_once_it_is_in_vain(caplog):
    grid = Deciding(WAITING, {2: answer("b", said("b", "rejected"), withheld=REJECTED)})
    with pytest.raises(RunFailed, match=r"b: its operator has rejected this run; c: its operator has not approved"):
        ask(grid, about(), minimum=3)
    assert len(grid.asked) == 2
    assert "2 silos can still take part, and 3 have to." in caplog.text


def test_a_silo_that_does_not_answer_while_it_is_waited_for_is_still_waited_for():
    grid = Deciding(WAITING, {2: {}, 3: answer("c", said("c"))}, {2: answer("b", said("b"))})
    enrolled, failed = ask(grid, about(), timeout=0.2)
    assert (enrolled.names, failed) == (["a", "b", "c"], [])


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5, 6, 8, 77, Code.BOOKS_UNUSABLE, Code.INTERNAL, Code.DATA_UNAVAILABLE])
def test_an_error_that_passes_loses_no_silo_that_is_waited_for(code):
    grid = Deciding(WAITING, {2: Error(code), 3: answer("c", said("c"))}, {2: answer("b", said("b"))})
    enrolled, failed = ask(grid, about())
    assert (enrolled.names, failed) == (["a", "b", "c"], [])


@pytest.mark.parametrize("code", [7, Code.POLICY_REFUSED, Code.CODE_REFUSED, Code.BUDGET_REFUSED, Code.CHARTER_TERMS])
def test_who_refuses_while_it_is_waited_for_is_waited_for_no_more(code):
    grid = Deciding(WAITING, {2: Error(code), 3: answer("c", said("c"))})
    enrolled, failed = ask(grid, about())
    assert (enrolled.names, [failure.silo for failure in failed]) == (["a", "c"], ["node 2"])
    assert len(grid.asked) == 2


def test_a_run_that_goes_on_adds_its_approvals_to_those_of_the_run_before(tmp_path):
    before, now = about(), Approvals.of("6", CODE, SETTINGS, ROSTER)
    before.keep(tmp_path)
    assert list(tmp_path.iterdir()) == []
    before.take("b", said("b").encode(), "approved")
    now.take("a", said("a", binding=replace(HERE, run="6")).encode(), "approved")
    for found in (before, now, now):
        found.keep(tmp_path)
    assert (tmp_path / APPROVALS_FILE).read_bytes() == before.encode() + now.encode()


def test_a_name_is_not_taken_twice_while_one_waits():
    grid = Deciding(WAITING, {2: answer("a", said("a")), 3: answer("c", said("c"))})
    enrolled, failed = ask(grid, about())
    assert enrolled.names == ["a", "c"]
    assert [failure.code for failure in failed] == ["name_taken"]


@pytest.mark.parametrize(
    "wrong",
    [
        said("b", binding=replace(HERE, run="6")),
        said("b", binding=replace(HERE, code="d" * 64)),
        said("b", binding=replace(HERE, settings=settings_hash(compose("strategy.rounds=99").as_dict()))),
        said("b", binding=replace(HERE, roster="d" * 64)),
        said("b", "rejected"),
        said("a"),
        said("b", signer=simulated_identity(1, "a")),
        said("b", signer=PrivateIdentity.from_seed(b"another".ljust(32))),
        replace(said("b"), body={**said("b").body, "time": 1}),
    ],
)
def test_an_approval_of_another_run_or_by_somebody_else_counts_for_nothing(wrong):
    found = about()
    with pytest.raises(Unusable, match="its statement of a decision cannot be taken"):
        found.take("b", wrong.encode(), "approved")
    grid = Deciding({1: answer("a"), 2: answer("b", wrong), 3: answer("c")})
    enrolled, failed = ask(grid, found)
    assert enrolled.names == ["a", "c"]
    assert [(failure.silo, failure.code) for failure in failed] == [("node 2", "bad_approval")]
    assert found.statements == {}


def test_without_a_roster_signatures_are_not_checked_and_the_rest_is():
    found = about(roster=None)
    found.take("b", said("b", signer=simulated_identity(1, "a")).encode(), "approved")
    with pytest.raises(Unusable, match="another run"):
        found.take("b", said("b", binding=replace(HERE, run="6")).encode(), "approved")
    with pytest.raises(Unusable, match="no such member"):
        about().take("stranger", said("stranger").encode(), "approved")


@pytest.mark.parametrize("code", [1, 100, 10**9, "x", [1]])
def test_a_code_that_is_none_is_no_answer(code):
    enrolled, failed = ask(Deciding({1: answer("a"), 2: answer("b"), 3: answer("c", withheld=code)}), about())
    assert enrolled.names == ["a", "b"]
    assert [failure.code for failure in failed] == ["malformed"]


# ------------------------------------------------------------------------------------- the hash, and statements
DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
BINDINGS = st.builds(Binding, st.integers(0, 2**64).map(str), DIGESTS, DIGESTS, st.one_of(st.none(), DIGESTS))


@given(BINDINGS, BINDINGS, st.sampled_from(["run", "code", "settings", "roster"]))
def test_the_hash_binds_to_every_part(one, other, part):
    changed = replace(one, **{part: getattr(other, part)})
    assert (changed.hash == one.hash) == (changed == one)
    assert len(one.hash) == 64


CHANGES = [
    *("task=diabetes", "task.model=mlp", "task.hidden=[7]", "partition.silos=6", "data.preprocessing=per_silo"),
    *("strategy=fedprox", "strategy.rounds=7", "strategy.min_silos=3", "strategy.fraction=0.5", "strategy.server_lr=2"),
    *("strategy.deadlines=[approval:7]", "training.lr=0.5", "training.batch_size=3", "training.steps=9", "seed=9"),
    *(
        "privacy=record",
        "privacy=silo privacy.delta=1e-5",
        "privacy=record privacy.epsilon=1",
        "privacy=record privacy.delta=1e-6",
    ),
    *("privacy=record privacy.clip=0.5", "aggregation=secure", "aggregation=secure aggregation.colluders=2"),
    "strategy.fraction_evaluate=0",
]


def test_every_setting_that_matters_changes_the_hash_and_what_the_launcher_keeps_does_not():
    def bound(overrides):
        return replace(HERE, settings=settings_hash(compose(overrides).as_dict())).hash

    found = [bound(change) for change in ("", *CHANGES)]
    assert len(set(found)) == len(found)
    assert bound("output.baselines=false") == bound("tracking=tensorboard") == bound("")


@given(st.integers(0, 10**4), st.integers(0, 7))
def test_no_bit_of_a_statement_can_change(place, bit):
    data = bytearray(said("b", "rejected", "so").encode())
    data[place % len(data)] ^= 1 << bit
    with pytest.raises(ApprovalStatementError):
        Statement.decode(bytes(data)).check(simulated_identity(1, "b").public)


@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
def test_whatever_the_bytes_are_they_are_refused_in_a_sentence(data):
    with pytest.raises(ApprovalStatementError, match=r"\.$"):
        Statement.decode(data)


@pytest.mark.parametrize("reason", ["", " ", "two\nlines", "x" * 501])
def test_a_reason_is_one_line(reason):
    with pytest.raises(ApprovalStatementError):
        said("b", reason=reason)
