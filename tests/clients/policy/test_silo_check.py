"""``quire silo check``: the policy in words, every check of a run, the exit status, and no data read."""

from __future__ import annotations

import shutil

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
    new_identity(tmp_path / "silo.key")
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
        "Budget of 'heart-2020' at delta 1e-05: epsilon 4, of which 0 is spent and 4 is left.",
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
        ("privacy.noise=gaussian", "policy.noise (silo.yaml, its default) does not list privacy.noise=gaussian"),
        ("privacy=silo", "policy.trusts_server (silo.yaml, its default) is false"),
    ],
)
def test_a_run_that_is_refused_ends_with_1_and_says_why(check, more, words):
    run = RUN if more != "privacy=silo" else RUN.replace("privacy=record privacy.epsilon=2", "privacy.delta=1e-5")
    status, text, _ = check(f"{run} {more}")
    assert status == 1
    assert words in text
    assert "Refused: this silo would not take part." in text


def test_what_is_spent_counts(check, tmp_path):
    with Store.open(tmp_path / "store", load_identity(tmp_path / "silo.key")) as store:
        from datetime import date

        store.advance(Position("run-1", 1), date(2026, 1, 1))
        store.ledger("heart-2020").charge(
            [Charge(Unit.RECORD, NonPrivate())], None, Position("run-1", 1), code="0" * 64, settings="0" * 64
        )
    status, text, _ = check(RUN)
    assert status == 1
    assert "inf is spent" in text
    assert "all of it is spent: records were in a run without privacy" in text


def test_a_file_without_a_policy_is_for_the_simulator(check):
    check.file.write_text("data: {connector: csv, path: nowhere.csv}\n")
    assert check()[0] == 0
    status, text, _ = check(RUN)
    assert status == 1
    assert "it serves the simulator, and a real silo refuses every run" in text


DAMAGE = {
    "no key": (lambda folder: (folder / "silo.key").unlink(), "is not there; make one with `quire identity new"),
    "no ledger": (lambda folder: (folder / "store/ledger/heart-2020.jsonl").unlink(), "heart-2020.jsonl is missing"),
    "no heads": (lambda folder: (folder / "store/heads.json").unlink(), "heads.json is missing"),
    "no counters": (lambda folder: (folder / "store/counters.jsonl").unlink(), "counters.jsonl is missing"),
    "no store.json": (lambda folder: (folder / "store/store.json").unlink(), "store.json is missing"),
    "no store": (lambda folder: shutil.rmtree(folder / "store"), "has seen a store, and"),
    "no witness": (lambda folder: (folder / "witness.json").unlink(), "witness.json is missing"),
    "a changed byte": (lambda folder: _change(folder / "store/ledger/heart-2020.jsonl"), "heart-2020.jsonl"),
    "open to others": (lambda folder: (folder / "store").chmod(0o755), "may"),
    "another key": (lambda folder: _another_key(folder), "belongs to the identity"),
}


def _change(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _another_key(folder):
    for path in folder.glob("silo.key*"):
        path.unlink()
    new_identity(folder / "silo.key")


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("overrides", ["", RUN], ids=["policy", "run"])
def test_books_that_a_run_would_not_go_on_with_are_not_taken_for_unspent_ones(check, tmp_path, how, overrides):
    check.file.write_text(check.file.read_text() + "witness: witness.json\n")
    with Store.open(
        tmp_path / "store", load_identity(tmp_path / "silo.key"), witness=tmp_path / "witness.json"
    ) as store:
        store.ledger("heart-2020")
    before, (mend, words) = check(overrides), DAMAGE[how]
    assert before[0] == 0, before[1]
    mend(tmp_path)
    status, text, _ = check(overrides)
    assert status == 1
    assert words in text
    assert " 0 is spent" not in text
    assert ("refuses every run" if not overrides else "Refused: this silo would not take part.") in text


def test_what_the_server_only_promises_is_said(check):
    _, text, _ = check(RUN)
    assert "4, as the server promises" in text
    assert "That it merges those of at least 4 silos is its promise, which nothing here can check." in text


def test_what_opens_the_silo_is_said(check):
    more = "epsilon: 4, noise: [gaussian], trusts_server: true, rehearsal: true"
    check.file.write_text(check.file.read_text().replace("epsilon: 4", more))
    _, text, _ = check()
    assert "noise lists gaussian. Floating-point noise tells more than is accounted for" in text
    assert "the server sees this silo's clipped update without noise" in text
    assert "reads these rows and charges no ledger" in text


def test_secure_aggregation_needs_a_roster(check):
    check.file.write_text(check.file.read_text().replace("[plain]", "[secure]"))
    status, text, _ = check(f"{RUN} aggregation=secure")
    assert status == 1
    assert "Roster: none is pinned" in text


def test_mistakes_are_sentences(check):
    assert isinstance(check("training.lr=-1")[2], SettingsError)
    check.file.write_text("data: {}\npolicy: 3\n")
    assert isinstance(check()[2], DataError)


def test_a_test_seed_is_warned_of(check):
    check.file.write_text(check.file.read_text().replace("epsilon: 4", "epsilon: 4, test_seed: true"))
    assert "never over real records" in check()[1]


def test_a_run_whose_silos_share_the_noise_is_explained(check):
    check.file.write_text(
        check.file.read_text().replace("[record]", "[record_distributed]").replace("[plain]", "[secure]")
    )
    run = (
        "task=breast_cancer partition=iid partition.silos=5 strategy.min_silos=4 aggregation=secure "
        "privacy=record_distributed privacy.epsilon=2 privacy.records=1500 privacy.largest=303"
    )
    status, text, _ = check(run)
    words = " ".join(text.split())
    assert status == 1  # for it has no roster, and for nothing else
    assert "each silo adds a share of the noise, and it sees the noisy sum" in words
    assert "on the sum, 2 shares of it, against 1 colluders and an observer, over 30 rounds, sampling 0.05" in words
    assert "0.05 of the records, at random" in words
    assert text.count("Roster: none is pinned") == 1
    check.file.write_text(check.file.read_text().replace("epsilon: 4", "epsilon: 4, colluders: 2"))
    status, text, _ = check(run)
    assert status == 1
    assert "the noise of this run is planned for 1 that leave theirs out: set aggregation.colluders=2" in text
