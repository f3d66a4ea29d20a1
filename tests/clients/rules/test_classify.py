"""What columns are taken for: forms with checksums, names in three languages, and proposals that can be pasted."""

from __future__ import annotations

import gzip
import sqlite3
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from quire.cli import app as command
from quire.clients.data.rules import patterns
from quire.clients.data.rules.classify import KINDS, classify
from quire.clients.data.rules.proposal import proposed
from quire.clients.data.rules.tables import read_table
from quire.clients.data.rules.words import WORDS, spoken_for, words_of
from quire.errors import DataError


@pytest.mark.parametrize(
    ("test", "good", "bad"),
    [
        (
            patterns.is_iban,
            ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "FR1420041010050500013M02606"],
            ["DE89370400440532013001", "DE8937040044", "89370400440532013000DE", ""],
        ),
        (patterns.is_card, ["4111 1111 1111 1111", "5500-0000-0000-0004"], ["4111111111111112", "1234567890123", "41"]),
        (
            patterns.is_social,
            ["123-45-6789", "2 55 08 14 168 025 38", "15 070649 C 103", "86095742719", "756.9217.0769.85", "AB123456C"],
            ["000-45-6789", "2 55 08 14 168 025 39", "15 070649 C 104", "86095742718", "756.9217.0769.86", "AB123456E"],
        ),
        (patterns.is_email, ["a.b@example.org"], ["a.b@example", "a b@example.org", "@example.org"]),
        (patterns.is_phone, ["+49 30 123456", "030/1234567", "(020) 7946 0958"], ["12345", "01.02.2003", "1234567"]),
        (patterns.is_ip, ["10.0.0.1", "2001:db8::1"], ["10.0.0.256", "1.2.3", "12:30", "12:30:59"]),
        (patterns.is_code_of_disease, ["I21.3", "E11", "C50.1", "M80.08"], ["U2", "I213456", "21.3", "i21"]),
        (patterns.is_person, ["Anna Vogel", "Vogel, Anna", "Ludwig van Beethoven"], ["anna", "Heart attack 2", "A"]),
        (patterns.is_machine_id, ["123e4567-e89b-12d3-a456-426614174000", "ab" * 16], ["1" * 32, "abc"]),
    ],
)
def test_forms_are_told_from_what_only_looks_like_them(test, good, bad) -> None:
    assert [text for text in good if not test(text)] == []
    assert [text for text in bad if test(text)] == []


@pytest.mark.parametrize(
    ("texts", "form"),
    [
        (["2026-11-22", "2026-11-22T10:30:00"], ""),
        (["22.11.2026", "01.02.1950"], "%d.%m.%Y"),
        (["11/22/2026", "01/02/1950"], "%m/%d/%Y"),
        (["22.11.2026", "2026-11-22"], None),
        (["20261122"], None),
        (["2026-13-01"], None),
        ([], None),
    ],
)
def test_dates_are_of_one_form(texts, form) -> None:
    assert patterns.form_of(texts) == form


@given(st.text())
def test_every_text_gets_an_answer(text: str) -> None:
    for *_, test in patterns.PATTERNS:
        assert test(text) in (True, False)
    words_of(text)
    spoken_for(text)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("PatientenName", "direct"),
        ("date_de_naissance", "date"),
        ("Numéro de téléphone", "direct"),
        ("Krankenversichertennummer", "direct"),
        ("Aufnahmedatum", "date"),
        ("Straße", "direct"),
        ("STAATSANGEHÖRIGKEIT", "quasi"),
        ("situation_familiale", "quasi"),
        ("code postal", "geographic"),
        ("Kontostand", "sensitive"),
        ("ClinicalNotes", "text"),
        ("rowId", "technical"),
    ],
)
def test_names_speak_three_languages(name: str, kind: str) -> None:
    assert max(spoken_for(name), key=lambda one: one[2])[0] == kind


@pytest.mark.parametrize("name", ["file name", "ward_name", "percentage", "message", "chol", "mean texture", "s1"])
def test_names_that_say_nothing_of_people(name: str) -> None:
    assert spoken_for(name) == []


def test_words_are_spelled_as_they_are_compared() -> None:
    for kind, phrases in WORDS.items():
        for phrase in phrases:
            assert " ".join(words_of(phrase)) == phrase, (kind, phrase)


def kinds(**columns: list[object]) -> dict[str, str]:
    found = classify({name: np.array(values, dtype=object) for name, values in columns.items()})
    return {one.column: one.kind for one in found}


def test_values_tell_where_names_do_not() -> None:
    rng = np.random.default_rng(1)
    found = kinds(
        a=[f"p{n}@example.org" for n in range(40)],
        b=[f"{1000 + n}" for n in range(40)],
        c=[str(n) for n in rng.integers(10**7, 10**8, 40)],
        d=[" ".join(rng.choice(["she", "came", "and", "went", "again"], 9)) for _ in range(40)],
        e=[f"2020-01-{1 + n % 28:02}" for n in range(40)],
        f=list(rng.normal(size=40)),
        g=["a", "b"] * 20,
    )
    assert list(found.values()) == ["direct", "technical", "technical", "text", "date", "plain", "plain"]


def test_a_name_that_the_values_belie_counts_less() -> None:
    assert kinds(newsletter_email=[0, 1] * 20) == {"newsletter_email": "plain"}
    assert kinds(comment=list(range(0, 120, 3))) == {"comment": "plain"}
    assert kinds(followup_date=[1.5, 2.5, 7.25] * 10) == {"followup_date": "plain"}


def test_what_is_learned_about_people_is_sensitive() -> None:
    rows = {"age": list(range(20, 60)), "target": [0, 1] * 20, "chol": list(range(200, 240))}
    assert kinds(**rows) == {"age": "quasi", "target": "sensitive", "chol": "technical"}
    arrays = {name: np.array(values) for name, values in rows.items()}
    assert [one.kind for one in classify(arrays, "chol")][1] == "plain"  # the schema says which it is
    del rows["age"]
    assert kinds(**rows)["target"] == "plain"


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=12),
        st.lists(st.text("QWXYZ0123456789", min_size=4, max_size=9) | st.none(), min_size=0, max_size=30),
        max_size=4,
    )
)
def test_any_table_is_classified_and_no_value_is_quoted(table: dict[str, list[str | None]]) -> None:
    columns = {name: np.array([*values, None], dtype=object) for name, values in table.items()}
    found = classify(columns)
    assert [one.column for one in found] == list(table)
    for one in found:
        assert one.kind in KINDS
        assert 0.0 < one.confidence < 1.0
        said = one.why.replace(f"'{one.column}'", "")
        assert not [value for value in table[one.column] if value and value in said]


PATIENTS = """nr,Patientenname,Alter,PLZ,aufgenommen,chol,krank
1,Anna Vogel,43,10115,01.02.2021,201,0
2,Bert Meier,52,20095,13.03.2021,188,1
3,Carl Durand,61,80331,24.12.2020,243,0
4,Dora Petit,38,50667,30.06.2021,219,1
"""
SCHEMA = """
columns: {Alter: {low: 0, high: 120}, chol: {low: 0, high: 900}}
target: {name: krank, kind: classification, classes: [0, 1]}
"""


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(command, ["silo", "classify", *map(str, words)])
    assert done.exception is None or isinstance(done.exception, SystemExit | DataError), done.exception
    return done.exit_code, f"{done.output}{done.exception or ''}"


def test_the_command_prints_a_proposal_and_no_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "p.csv").write_text(PATIENTS)
    status, said = run(tmp_path / "p.csv")
    assert status == 0
    for line in PATIENTS.splitlines()[1:]:
        assert not [cell for cell in line.split(",") if len(cell) > 2 and cell in said]
    assert "Patientenname: drop  # direct identifier" in said
    assert 'aufgenommen: {generalise: {date: year, format: "%d.%m.%Y"}}  # date' in said
    assert "PLZ: {generalise: {keep: 2}}  # geographic" in said
    assert "# proposed, not confirmed" in said


def test_a_proposal_can_be_pasted_and_works(home) -> None:
    """What is proposed for a file is what the same file is read with."""
    home.write("rows.csv", PATIENTS)
    table = read_table(home.folder / "rows.csv")
    block = proposed(classify(table.columns, table.target, table.missing), table.wanted)
    home.write(
        "schema.yaml",
        "columns:\n  Alter: {low: 0, high: 120}\n  aufgenommen: {low: 1900, high: 2100}\n"
        "  PLZ: {categories: ['10', '20', '50', '80']}\ntarget: {name: krank, kind: classification, classes: [0, 1]}\n",
    )
    home.silo("{connector: csv, path: rows.csv}", block)
    assert home.read().data.columns.dropped == {"Patientenname"}
    rows = home.load("data.test_fraction=0.25").data.train
    assert set(np.round(60 * (rows.x[:, 0] + 1), 2).tolist()) <= {37.5, 42.5, 52.5, 62.5}


@pytest.mark.parametrize("form", ["csv", "parquet", "sql"])
def test_a_silos_own_file_is_asked_for_all_columns(home, form: str) -> None:
    home.write("schema.yaml", SCHEMA)
    home.write("rows.csv", PATIENTS)
    frame = pd.read_csv(home.folder / "rows.csv")
    frame.to_parquet(home.folder / "rows.parquet")
    with sqlite3.connect(home.folder / "rows.db") as database:
        frame.to_sql("rows", database, index=False)
    data = {"sql": "{connector: sql, url: 'sqlite:///rows.db', query: SELECT * FROM rows}"}
    home.silo(data.get(form, f"{{connector: {form}, path: rows.{form}}}"))
    table = read_table(home.folder / "silo.yaml")
    assert list(table.columns) == list(frame.columns)
    assert (table.target, table.wanted) == ("krank", ("Alter", "chol", "krank"))
    found = classify(table.columns, table.target, table.missing)
    assert next(one for one in found if one.column == "krank").kind == "sensitive"
    block = proposed(found, table.wanted)
    assert "allow: [Alter, chol, krank]" in block
    assert "# Alter: {bucket: {width: 5}}  # quasi identifier; the schema has to fit" in block
    home.silo(data.get(form, f"{{connector: {form}, path: rows.{form}}}"), block)
    assert len(home.load("data.test_fraction=0.25").data.train) == 3


def test_a_file_without_names_is_not_shown_as_names(tmp_path: Path) -> None:
    body = "".join(PATIENTS.splitlines(keepends=True)[1:])
    (tmp_path / "p.data").write_text("63.0,1.0,145.0\n67.0,0.0,160.0\n")
    status, said = run(tmp_path / "p.data")
    assert status != 0
    assert "in the place of a name (column 1): say --no-header" in said
    assert "63.0" not in said
    with gzip.open(tmp_path / "p.csv.gz", "wt") as stream:
        stream.write(body.replace(",", ";"))
    table = read_table(tmp_path / "p.csv.gz", header=False)
    assert list(table.columns) == [f"column {place}" for place in range(1, 8)]
    assert len(table.columns["column 1"]) == 4


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("p.xlsx", "x", "is neither a silo's YAML file nor one of .csv"),
        ("p.csv", "", "is empty"),
        ("p.parquet", "no", "cannot be read as Parquet"),
        ("q.csv", None, "There is no file"),
        ("p.csv.gz", "no", "cannot be read as a text in UTF-8"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(
    tmp_path: Path, name: str, content: str | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=words):
        read_table(tmp_path / name)


def test_a_name_cannot_steer_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('"evil\x1b[2J[red]",on\n1,2\n3,4\n')
    status, said = run(tmp_path / "p.csv")
    assert status == 0
    assert "\x1b" not in said
    assert '"on"' in said
