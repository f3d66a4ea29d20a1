"""Every handler of the app, under every name that Flower would bring to it: none answers without the policy's word."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from real_silo import MODEL, RealSilo, code_of, merged, opened_files

from quire.clients import client_app, contract, member
from quire.clients.answering import Refusal
from quire.clients.arrays import decode, encode
from quire.clients.client_app import SILO_KEY, app
from quire.clients.policy import books
from quire.clients.policy.decide import Refuse
from quire.privacy.receipts import Receipt
from quire.simulation.grid import server_identity
from tests.clients.policy.test_real_silo import NONE, OVERRIDES, Real

SECURE = "aggregation=secure aggregation.max_rows=100"


@pytest.fixture
def silo(tmp_path: Path) -> RealSilo:
    return RealSilo(tmp_path)


def _names() -> list[str]:
    """Return the message types of all handlers of the app, as Flower files them."""
    return sorted(
        category if action == "default" else f"{category}.{action}"
        for category, actions in _handlers().items()
        for action in actions
    )


def _handlers() -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    for name in app._registered_funcs:
        category, _, action = str(name).partition(".")
        found.setdefault(category, {})[action or "default"] = name
    return found


def test_the_app_has_handlers_for_the_stages_of_the_contract_and_no_others() -> None:
    assert set(_names()) == set(contract.STAGES)


def _refused(silo: RealSilo, stage: str, overrides: str) -> str:
    """Send a message that any stage could read, and return the code; the rows must stay closed."""
    content: dict[str, Any] = {
        contract.ARRAYS: encode(MODEL),
        contract.CONFIG: ConfigRecord({contract.ROUND: 1}),
        contract.PROTOCOL: ConfigRecord({contract.MESSAGE: b"x"}),
    }
    node, run = {SILO_KEY: str(silo.folder / "silo.yaml")}, {"overrides": merged(overrides)}
    with server_identity(silo.run), opened_files() as files:
        message = Message(RecordDict(content), 10, stage)
        message.metadata.__dict__["_message_id"] = "m"
        reply = app(message, Context(silo.run, 10, node, silo.state, run))
    assert str(silo.csv) not in files
    return code_of(reply)


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("stage", sorted(contract.STAGES))
def test_no_stage_answers_without_a_decision_on_that_very_stage(
    silo: RealSilo, stage: str, secure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refusing everything, the policy is asked about what the handler does, and the rows stay closed."""
    asked = []

    def refusing(policy: Any, settings: Any, state: Any) -> Refuse:
        asked.append(state.stage)
        return Refuse(contract.Code.POLICY_REFUSED, "modes", "no")

    monkeypatch.setattr(member, "decide", refusing)
    silo.write(aggregation="[plain, secure]")
    code = _refused(silo, stage, SECURE if secure else "")
    if secure == (stage in contract.SECURE_STAGES) or stage not in (contract.TRAIN, *contract.SECURE_STAGES):
        assert (code, asked) == ("POLICY_REFUSED", [stage])
    else:  # an update in clear under secure aggregation, or its messages without it: never, whatever the policy says
        assert (code, asked) == ("SECURE_REFUSED" if secure else "BAD_REQUEST", [])
    assert silo.charges() == []


@pytest.mark.parametrize("stage", sorted({*contract.STAGES, *(f"{name}.default" for name in contract.STAGES)}))
def test_a_silo_whose_policy_refuses_the_run_refuses_every_message_of_it(silo: RealSilo, stage: str) -> None:
    silo.write(modes="[silo]", trusts_server="true")
    try:
        code = silo.refused(stage)
    except ValueError as error:  # Flower's own, before it comes to the app: such a name has too many parts
        code = "BAD_REQUEST" if stage.count(".") > 1 else str(error)
    plain = (contract.QUERY, contract.MOMENTS, contract.TRAIN, contract.EVALUATE)
    assert code == ("POLICY_REFUSED" if stage in plain else "BAD_REQUEST")
    assert silo.charges() == []


@pytest.mark.parametrize("stage", ["train.default", "evaluate.default", "query.default"])
def test_a_handler_under_flowers_own_other_name_gives_nothing_even_where_all_is_allowed(
    tmp_path: Path, stage: str
) -> None:
    """Without privacy every stage is answered; under the name that the books do not know none is, and nothing is read.

    This let a server ask ``train.default`` for one round as often as it liked: fresh noise each time, and no charge.
    """
    real = Real(tmp_path)
    with opened_files() as files:
        assert real.code(stage) == "BAD_REQUEST"
    assert not (tmp_path / "store").exists()
    assert not [name for name in files if "store" in name]
    assert real.code(stage.removesuffix(".default")) == "ANSWERED"


@pytest.mark.parametrize("name", ["train", "evaluate", "query", "moments"])
def test_the_handlers_themselves_decide_on_what_they_do_and_not_on_what_the_message_says(
    silo: RealSilo, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even with the guard on names taken away, a message cannot choose the stage that is decided on."""
    monkeypatch.setattr(contract, "STAGES", contract.STAGES | {f"{name}.default"})
    asked: list[str] = []

    def admit(self: Any, settings: Any, stage: str, *args: Any) -> None:
        asked.append(stage)
        raise Refusal(contract.Code.POLICY_REFUSED)

    monkeypatch.setattr(member.Member, "admit", admit)
    stage = contract.MOMENTS if name == "moments" else name
    sent = stage if name == "moments" else f"{name}.default"
    assert silo.refused(sent) == "POLICY_REFUSED"
    assert asked == [stage]


def test_books_do_not_charge_for_a_stage_that_they_do_not_know(silo: RealSilo) -> None:
    from real_silo import merged

    from quire.clients.data.silo_file import read_operator_of
    from quire.conf.compose import compose

    operator = read_operator_of(silo.folder / "silo.yaml")
    assert operator.policy is not None
    with books.opened(operator, operator.policy, 5, "clinic-1") as found:
        for stage in ("train.default", "evaluate.default", ""):
            with pytest.raises(ValueError, match="no stage that could be charged for"):
                found.enter(stage, compose(merged("")), "0" * 64, 1)
    assert silo.charges() == []


def test_a_real_silo_that_was_not_charged_does_not_train(silo: RealSilo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member.Member, "admit", lambda *args: (None, None))
    assert silo.refused() == "BOOKS_UNUSABLE"


# ------------------------------------------------------------------------- what is charged, and what a receipt shows
def test_each_day_on_which_data_left_without_protection_stands_in_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The period of the policy counts from the last of these days, not from the first."""
    real, now = Real(tmp_path), _Clock(monkeypatch)
    for day, stages in enumerate((("train", "evaluate"), ("evaluate", "evaluate"), ("train",))):
        now.go(20 * day)
        assert [real.code(stage, round_number=day + 1) for stage in stages] == ["ANSWERED"] * len(stages)
    charges = [entry for entry in real.ledger() if entry["kind"] == "charge"]
    assert [entry["time"][:10] for entry in charges] == [now.day(0), now.day(20), now.day(40)]
    assert all(entry["charges"][0]["event"]["kind"] == "non_private" for entry in charges)

    record = NONE.replace("none", "record").replace("}", ", epsilon: 8.0, period_days: 30}")
    run = f"{OVERRIDES} privacy=record privacy.epsilon=1"
    real.write(record)
    for days, code in ((69, "BUDGET_REFUSED"), (70, "ANSWERED")):
        now.go(days)
        assert real.code("query", run) == code


class _Clock:
    """The books' and the ledger's own day, moved on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from quire.clients.store import ledger

        self.begun, self.offset, clock = books.today(), 0, self

        class Moved(ledger.datetime):  # type: ignore[name-defined, misc]
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return super().now(tz) + timedelta(days=clock.offset)

        monkeypatch.setattr(ledger, "datetime", Moved)
        monkeypatch.setattr(books, "today", lambda: self.begun + timedelta(days=self.offset))

    def go(self, days: int) -> None:
        self.offset = days

    def day(self, days: int) -> str:
        found: date = self.begun + timedelta(days=days)
        return found.isoformat()


def test_an_override_that_takes_over_an_unlimited_balance_is_no_charge_of_that_day(tmp_path: Path) -> None:
    from quire.clients.identity import load_identity
    from quire.clients.store.override import reset

    real = Real(tmp_path)
    assert real.code("train") == "ANSWERED"
    reset(tmp_path / "store", "breast", "a test", load_identity(tmp_path / "silo.key"))
    assert real.code("train", round_number=2) == "ANSWERED"
    assert [entry["kind"] for entry in real.ledger()] == ["opening", "charge"]


def test_noise_that_a_seed_decides_costs_everything_over_somebodys_rows(silo: RealSilo) -> None:
    silo.write(test_seed="true", epsilon=44.0)
    for overrides in ("seed=3", ""):
        assert silo.refused("train", overrides) == "BUDGET_REFUSED"
    assert silo.charges() == []


def test_without_a_cap_it_is_let_in_and_the_ledger_says_that_everything_is_spent(silo: RealSilo) -> None:
    silo.write(test_seed="true")
    capped = silo.folder.joinpath("silo.yaml").read_text()
    uncapped = "".join(line for line in capped.splitlines(keepends=True) if not line.startswith("  epsilon:"))
    silo.folder.joinpath("silo.yaml").write_text(uncapped)
    for number in (1, 2):
        reply = silo.ask("train", "seed=3", number)
        body = Receipt.decode(reply.content[contract.IDENTITY][contract.RECEIPT]).body
        assert (body["test_seed"], body["simulated"], body["ledger"]["epsilon"]) == (True, False, "inf")
    assert [charge["charges"][0]["event"] for charge in silo.charges()] == [{"kind": "non_private"}] * 2
    assert silo.refused("train", "seed=3 privacy=none") == "POLICY_REFUSED"  # all other limits hold
    silo.folder.joinpath("silo.yaml").write_text(capped.replace("test_seed: true", "test_seed: false"))
    silo.run += 1
    assert silo.refused() == "BUDGET_REFUSED"  # and no cap fits any more


def test_the_books_charge_it_so_by_themselves(silo: RealSilo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the decision to let it pass, the charge is without limit and does not fit under the cap."""
    silo.write(test_seed="true", epsilon=44.0)
    monkeypatch.setattr(member.Member, "hold", lambda *args: None)
    assert silo.refused() == "BUDGET_REFUSED"
    assert silo.charges() == []


def test_over_data_that_ships_with_quire_a_seed_costs_no_more_than_the_noise(tmp_path: Path) -> None:
    policy = NONE.replace("none", "record").replace("test_seed: false", "test_seed: true, epsilon: 2.0, delta: 1.0e-5")
    real = Real(tmp_path, policy)
    assert real.code("train", f"{OVERRIDES} privacy=record privacy.epsilon=2 seed=3") == "ANSWERED"
    assert real.ledger()[-1]["charges"][0]["event"]["kind"] == "sampled_discrete_gaussian"


def test_a_receipt_tells_what_this_run_spent_and_not_what_the_silo_spent_before(silo: RealSilo) -> None:
    shown = {}
    for run in (5, 55, 6):  # the sum of one is not taken for a part of the other
        silo.run = run
        for number in (1, 2):
            identity = silo.ask("train", "privacy.epsilon=1", number).content[contract.IDENTITY]
            body = Receipt.decode(identity[contract.RECEIPT]).body
            shown[run, number] = body["ledger"]["epsilon"]
            assert body["ledger"]["delta"] == body["delta"] == 1e-4
            assert not body["simulated"]
    assert len(set(shown.values())) == 2
    assert shown[5, 1] == shown[55, 1] == shown[6, 1] < shown[6, 2] < 1.0
    spent = silo.charges()[-1]["charges"][0]["epsilon_after"]
    assert spent > 1.5 * shown[6, 2]


# ------------------------------------------------------------------------------------- what a failure can tell
def test_rows_that_cannot_be_had_are_one_code_whatever_is_wrong_with_them(
    silo: RealSilo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong, and where, stays: the reply is the same to the byte, but for its own name and time."""
    silo.write(epsilon=44.0, max_rounds_per_day=1000)
    good, told = silo.csv.read_bytes(), set()
    rotten = [
        *(good + line for line in (b"x,1\n", b"33\n", b"33,7\n", b"\xff\xfe,1\n", b"nan,1\n", b'"33')),
        *(b"", b"sick,age\n", b"\x00" * 99, b"age,sick\n"),
    ]
    for run, content in enumerate(rotten):
        silo.run = 100 + run
        silo.csv.write_bytes(content)
        told.add(_told(silo.ask()))
    silo.csv.unlink()
    silo.run = 200
    told.add(_told(silo.ask()))
    silo.csv.write_bytes(good)
    for run, error in enumerate((ValueError("4711"), MemoryError("4711"), UnicodeError("4711"), OSError("4711"))):

        def broken(*args: Any, error: Exception = error) -> None:
            raise error

        silo.run = 300 + run
        monkeypatch.setattr(client_app, "load", broken)
        told.add(_told(silo.ask()))
    assert told == {(103, "quire:data_unavailable")}


def _told(reply: Any) -> tuple[int, str]:
    assert code_of(reply) != "ANSWERED"
    return reply.error.code, reply.error.reason


def test_rows_that_change_between_rounds_are_a_code_too(silo: RealSilo) -> None:
    assert silo.code() == "ANSWERED"
    silo.rows(60, "33,1\n")
    assert silo.code(round_number=2) == "DATA_UNAVAILABLE"


def test_what_these_tests_read_is_what_was_sent(silo: RealSilo) -> None:
    update = decode(silo.ask().content[contract.UPDATE])
    assert all(np.isfinite(part).all() for part in update.values())
    assert json.loads(silo.ledger_file.read_text().splitlines()[-1])["kind"] == "charge"
