"""A real silo under a charter: every message is held against it, and nothing is touched before."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from charters import charter, key, member, signed, written
from real_silo import RealSilo, merged
from typer.testing import CliRunner

from quire.charter.document import Charter
from quire.charter.parts import Release
from quire.charter.signed import SignedCharter
from quire.cli import app as command
from quire.clients.code import code_hash
from quire.clients.data.silo_file import read_operator_of
from quire.clients.identity import load_identity, new_identity
from quire.errors import DataError

CLINICS = ("clinic-1", "clinic-2", "clinic-3", "clinic-4")
HOUR = 3600


class Chartered(RealSilo):
    """The silo ``clinic-1`` under a charter of four clinics, in force since an hour ago."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.began = int(time.time()) - HOUR
        self.charter = self.first()
        self.put(signed(self.charter, *CLINICS[1:]))
        self.pin(self.charter)

    def first(self, **changes: object) -> Charter:
        public = load_identity(self.folder / "silo.key").public
        members = (
            member(CLINICS[0], identity=public, delta=1e-4),
            *(member(name, delta=1e-4) for name in CLINICS[1:]),
        )
        told = {"members": members, "needed": 3, "amendments": 3, "min_cohort": 4, "not_after": self.began + 10 * HOUR}
        # Signed an hour before it takes force, and the members' clocks agree.
        return charter(**{**told, "issued": self.began - HOUR, "not_before": self.began, **changes})

    def use(self, **changes: object) -> None:
        """Have another charter from the beginning, signed and pinned."""
        self.charter = self.first(**changes)
        self.put(signed(self.charter, *CLINICS[1:]))
        self.pin(self.charter)

    def amend(self, **changes: object) -> Charter:
        old = self.charter
        self.charter = replace(
            old,
            **{
                **{"version": old.version + 1, "previous": old.hash, "issued": old.issued + 60},
                **{"not_before": old.not_before + 60, **changes},
            },
        )
        self.put(signed(self.charter, *CLINICS[1:], previous=old, at=self.charter.issued))
        return old

    def put(self, *versions: SignedCharter) -> None:
        written(self.folder / "charter", *versions)

    def pin(self, found: Charter, residency: str = "eu", **policy: object) -> None:
        where = f", residency: {residency}" if residency else ""
        self.write(f'charter: {{file: charter, hash: "{found.hash}"{where}}}\n', **policy)

    def asked(self, more: str = "", stage: str = "train", round_number: int = 1) -> str:
        """Return the code of the answer to a run under the charter that is in force."""
        return self.refused(stage, f"{more} charter={self.charter.hash}", round_number)

    def answered(self, more: str = "", stage: str = "train", round_number: int = 1) -> str:
        return self.code(stage, f"{more} charter={self.charter.hash}", round_number)


@pytest.fixture
def silo(tmp_path: Path) -> Chartered:
    return Chartered(tmp_path)


def test_a_run_under_the_charter_is_answered(silo: Chartered) -> None:
    assert silo.answered() == "ANSWERED"
    assert silo.answered(stage="query") == "ANSWERED"
    assert len(silo.charges()) == 1


@pytest.mark.parametrize("stage", ["query", "query.moments", "train", "evaluate"])
def test_a_run_under_none_or_another_is_refused_at_every_stage(silo: Chartered, stage: str) -> None:
    assert silo.refused(stage) == "ANOTHER_CHARTER"
    assert silo.refused(stage, f"charter={'a' * 64}") == "ANOTHER_CHARTER"
    assert silo.charges() == []


def test_without_a_charter_the_policy_is_alone(silo: Chartered) -> None:
    silo.write()
    assert silo.code() == "ANSWERED"
    assert silo.code("train", f"charter={'a' * 64}", 2) == "SETTINGS_REFUSED"  # it is another run
    silo.run += 1
    assert silo.code("train", f"charter={'a' * 64}") == "ANSWERED"


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ({"tasks": frozenset({"images"})}, "CHARTER_TASK"),
        ({"code": frozenset({Release("a" * 64, "b" * 64)})}, "CHARTER_CODE"),
        ({"privacy": frozenset({"silo"})}, "CHARTER_TERMS"),
        ({"aggregation": frozenset({"secure"})}, "CHARTER_TERMS"),
        ({"approval": "each_run"}, "AWAITING_APPROVAL"),
    ],
)
def test_each_term_is_enforced(silo: Chartered, terms: dict, code: str) -> None:
    silo.use(**terms)
    assert silo.asked() == code
    assert silo.charges() == []


def test_code_that_is_listed_runs(silo: Chartered) -> None:
    silo.use(code=frozenset({Release("a" * 64, code_hash())}))
    assert silo.answered() == "ANSWERED"


@pytest.mark.parametrize(
    ("charters", "policy", "code"),
    [
        ({"epsilon": 1.0, "delta": 1e-4}, {}, "BUDGET_REFUSED"),
        ({"epsilon": 4.0, "delta": 1e-6}, {}, "BUDGET_REFUSED"),
        ({"epsilon": 50.0, "delta": 1e-4}, {"epsilon": "1.0"}, "BUDGET_REFUSED"),
        ({"epsilon": 50.0, "delta": 1e-4}, {"delta": "1.0e-6"}, "BUDGET_REFUSED"),
        ({"epsilon": 4.0, "delta": 1e-4}, {}, "ANSWERED"),
    ],
)
def test_the_stricter_budget_holds_whoever_lays_it_down(silo: Chartered, charters: dict, policy: dict, code) -> None:
    members = tuple(replace(one, **charters) if one.name == "clinic-1" else one for one in silo.charter.members)
    silo.use(members=members)
    silo.pin(silo.charter, **policy)
    assert silo.answered() == code


def test_what_one_run_has_spent_counts_for_the_next(silo: Chartered) -> None:
    silo.use(members=tuple(replace(one, epsilon=2.5) for one in silo.charter.members))
    silo.pin(silo.charter, epsilon="40.0")
    assert [silo.answered(round_number=number) for number in (1, 2, 3, 4)] == ["ANSWERED"] * 4
    silo.run += 1
    assert silo.asked() == "BUDGET_REFUSED"
    silo.write(epsilon="40.0")
    assert silo.code() == "ANSWERED"  # the policy alone would have it


def test_the_policy_stays_as_strict_as_it_was(silo: Chartered) -> None:
    silo.use(min_cohort=2, colluders=0, privacy=frozenset({"record", "silo"}))
    assert silo.asked("strategy.min_silos=3") == "POLICY_REFUSED"


def test_it_expires_in_the_middle_of_a_run(silo: Chartered, monkeypatch: pytest.MonkeyPatch) -> None:
    assert silo.answered() == "ANSWERED"
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 10 * HOUR)
    for stage in ("query", "train", "evaluate"):
        assert silo.asked(stage=stage, round_number=2) == "CHARTER_EXPIRED"
    monkeypatch.setattr(time, "time", lambda: clock() - 2 * HOUR)
    assert silo.asked(round_number=2) == "CHARTER_EXPIRED"
    monkeypatch.undo()
    assert silo.answered(round_number=2) == "ANSWERED"


def test_an_amendment_ends_runs_under_the_version_before(silo: Chartered) -> None:
    assert silo.answered() == "ANSWERED"
    old = silo.amend(colluders=2)
    assert silo.refused("train", f"charter={old.hash}", 2) == "ANOTHER_CHARTER"
    silo.run += 1
    assert silo.answered() == "ANSWERED"


def test_an_older_version_that_is_put_back_is_noticed(silo: Chartered) -> None:
    old = silo.amend(colluders=2)
    assert silo.answered(stage="query") == "ANSWERED"
    (silo.folder / "charter" / "charter-2.json").unlink()
    silo.charter = old
    assert silo.asked() == "CHARTER_REFUSED"
    # Nor another version 2, however well it is signed.
    silo.amend(approval="each_run")
    assert silo.asked() == "CHARTER_REFUSED"


def test_a_memory_that_was_taken_away_is_missed(silo: Chartered) -> None:
    silo.amend(colluders=2)
    assert silo.answered(stage="query") == "ANSWERED"
    (kept,) = (silo.store / "state" / "charter").glob("*.bin")
    kept.unlink()
    assert silo.asked() == "CHARTER_REFUSED"


def test_a_clock_that_is_set_back_revives_no_version_that_was_replaced(
    silo: Chartered, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = silo.amend(colluders=2)
    between = old.not_before + 30
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: between)
    silo.run += 1
    assert silo.code("query", f"charter={old.hash}") == "ANSWERED"  # the amendment is there, and not in force yet
    monkeypatch.setattr(time, "time", clock)
    assert silo.answered(stage="query") == "ANSWERED"
    monkeypatch.setattr(time, "time", lambda: between)
    assert silo.refused("train", f"charter={old.hash}") == "CHARTER_REFUSED"
    status, said = quire(silo, "silo", "check", str(silo.folder / "silo.yaml"))
    assert (status, "version 1 is in force: the clock was set back" in said) == (1, True)


@pytest.mark.parametrize("names", [CLINICS[1:3], ()])
def test_too_few_signatures_bind_nobody_and_let_nothing_run(silo: Chartered, names: tuple[str, ...]) -> None:
    made = SignedCharter(silo.charter)
    for name in names:
        made = made.sign(key(name), silo.charter.issued)
    silo.put(made)
    assert silo.asked() == "CHARTER_REFUSED"


def test_a_byte_that_is_changed_lets_nothing_run(silo: Chartered) -> None:
    file = silo.folder / "charter" / "charter-1.json"
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b'"epsilon":"4.0"', b'"epsilon":"9.0"', 1))
    assert silo.asked() == "CHARTER_REFUSED"
    file.unlink()
    assert silo.asked() == "CHARTER_REFUSED"
    file.write_bytes(whole)
    assert silo.answered() == "ANSWERED"


def test_another_first_version_than_the_pinned_one_lets_nothing_run(silo: Chartered) -> None:
    silo.put(signed(silo.first(purpose="Another."), *CLINICS[1:]))
    assert silo.asked() == "CHARTER_REFUSED"


def test_residency_has_to_agree(silo: Chartered) -> None:
    for said in ("us", ""):
        silo.pin(silo.charter, residency=said)
        assert silo.asked() == "CHARTER_REFUSED"


def test_a_silo_that_is_no_member_or_has_another_key_takes_part_in_nothing(silo: Chartered) -> None:
    others = tuple(member(name) for name in ("clinic-2", "clinic-3", "clinic-4", "clinic-5"))
    silo.use(members=others)
    assert silo.asked() == "CHARTER_REFUSED"
    silo.use()
    assert silo.answered(stage="query") == "ANSWERED"
    for name in ("silo.key", "silo.key.pub"):
        (silo.folder / name).rename(silo.folder / f"old-{name}")
    new_identity(silo.folder / "silo.key")
    (silo.folder / "store").rename(silo.folder / "old-store")
    assert silo.asked() == "CHARTER_REFUSED"


def quire(silo: Chartered, *words: str) -> tuple[int, str]:
    done = CliRunner().invoke(command, list(words), catch_exceptions=True)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


def test_an_approval_that_the_charter_asks_for_is_given_as_any_other(silo: Chartered) -> None:
    silo.use(approval="each_run")
    assert silo.asked() == "AWAITING_APPROVAL"
    status, said = quire(silo, "approve", str(silo.run), "--silo", str(silo.folder / "silo.yaml"))
    assert status == 0, said
    assert silo.answered() == "ANSWERED"
    silo.run += 1
    assert silo.asked() == "AWAITING_APPROVAL"


def test_silo_check_says_what_the_charter_does(silo: Chartered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    file, run = str(silo.folder / "silo.yaml"), merged(f"charter={silo.charter.hash}").split()
    status, said = quire(silo, "silo", "check", file)
    assert (status, "Charter: the charter heart, version 1; with it the stricter holds" in said) == (0, True)
    assert quire(silo, "silo", "check", file, *run)[0] == 0
    status, said = quire(silo, "silo", "check", file, *merged("").split())
    assert status == 1
    assert f"submit it with charter={silo.charter.hash}" in said
    status, said = quire(
        silo, "silo", "check", file, *merged(f"charter={silo.charter.hash} privacy.delta=1e-3").split()
    )
    assert (status, "Charter: the charter heart, version 1: the run aims at delta 0.001" in said) == (1, True)
    silo.pin(silo.charter, residency="us")
    status, said = quire(silo, "silo", "check", file)
    assert (status, "one of the two is wrong (charter: residency)" in said) == (1, True)


def test_silo_check_reckons_as_the_silo_does(silo: Chartered, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was spent before the policy's period and under the charter counts for the charter alone."""
    monkeypatch.setenv("COLUMNS", "200")
    silo.use(
        members=tuple(replace(one, epsilon=2.5) for one in silo.charter.members),
        **{"issued": silo.began - 100 * HOUR, "not_before": silo.began - 99 * HOUR},
    )
    silo.pin(silo.charter, period_days="1")
    two_days_ago = date.today() - timedelta(days=2)
    monkeypatch.setattr("quire.clients.policy.books.today", lambda: two_days_ago)
    assert [silo.answered(round_number=number) for number in (1, 2, 3, 4)] == ["ANSWERED"] * 4
    monkeypatch.undo()
    monkeypatch.setenv("COLUMNS", "200")
    silo.run += 1
    assert silo.asked() == "BUDGET_REFUSED"
    run = merged(f"charter={silo.charter.hash}").split()
    status, said = quire(silo, "silo", "check", str(silo.folder / "silo.yaml"), *run)
    assert (status, "the records may spend epsilon 2.5 at delta 0.0001, and this run" in said) == (1, True)


def test_silo_check_knows_the_key_of_the_charter(silo: Chartered) -> None:
    for name in ("silo.key", "silo.key.pub"):
        (silo.folder / name).rename(silo.folder / f"old-{name}")
    new_identity(silo.folder / "silo.key")
    status, said = quire(silo, "silo", "check", str(silo.folder / "silo.yaml"))
    assert (status, "has clinic-1 under the key" in said) == (1, True)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("charter: {file: charter}\n", "'charter' lacks the key 'hash'"),
        ("charter: {file: charter, hash: 5f0c}\n", "'hash' must be a SHA-256"),
        ("charter: charter\n", "'charter' must hold keys with values"),
        (f"charter: {{file: charter, hash: {'a' * 64}, residence: eu}}\n", "no key 'residence'"),
    ],
)
def test_a_pin_is_read_strictly(silo: Chartered, more: str, words: str) -> None:
    silo.write(more)
    with pytest.raises(DataError, match=words):
        read_operator_of(silo.folder / "silo.yaml")


def test_a_charter_needs_a_policy_beside_it(silo: Chartered) -> None:
    (silo.folder / "silo.yaml").write_text(
        f"data: {{connector: csv, path: rows.csv}}\ncharter: {{file: charter, hash: {'a' * 64}}}\n"
    )
    with pytest.raises(DataError, match="a 'charter' needs a 'policy' beside it"):
        read_operator_of(silo.folder / "silo.yaml")
