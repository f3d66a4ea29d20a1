"""A silo is a member of the roster that it has pinned, by its own name and key; an old copy of its store is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from real_silo import RUN, RealSilo
from typer.testing import CliRunner

from quire.cli import app
from quire.clients.data.silo_file import read_operator_of
from quire.clients.identity import load_identity, new_identity
from quire.clients.identity.rosters import Change, first_roster, sign_roster, write_new
from quire.clients.policy.membership import not_a_member
from quire.errors import DataError, QuireError
from quire.privacy.identity.keys import PrivateIdentity, PublicIdentity
from quire.privacy.identity.signed import SignedRoster

NOW = int(datetime.now(UTC).timestamp())
OTHER = PrivateIdentity.from_seed(b"o" * 32).public


class Consortium:
    """A silo, its admin, and rosters that the admin signs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.silo = RealSilo(folder)
        self.public: PublicIdentity = load_identity(folder / "silo.key").public
        new_identity(folder / "admin.key")
        self.admin = load_identity(folder / "admin.key")

    def pin(self, members: dict[str, PublicIdentity], *, signed: bool = True, **validity: int) -> None:
        """Write a roster and pin it."""
        made = SignedRoster(first_roster("clinics", Change(members, {"anna": self.admin.public}, **validity)))
        (self.folder / "roster.json").unlink(missing_ok=True)
        write_new(self.folder / "roster.json", sign_roster(made, self.admin) if signed else made)
        self.silo.write(f"roster: {{file: roster.json, hash: '{made.roster.hash}'}}\n")

    def check(self, *overrides: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["silo", "check", str(self.folder / "silo.yaml"), *overrides])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.output


@pytest.fixture
def consortium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Consortium:
    monkeypatch.setenv("COLUMNS", "200")
    return Consortium(tmp_path)


def test_a_member_of_a_signed_roster_takes_part(consortium: Consortium) -> None:
    consortium.pin({"clinic-1": consortium.public, "clinic-2": OTHER}, valid_from=NOW - 60, valid_to=NOW + 3600)
    assert consortium.silo.code("query") == "ANSWERED"
    assert consortium.silo.code() == "ANSWERED"
    status, text = consortium.check(*RUN.split())
    assert status == 0, text
    assert "Roster: " in text
    assert "Accepted: this silo would take part." in text


PINS: dict[str, tuple[Callable[[Consortium], Any], str]] = {
    "another name": (lambda c: c.pin({"clinic-2": c.public}), "has no member 'clinic-1'"),
    "another key": (lambda c: c.pin({"clinic-1": OTHER}), "has clinic-1 under the key"),
    "its name for another, another name for it": (
        lambda c: c.pin({"clinic-1": OTHER, "clinic-2": c.public}),
        "has clinic-1 under the key",
    ),
    "expired": (lambda c: c.pin({"clinic-1": c.public}, valid_from=NOW - 60, valid_to=NOW - 1), "at other times"),
    "too early": (lambda c: c.pin({"clinic-1": c.public}, valid_from=NOW + 3600), "at other times"),
    "unsigned": (lambda c: c.pin({"clinic-1": c.public}, signed=False), "signed by 0 of its own admins"),
}


@pytest.mark.parametrize("how", PINS)
def test_whoever_is_no_member_is_refused_at_every_stage_before_data_is_touched(
    consortium: Consortium, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    pin, words = PINS[how]
    pin(consortium)
    for stage in ("query", "query.moments", "train", "evaluate"):
        assert consortium.silo.refused(stage) == "ROSTER_REFUSED"
    assert words in caplog.text
    assert not consortium.silo.store.exists()
    status, text = consortium.check(*RUN.split())
    assert status == 1
    assert words in text
    assert "Refused: this silo would not take part." in text


def test_a_membership_ends_at_its_second(consortium: Consortium) -> None:
    change = Change({"clinic-1": consortium.public}, {"anna": consortium.admin.public}, valid_from=100, valid_to=200)
    roster, mine = first_roster("clinics", change), consortium.public.fingerprint
    found = [not_a_member(roster, "clinic-1", mine, moment) is None for moment in (99, 100, 199, 200)]
    assert found == [False, True, True, False]


# ------------------------------------------------------------------------------------------------ the witness
def test_the_witness_that_the_file_names_tells_an_old_copy(consortium: Consortium) -> None:
    silo, elsewhere = consortium.silo, consortium.folder / "elsewhere"
    elsewhere.mkdir()
    silo.write("witness: elsewhere/witness.json\n")
    assert silo.code() == "ANSWERED"
    assert (elsewhere / "witness.json").is_file()
    shutil.copytree(silo.store, consortium.folder / "backup")
    assert silo.code(round_number=2) == "ANSWERED"
    shutil.rmtree(silo.store)
    shutil.copytree(consortium.folder / "backup", silo.store)
    assert silo.refused(round_number=3) == "BOOKS_UNUSABLE"
    for command in (("silo", "check", *RUN.split()), ("ledger", "show"), ("ledger", "verify")):
        group, name, *more = command
        done = CliRunner().invoke(app, [group, name, str(consortium.folder / "silo.yaml"), *more])
        assert done.exit_code == 1
        assert "is older than what the witness" in f"{done.output} {done.exception}"
        assert group == "silo" or isinstance(done.exception, QuireError)


def test_without_a_witness_an_old_copy_is_not_told_as_the_docs_say(consortium: Consortium) -> None:
    silo = consortium.silo
    assert silo.code() == "ANSWERED"
    shutil.copytree(silo.store, consortium.folder / "backup")
    assert silo.code(round_number=2) == "ANSWERED"
    shutil.rmtree(silo.store)
    shutil.copytree(consortium.folder / "backup", silo.store)
    assert silo.code(round_number=3) == "ANSWERED"


def test_a_witness_may_be_named_later(consortium: Consortium) -> None:
    silo = consortium.silo
    assert silo.code() == "ANSWERED"
    silo.write("witness: witness.json\n")
    assert silo.code(round_number=2) == "ANSWERED"
    (silo.folder / "witness.json").unlink()
    assert silo.refused(round_number=3) == "BOOKS_UNUSABLE"


def test_a_witness_whose_folder_is_missing_lets_nothing_leave(consortium: Consortium) -> None:
    consortium.silo.write("witness: nowhere/witness.json\n")
    assert consortium.silo.refused() == "BOOKS_UNUSABLE"


@pytest.mark.parametrize("place", ["store", "store/witness.json", "./store/a/../w.json", "x/../store/w"])
def test_a_witness_inside_the_store_is_none(consortium: Consortium, place: str) -> None:
    consortium.silo.write(f"witness: {place}\n")
    with pytest.raises(DataError, match=r"silo.yaml, line 4, column 10: 'witness' must lie outside the store"):
        read_operator_of(consortium.folder / "silo.yaml")
