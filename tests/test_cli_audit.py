"""``quire audit`` as it is called: figures beside claims, and the exit status that a script can rely on."""

import json

import pytest
from command_line import command_line

SMALL = ["partition=iid", "partition.silos=3", "strategy.rounds=3", "training.steps=1", "--canaries", "400"]
RECORD = [*SMALL, "privacy=record", "privacy.epsilon=4"]


@pytest.fixture
def quire(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    return command_line(monkeypatch, capsys)


def test_an_audit_shows_bounds_beside_claims_and_ends_with_0(quire, tmp_path):
    status, out, err = quire("audit", *RECORD, "--seeds", "2", "--json", "audit.json")
    assert (status, err) == (0, "")
    written = json.loads((tmp_path / "audit.json").read_text())
    assert len(written["findings"]) == 6
    for finding in written["findings"]:
        assert f"{finding['claim']:.2f}" in out
    assert "0 of 2" in out
    assert "no proof" in " ".join(out.split())


def test_a_broken_release_ends_with_1_and_one_sentence(quire, tmp_path, monkeypatch):
    monkeypatch.setattr("quire.clients.private.sgd.add_noise", lambda total, release, source: total)
    status, out, err = quire("audit", *RECORD, "--json", "audit.json")
    assert status == 1
    assert "1 of 1" in out
    assert err.startswith("quire: The claim is refuted: canaries on the path '")
    assert err.count("\n") == 1
    assert json.loads((tmp_path / "audit.json").read_text())["refuted"] is True


def test_silos_with_rows_of_their_own_are_audited_by_their_public_numbers_of_records(quire, tmp_path, monkeypatch):
    for name in ("QUIRE_SILOS", "QUIRE_SCHEMA"):
        monkeypatch.setenv(name, "")  # the command line sets them for its process
    folder = tmp_path / "silos"
    folder.mkdir()
    (folder / "schema.yaml").write_text(
        "columns:\n  age: {low: 0, high: 100}\ntarget: {name: sick, kind: classification, classes: [0, 1]}\n"
    )
    for number, records in enumerate((60, 900), start=1):
        rows = "\n".join(f"{20 + 3 * row % 60},{row % 2}" for row in range(60))
        (folder / f"rows-{number}.csv").write_text(f"age,sick\n{rows}\n")
        (folder / f"clinic-{number}.yaml").write_text(
            f"name: clinic-{number}\ndata: {{connector: csv, path: rows-{number}.csv}}\n"
            f"population: {{name: p{number}, records: {records}}}\n"
        )
    settings = ["task=tabular", f"silos={folder}", "privacy=record", "training.steps=1", "strategy.rounds=3"]
    status, out, err = quire("audit", *settings, "--canaries", "200", "--json", "audit.json")
    assert (status, err) == (0, "")
    assert "as at clinic-2" in out
    assert json.loads((tmp_path / "audit.json").read_text())["dimension"] == 2


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (SMALL, "There is no claim to audit"),
        ([*SMALL, "privacy=record", "privacy.epsilon=inf"], "There is no claim to audit"),
        ([*SMALL, "privacy=record", "--canaries", "5"], "at least 100 canaries"),
        ([*RECORD, "--json", "nowhere/audit.json"], "The folder of 'nowhere/audit.json' does not exist"),
        ([*RECORD, "--json", "."], "'.' cannot be written"),
        ([*RECORD, "privacy.noise=loud"], "privacy.noise"),
        ([*RECORD, "silos=nowhere"], "silos=FOLDER is for silos that read their own rows"),
        (["task=tabular", "silos=nowhere", "privacy=record"], "nowhere"),
    ],
)
def test_a_mistake_is_answered_with_a_sentence(quire, args, words):
    status, _, err = quire("audit", *args)
    assert status == 2
    assert words in err


def test_help_names_the_page_that_says_what_an_audit_is_worth(quire):
    status, out, _ = quire("audit", "--help")
    assert status == 0
    assert "docs/auditing.md" in out
