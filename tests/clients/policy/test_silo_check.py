"""``quire silo check``: the policy in words, every check of a run, the exit status, and no data read."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from quire.cli import app
from quire.clients.data import own
from quire.clients.identity import load_identity, new_identity
from quire.clients.store import Charge, Position, Store, Unit
from quire.errors import DataError, SettingsError
from quire.privacy.dp.events import NonPrivate

RUN = "task=breast_cancer partition=iid partition.silos=5 strategy.min_silos=4 privacy=record privacy.epsilon=2"


@pytest.fixture
def check(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "220")
    monkeypatch.setattr(own, "load", lambda *args: pytest.fail("data was read"))
    file = tmp_path / "silo.yaml"
    file.write_text(
        "data: {connector: csv, path: nowhere.csv}\n"
        "population: {name: heart-2020, records: 303}\n"
        "policy: {modes: [record], aggregation: [plain], code: [], epsilon: 4}\n"
    )

    def call(overrides=""):
        done = CliRunner().invoke(app, ["silo", "check", str(file), *overrides.split()], catch_exceptions=True)
        return done.exit_code, done.output, done.exception

    call.file = file
    return call


def test_without_settings_the_policy_is_told_in_words(check):
    status, text, _ = check()
    assert status == 0
    for words in (
        "Population: heart-2020, 303 records declared",
        "at most 4 for good, at delta 1e-05",
        "any: the server that ships it is trusted to be honest but curious",
        "2, besides 1 that may side with the server",
        "default",
        "line 3",
        "Spent by 'heart-2020' so far: epsilon 0 at delta 1e-05; the cap is 4.",
        "honest-but-curious server",
    ):
        assert words in text


def test_a_run_that_is_accepted_ends_with_0_and_says_what_it_would_spend(check):
    status, text, _ = check(RUN)
    assert status == 0, text
    assert "Accepted: this silo would take part." in text
    assert "over 570 steps, sampling 0.0528" in " ".join(text.split())
    assert "under privacy=record scores stay in the silo" in text  # told, and no reason to stay away


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("privacy.clip=3", "policy.max_clip (silo.yaml, its default) is 1, and privacy.clip=3: set privacy.clip=1"),
        ("privacy.delta=1e-4", "policy.delta (silo.yaml, its default) is 1e-05, and the run aims at 0.0001"),
        ("seed=4", "leave out 'seed'"),
    ],
)
def test_a_run_that_is_refused_ends_with_1_and_says_why(check, more, words):
    status, text, _ = check(f"{RUN} {more}")
    assert status == 1
    assert words in text
    assert "Refused: this silo would not take part." in text


def test_what_is_spent_counts(check, tmp_path):
    new_identity(tmp_path / "silo.key")
    with Store.open(tmp_path / "store", load_identity(tmp_path / "silo.key")) as store:
        from datetime import date

        store.advance(Position("run-1", 1), date(2026, 1, 1))
        store.ledger("heart-2020").charge(
            [Charge(Unit.RECORD, NonPrivate())], None, Position("run-1", 1), code="0" * 64, settings="0" * 64
        )
    status, text, _ = check(RUN)
    assert status == 1
    assert "inf is spent" in text
    assert "nothing is left" in text


def test_a_file_without_a_policy_is_for_the_simulator(check):
    check.file.write_text("data: {connector: csv, path: nowhere.csv}\n")
    assert check()[0] == 0
    status, text, _ = check(RUN)
    assert status == 1
    assert "it serves the simulator, and a real silo refuses every run" in text


def test_mistakes_are_sentences(check):
    assert isinstance(check("training.lr=-1")[2], SettingsError)
    check.file.write_text("data: {}\npolicy: 3\n")
    assert isinstance(check()[2], DataError)


def test_a_test_seed_is_warned_of(check):
    check.file.write_text(check.file.read_text().replace("epsilon: 4", "epsilon: 4, test_seed: true"))
    assert "never over real records" in check()[1]
