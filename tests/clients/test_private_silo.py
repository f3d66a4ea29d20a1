"""A real silo under ``privacy=record``: what leaves, what is refused before data is touched, what no byte may hold."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_silo import POLICY, RECORDS, RealSilo, all_bytes, code_of, merged, opened_files

from quire.clients import client_app, contract, work
from quire.clients.arrays import byte_size, decode
from quire.clients.store import Unit
from quire.errors import DataError
from quire.privacy.identity.errors import IdentityError
from quire.privacy.receipts import Receipt

CANARY = "Ottoline-4711"


@pytest.fixture
def silo(tmp_path: Path) -> RealSilo:
    return RealSilo(tmp_path)


# ------------------------------------------------------------------------------------------------ what leaves
def test_a_reply_holds_the_update_and_public_figures_and_nothing_else(silo: RealSilo) -> None:
    reply = silo.ask()
    assert set(reply.content) == {contract.UPDATE, contract.IDENTITY}
    identity = reply.content[contract.IDENTITY]
    expected = {contract.SILO, contract.CODE_HASH, contract.CONTRACT, contract.SCHEMA, contract.RECORDS}
    assert set(identity) == {*expected, contract.RECEIPT}
    assert identity[contract.RECORDS] == RECORDS
    receipt = Receipt.decode(identity[contract.RECEIPT])
    receipt.check(_public(silo))
    assert receipt.body["broken_gradients"] is None
    assert receipt.body["ledger"]["entries"] == len(silo.ledger()) == 2
    assert set(silo.ask("query").content) == {contract.IDENTITY}


def _public(silo: RealSilo) -> Any:
    from quire.clients.identity import read_key_file

    return read_key_file(silo.folder / "silo.key.pub").public()


def test_the_rows_that_there_really_are_show_in_nothing_but_the_update(tmp_path: Path) -> None:
    """Many more rows, or a single one to train on: the same public figures but for the ledger's hash, the same size."""
    bodies = []
    for count in (2, 25, 600):
        (tmp_path / str(count)).mkdir()
        silo = RealSilo(tmp_path / str(count))
        silo.rows(count)
        reply = silo.ask()
        identity = dict(reply.content[contract.IDENTITY])
        body = dict(Receipt.decode(identity.pop(contract.RECEIPT)).body)
        body["ledger"] = {**body["ledger"], "head": ""}
        bodies.append((body, identity, byte_size(reply.content[contract.UPDATE])))
    assert bodies[0] == bodies[1] == bodies[2]


def test_it_is_charged_and_on_the_disk_before_its_rows_are_opened(
    silo: RealSilo, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    fsync, load = os.fsync, client_app.load

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        seen.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(client_app, "load", lambda *args: seen.append("rows") or load(*args))
    assert silo.code() == "ANSWERED"
    first = seen.index("rows")
    assert seen.index("counters.jsonl") < [i for i, name in enumerate(seen) if name == "clinic.jsonl"][-1] < first
    assert "heads.json.new" in seen[:first]
    assert len(silo.charges()) == 1


def test_every_run_draws_noise_of_its_own(silo: RealSilo) -> None:
    silo.write(epsilon=44.0)
    updates = []
    for run in range(3):
        silo.run = 10 + run
        updates.append(decode(silo.ask().content[contract.UPDATE])["0.weight"].item())
    assert len(set(updates)) == 3


# --------------------------------------------------------------------------------------------- what is refused
REFUSED: list[tuple[dict[str, object], str, str]] = [
    ({}, "privacy.epsilon=4.5", "BUDGET_REFUSED"),  # less noise than the budget has room for
    ({"min_noise": 3.0}, "", "POLICY_REFUSED"),
    ({}, "privacy.epsilon=inf", "POLICY_REFUSED"),
    ({"min_noise": 0}, "privacy.epsilon=inf", "BUDGET_REFUSED"),
    ({}, "privacy.delta=1e-3", "BUDGET_REFUSED"),
    ({"delta": 0.016}, "privacy.delta=0.017", "BUDGET_REFUSED"),  # more than one over its 60 records
    ({}, "privacy.clip=1.5", "POLICY_REFUSED"),
    ({}, "strategy.rounds=101", "ROUNDS_REFUSED"),
    ({}, "strategy.rounds=100 training.steps=1000000 privacy.epsilon=0.001", "POLICY_REFUSED"),  # no noise reaches that
    ({}, "training.batch_size=61", "POLICY_REFUSED"),
    ({}, "strategy.min_silos=3", "POLICY_REFUSED"),
    ({"colluders": 2}, "strategy.min_silos=3", "POLICY_REFUSED"),
    ({}, "privacy=silo privacy.delta=1e-5", "POLICY_REFUSED"),
    ({}, "privacy=none", "POLICY_REFUSED"),  # the population has a finite cap, and `none` stands alone
    ({}, "seed=3", "SEED_REFUSED"),
    ({"code": f"['{'0' * 64}']"}, "", "CODE_REFUSED"),
    ({}, "data.preprocessing=per_silo", "SETTINGS_REFUSED"),
    ({}, "strategy=scaffold", "SETTINGS_REFUSED"),
    ({}, "privacy.epsilon=0", "SETTINGS_REFUSED"),
    ({}, "privacy.epsilon=-1", "SETTINGS_REFUSED"),
    ({}, "privacy.delta=0", "SETTINGS_REFUSED"),
    ({}, "privacy.clip=0", "SETTINGS_REFUSED"),
    ({}, "privacy.delta=1", "SETTINGS_REFUSED"),
]


@pytest.mark.parametrize(("policy", "overrides", "code"), REFUSED)
def test_what_asks_for_more_than_the_policy_allows_is_refused_before_data_is_touched(
    silo: RealSilo, policy: dict[str, object], overrides: str, code: str
) -> None:
    silo.write(**policy)
    assert silo.refused("train", overrides) == code
    assert silo.charges() == []


def test_what_is_allowed_does_open_the_rows(silo: RealSilo) -> None:
    """The tests above are worth something: the same watch sees the file when it is read."""
    with opened_files() as files:
        assert silo.code() == "ANSWERED"
    assert str(silo.csv) in files


def test_scores_stay_in_the_silo(silo: RealSilo) -> None:
    assert silo.refused("evaluate") == "SCORES_WITHHELD"
    assert silo.refused("query.moments") == "BAD_REQUEST"


@pytest.mark.parametrize("number", [0, -1, 2**60])
def test_a_round_that_is_none_is_refused_and_costs_nothing(silo: RealSilo, number: int) -> None:
    assert silo.refused(round_number=number) in ("BAD_REQUEST", "REPLAY_REFUSED")
    assert silo.charges() == []


@pytest.mark.parametrize("stage", ["train.default", "evaluate.default", "query.default", "train.x", "evaluate.train"])
def test_a_message_that_goes_by_another_name_gets_nothing(silo: RealSilo, stage: str) -> None:
    """Flower brings ``train.default`` to the handler of ``train``, but the books know names of the contract only."""
    try:
        answer = silo.refused(stage)
    except ValueError as error:  # Flower's own, to the runtime: there is no such function
        answer = str(error)
    assert answer == "BAD_REQUEST" or answer.startswith("No ")
    assert silo.charges() == []


def test_a_silo_of_one_record_and_a_delta_of_one_over_its_records_are_refused(silo: RealSilo) -> None:
    silo.write(records=1)
    assert silo.refused("train", "training.batch_size=1") == "POLICY_REFUSED"
    silo.write(records=10_001)  # with its delta of 1e-4 that is no policy
    assert silo.refused() == "DATA_UNAVAILABLE"


def test_a_budget_is_spent_once_over_all_runs_and_a_renamed_file_resets_nothing(silo: RealSilo) -> None:
    silo.write(epsilon=2.0)
    for number in range(1, 5):
        assert silo.code(round_number=number) == "ANSWERED"
    spent = silo.charges()[-1]["charges"][0]["epsilon_after"]
    assert 1.95 < spent <= 2.0
    silo.run += 1
    silo.csv.rename(silo.folder / "other.csv")
    text = (silo.folder / "silo.yaml").read_text().replace("rows.csv", "other.csv")
    (silo.folder / "silo.yaml").write_text(text)
    assert silo.refused() == "BUDGET_REFUSED"
    assert len(silo.charges()) == 4


def test_a_server_that_changes_its_settings_in_the_middle_of_a_run_gains_nothing(silo: RealSilo) -> None:
    assert silo.code("train", "privacy.epsilon=3.9") == "ANSWERED"
    assert silo.refused("train", "privacy.epsilon=3.9 strategy.rounds=90", round_number=2) == "BUDGET_REFUSED"
    assert silo.refused("train", "privacy.epsilon=3.8", round_number=2) == "SETTINGS_REFUSED"
    assert silo.refused("train", "privacy.epsilon=3.9", round_number=1) == "REPLAY_REFUSED"
    assert silo.code("train", "privacy.epsilon=3.9", round_number=2) == "ANSWERED"


def test_no_sequence_of_requests_spends_more_than_the_cap(silo: RealSilo) -> None:
    chance = random.Random(3)
    answers = set()
    asked_for = dict.fromkeys(range(10, 16), 1)
    for _ in range(45):
        silo.run = chance.choice(list(asked_for))
        number = asked_for[silo.run] = asked_for[silo.run] + chance.choice((0, 1, 1, 2))
        epsilon, rounds, steps = chance.choice(((1, 3, 1), (3.9, 40, 4), (1, 40, 1), (3.9, 3, 4)))
        asked = f"privacy.epsilon={epsilon} strategy.rounds={rounds} training.steps={steps}"
        before = len(silo.charges())
        answers.add(code := silo.code("train", asked, round_number=number))
        assert len(silo.charges()) - before == (code == "ANSWERED")
    assert answers == {"ANSWERED", "BUDGET_REFUSED", "REPLAY_REFUSED", "ROUNDS_REFUSED", "SETTINGS_REFUSED"}
    with silo.open() as store:
        assert 3.0 < store.ledger("clinic").spent(Unit.RECORD).epsilon(1e-4) <= 4.0


# ------------------------------------------------------------------------------------- books that cannot be used
def _damage(silo: RealSilo) -> None:
    content = bytearray(silo.ledger_file.read_bytes())
    content[len(content) // 2] ^= 1
    silo.ledger_file.write_bytes(content)


def _cut(silo: RealSilo) -> None:
    lines = silo.ledger_file.read_bytes().splitlines(keepends=True)
    silo.ledger_file.write_bytes(b"".join(lines[:-1]))


def _put_back(silo: RealSilo, name: str) -> None:
    """Put an older copy of one file, or of the whole store, in the place of the newest."""
    backup = silo.folder / "backup"
    shutil.copytree(silo.store, backup)
    assert silo.code(round_number=3) == "ANSWERED"
    target = silo.store / name if name else silo.store
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    copy = backup / name if name else backup
    (shutil.copytree if copy.is_dir() else shutil.copyfile)(copy, target)
    silo.store.chmod(0o700)


def _strangers_key(silo: RealSilo) -> None:
    from quire.clients.identity import new_identity

    for path in silo.folder.glob("silo.key*"):
        path.unlink()
    new_identity(silo.folder / "silo.key")


BREAKS: dict[str, Callable[[RealSilo], object]] = {
    "damaged": _damage,
    "cut by a whole line": _cut,
    "deleted": lambda silo: silo.ledger_file.unlink(),
    "heads deleted": lambda silo: (silo.store / "heads.json").unlink(),
    "counters deleted": lambda silo: (silo.store / "counters.jsonl").unlink(),
    "open to others": lambda silo: silo.store.chmod(0o755),
    "another key": _strangers_key,
    "no key": lambda silo: (silo.folder / "silo.key").unlink(),
    "ledger rolled back": lambda silo: _put_back(silo, "ledger"),
    "counters rolled back": lambda silo: _put_back(silo, "counters.jsonl"),
    "all rolled back": lambda silo: _put_back(silo, ""),
    "all deleted": lambda silo: shutil.rmtree(silo.store),
    "witness deleted": lambda silo: (silo.folder / "witness.json").unlink(),
}


@pytest.mark.parametrize("how", BREAKS)
def test_books_that_are_not_what_was_written_refuse_everything(silo: RealSilo, how: str) -> None:
    silo.write("witness: witness.json\n")
    for number in (1, 2):
        assert silo.code(round_number=number) == "ANSWERED"
    BREAKS[how](silo)
    assert silo.refused(round_number=4) == "BOOKS_UNUSABLE"
    assert silo.refused("query") == "BOOKS_UNUSABLE"


@pytest.mark.parametrize("name", ["lock", "clinic.jsonl", "heads.json.new", "counters.jsonl"])
def test_a_store_that_cannot_be_written_refuses(silo: RealSilo, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert silo.code() == "ANSWERED"
    really = os.open

    def read_only(path: Any, flags: int, *args: Any, **more: Any) -> int:
        if str(path).endswith(name) and flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(30, "Read-only file system", str(path))
        return really(path, flags, *args, **more)

    monkeypatch.setattr(os, "open", read_only)
    assert silo.refused(round_number=2) == "BOOKS_UNUSABLE"
    monkeypatch.undo()
    assert silo.code(round_number=3) == "ANSWERED"


# ------------------------------------------------------------------------------------------ what stays inside
def test_gradients_that_are_not_finite_count_as_zero_and_their_number_stays(
    silo: RealSilo, caplog: pytest.LogCaptureFixture
) -> None:
    huge = np.float32(3e38)  # finite, but not what comes of it for some rows: infinity times 0
    model = {"0.weight": np.full((32, 1), huge), "0.bias": np.full(32, huge)}
    model |= {"2.weight": np.zeros((1, 32), np.float32), "2.bias": np.zeros(1, np.float32)}
    reply = silo.ask("train", "task.model=mlp", model=model)
    assert code_of(reply) == "ANSWERED"
    assert all(np.isfinite(part).all() for part in decode(reply.content[contract.UPDATE]).values())
    assert "gradients in round 1 were not finite, and counted as zero" in caplog.text
    assert set(reply.content) == {contract.UPDATE, contract.IDENTITY}
    assert Receipt.decode(reply.content[contract.IDENTITY][contract.RECEIPT]).body["broken_gradients"] is None


def test_rows_that_cannot_be_read_are_a_code_and_quote_nothing(silo: RealSilo) -> None:
    for more in (f"{CANARY},1\n", f"50,{CANARY}\n", f"50,1,{CANARY}\n", f'"{CANARY}'):
        silo.run += 1
        silo.rows(RECORDS, more)
        for stage in ("train", "query", "evaluate", "query.moments"):
            reply = silo.ask(stage)
            assert CANARY.encode() not in all_bytes(reply)
        assert code_of(silo.ask("train", round_number=2)) in ("DATA_UNAVAILABLE", "BUDGET_REFUSED")


STEPS = [
    *((client_app, name) for name in ("compose", "member_of", "plan_of", "load", "receipt_of", "encode", "decode")),
    *((client_app, name) for name in ("fingerprint", "_reply", "_request")),
    (work, "train_privately"),
]


@pytest.mark.parametrize("error", [ValueError, DataError, IdentityError, SystemExit])
@pytest.mark.parametrize(("place", "name"), STEPS, ids=lambda found: found if isinstance(found, str) else "")
def test_whatever_goes_wrong_at_any_step_leaves_as_a_code(
    silo: RealSilo, place: Any, name: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: Any, **more: Any) -> Any:
        raise error(CANARY)

    silo.write(epsilon=44.0)
    monkeypatch.setattr(place, name, failing)
    for stage in ("train", "query"):
        reply = silo.ask(stage)
        assert stage == "query" or reply.has_error()
        code_of(reply)
        assert CANARY.encode() not in all_bytes(reply)


def test_the_helpers_of_these_tests_ask_what_they_say() -> None:
    assert POLICY["modes"] == "[record]"
    assert "privacy.epsilon=3" in merged("privacy.epsilon=3")
    assert "privacy.delta" not in merged("privacy=none")
