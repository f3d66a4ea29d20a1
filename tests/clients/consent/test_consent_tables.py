"""What a consent table and a column of subjects may hold, and that exactly the allowed rows reach training."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from consenting import CONSENT, RECORDS, Consenting
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quire.clients.data.consent.ids import ids_of, one_id
from quire.clients.data.consent.section import GIVEN, WITHDRAWN
from quire.clients.data.consent.table import Listing
from quire.conf.compose import compose
from quire.errors import DataError

TODAY = datetime.datetime.now(datetime.UTC).date()
CSV = "{subject: patient, withdrawn: {connector: csv, path: out.csv, key: id%s}}"


@pytest.fixture
def silo(tmp_path: Path) -> Consenting:
    return Consenting(tmp_path)


# ------------------------------------------------------------------------------------------------------------- ids
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([" a ", "", "007", "7"], dtype=object), ["a", None, "007", "7"]),
        (np.array([7, -1]), ["7", "-1"]),
        (np.array([7.0, np.nan]), ["7", None]),
        (np.array([None, float("nan"), pd.NA, pd.NaT], dtype=object), [None] * 4),
        (
            np.array([10**30, decimal.Decimal("12"), uuid.UUID(int=1)], dtype=object),
            [str(10**30), "12", str(uuid.UUID(int=1))],
        ),
        (np.array(["?", "x"], dtype=object), [None, "x"]),
    ],
)
def test_ids_are_exact_text(values: np.ndarray, expected: list[str | None]) -> None:
    assert ids_of(values, "id", "here", {"?"}) == expected


@pytest.mark.parametrize(
    "value",
    [
        True,
        1.5,
        2.0**53,
        float("inf"),
        b"p1",
        datetime.date(2026, 1, 1),
        ["p1"],
        {"p": 1},
        decimal.Decimal("1.5"),
        "x" * 257,
    ],
)
def test_what_cannot_be_an_id_is_refused_and_not_quoted(value: object) -> None:
    values = np.empty(2, dtype=object)
    values[0], values[1] = "p0", value
    with pytest.raises(DataError, match=r"the column 'id' has (a subject id|an id).*\(row 2\)") as refused:
        ids_of(values, "id", "here")
    assert str(value)[:40] not in str(refused.value) or str(value) in ("True", "1.5")


@pytest.mark.parametrize("text", ["", "  \n", "a\nb", "x" * 257])
def test_a_person_gives_one_id(text: str) -> None:
    with pytest.raises(DataError, match="does not hold one subject id"):
        one_id(text, "The answer")
    assert one_id(" p1\n", "The answer") == "p1"


# ----------------------------------------------------------------------------------------------------- the section
@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("{subject: age}", "the schema asks for the column 'age'"),
        ("{subject: sick}", "the schema asks for the column 'sick'"),
        ("{withdrawn: {connector: csv, path: out.csv, key: id}}", "lacks the key 'subject'"),
        ("{subject: patient, since: 2020}", "has no key 'since'"),
        ("{subject: patient, withdrawn: {path: out.csv, key: id}}", "'withdrawn' lacks the key 'connector'"),
        ("{subject: patient, withdrawn: {connector: idx, key: id}}", "read by csv, parquet, sql, not by 'idx'"),
        ("{subject: patient, withdrawn: {connector: csv, path: out.csv}}", "lacks the key 'key'"),
        ("{subject: patient, given: {connector: csv, path: out.csv, key: id}}", "lacks the key 'flag'"),
        ("{subject: patient, withdrawn: {connector: csv, path: out.csv, key: id, flag: x}}", "has no key 'flag'"),
        ("{subject: patient, given: {connector: csv, path: out.csv, key: id, flag: id}}", "one column for two things"),
        (
            "{subject: patient, withdrawn: {connector: csv, path: out.csv, key: id}, "
            "given: {connector: csv, path: out.csv, key: id, flag: x}}",
            "not both",
        ),
        ("[patient]", "must hold keys with values"),
    ],
)
def test_a_section_that_says_something_else_is_refused(silo: Consenting, section: str, says: str) -> None:
    silo.consent(section)
    with pytest.raises(DataError, match=says) as refused:
        silo.file()
    assert "silo.yaml, line 4, column" in str(refused.value)


def test_only_a_declared_number_may_leave(silo: Consenting) -> None:
    (silo.folder / "silo.yaml").write_text(f"name: clinic-1\ndata: {{connector: csv, path: rows.csv}}\n{CONSENT}")
    with pytest.raises(DataError, match="'consent' needs 'population"):
        silo.file()


def test_a_shipped_data_set_has_no_subjects(tmp_path: Path) -> None:
    from quire.clients.data.silo_file import read_silo_file

    path = tmp_path / "silo.yaml"
    path.write_text(f"data: {{connector: shipped, partition: 0, partitions: 2}}\n{CONSENT}")
    with pytest.raises(DataError, match="a shipped data set has no 'consent' of its own"):
        read_silo_file(path)


# ------------------------------------------------------------------------------------------------------- the table
@pytest.mark.parametrize(
    ("table", "more", "says"),
    [
        ("", "", "is empty"),
        ("patient\np1\n", "", "no column 'id'"),
        ("id,id\np1,p2\n", "", "more than one column 'id'"),
        ("id,x\np1,1\n,2\n", "", "a withdrawal without a subject id in 'id' (row 2)"),
        (f"id\n{'x' * 300}\n", "", "an id of more than 256 characters (row 1)"),
        ("id\np1,p2,p3\n", "", "cannot be read as CSV"),
        ("id,day\np1,soon\n", ", since: day", "no date as in 2026-11-22 (row 1)"),
        ("id,day\np1,20261131\n", ", since: day", "no date as in 2026-11-22 (row 1)"),
    ],
)
def test_a_hostile_table_is_one_sentence(silo: Consenting, table: str, more: str, says: str) -> None:
    (silo.folder / "out.csv").write_text(table)
    silo.consent(CSV % more)
    with pytest.raises(DataError) as refused:
        silo.load()
    assert says in str(refused.value)
    assert "p1" not in str(refused.value).replace("p1,p2", "")


@pytest.mark.parametrize("ids", [[1.5], [True], [b"p1"], [datetime.datetime(2026, 1, 1)]])
def test_wrong_types_in_parquet_are_one_sentence(silo: Consenting, ids: list[object]) -> None:
    pd.DataFrame({"id": ids}).to_parquet(silo.folder / "out.parquet")
    silo.consent("{subject: patient, withdrawn: {connector: parquet, path: out.parquet, key: id}}")
    with pytest.raises(DataError, match="neither a text nor an exact whole number"):
        silo.load()


def test_duplicates_withdraw_once_and_a_contradiction_is_refused(silo: Consenting) -> None:
    silo.withdraw("p1", "p1", "p1 ", "elsewhere")
    assert silo.load().sifted.left_out == {"withdrawn": 1}
    more = "".join(f"p{place},yes\n" for place in range(10, 60))
    (silo.folder / "in.csv").write_text(f"id,ok\np1,yes\np1,yes\np2,YES\np3,no\np4,\np5,1\n{more}")
    silo.consent("{subject: patient, given: {connector: csv, path: in.csv, key: id, flag: ok}}")
    assert silo.load().sifted.left_out == {"not given": RECORDS - 53}
    (silo.folder / "in.csv").write_text("id,ok\np1,yes\np1,no\n")
    with pytest.raises(DataError, match="says yes and something else of one subject"):
        silo.load()


def test_opt_in_keeps_those_alone_who_said_yes(silo: Consenting) -> None:
    yes = [f"p{place}" for place in range(0, 60, 2)]
    (silo.folder / "in.csv").write_text("id,ok\n" + "".join(f"{one},1\n" for one in yes) + "p1,0\np3,\np5,perhaps\n")
    silo.consent("{subject: patient, given: {connector: csv, path: in.csv, key: id, flag: ok}}")
    sifted = silo.load().sifted
    assert sifted.left_out == {"not given": 30}
    assert set(sifted.train_ids) <= set(yes)
    silo.consent("{subject: patient, given: {connector: csv, path: in.csv, key: id, flag: ok, yes: [perhaps, '1']}}")
    assert silo.load().sifted.left_out == {"not given": 29}


@pytest.mark.parametrize(
    ("day", "out"),
    [("", True), (TODAY, True), (TODAY - datetime.timedelta(1), True), (TODAY + datetime.timedelta(3), False)],
)
def test_a_withdrawal_counts_from_its_day_on(silo: Consenting, day: object, out: bool) -> None:
    (silo.folder / "out.csv").write_text(f"id,day\np1,{day}\n")
    silo.consent(CSV % ", since: day")
    assert silo.load().sifted.left_out == ({"withdrawn": 1} if out else {})


def test_dates_of_parquet(silo: Consenting) -> None:
    days = [datetime.datetime(2020, 1, 1), None, datetime.datetime(2999, 1, 1)]
    pd.DataFrame({"id": ["p1", "p2", "p3"], "day": pd.to_datetime(pd.Series(days))}).to_parquet(
        silo.folder / "o.parquet"
    )
    silo.consent("{subject: patient, withdrawn: {connector: parquet, path: o.parquet, key: id, since: day}}")
    assert silo.load().sifted.left_out == {"withdrawn": 2}


def test_rows_without_a_subject_are_dropped_and_counted(silo: Consenting) -> None:
    silo.rows(RECORDS, more=",33,1\n  ,34,0\np99,35,1\n")
    silo.withdraw("p99", "p1")
    sifted = silo.load().sifted
    assert (sifted.came, sifted.left_out) == (RECORDS + 3, {"no id": 2, "withdrawn": 2})
    silo.consent("{subject: patient}")
    assert silo.load().sifted.left_out == {"no id": 2}


def test_rows_kept_for_testing_are_held_to_consent_too(silo: Consenting) -> None:
    (silo.folder / "test.csv").write_text("patient,age,sick\n" + "".join(f"t{n},{20 + n},{n % 2}\n" for n in range(10)))
    path = silo.folder / "silo.yaml"
    path.write_text(path.read_text() + "test: {connector: csv, path: test.csv}\n")
    silo.withdraw("t1", "t2", "p3")
    loaded = silo.load()
    assert (len(loaded.data.train), len(loaded.data.test)) == (RECORDS - 1, 8)
    assert loaded.sifted.left_out == {"withdrawn": 3}


# ---------------------------------------------------------------------------------------------- exactly the allowed
def ages(rows: object) -> list[int]:
    return [round(50 * (x + 1)) for x in np.asarray(rows.x)[:, 0].tolist()]  # type: ignore[attr-defined]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    subjects=st.lists(st.sampled_from([*"abcdefgh", "", " a "]), min_size=8, max_size=60),
    listed=st.sets(st.sampled_from([*"abcdefgh", "z"])),
    opt_in=st.booleans(),
    private=st.booleans(),
    validated=st.booleans(),
    separate=st.booleans(),
)
def test_what_reaches_training_is_what_is_allowed_and_nobody_else_moves(
    silo: Consenting,
    subjects: list[str],
    listed: set[str],
    opt_in: bool,
    private: bool,
    validated: bool,
    separate: bool,
) -> None:
    lines = [f"{one},{place},{place % 2}" for place, one in enumerate(subjects)]
    silo.csv.write_text("patient,age,sick\n" + "\n".join(lines) + "\n")
    (silo.folder / "test.csv").write_text("patient,age,sick\nt,70,0\nu,71,1\n")
    means = GIVEN if opt_in else WITHDRAWN
    flag, column = (", flag: ok", ",ok") if opt_in else ("", "")
    (silo.folder / "out.csv").write_text(
        f"id{column}\n" + "".join(f"{one}{',1' if opt_in else ''}\n" for one in sorted(listed))
    )
    section = f"consent: {{subject: patient, {means}: {{connector: csv, path: out.csv, key: id{flag}}}}}\n"
    apart = "test: {connector: csv, path: test.csv}\n" if separate else ""
    how = f"privacy={'record' if private else 'none'} data.validation_fraction={0.25 if validated else 0}"
    how += " privacy.epsilon=2 privacy.delta=1e-3" if private else ""

    def parts(consent: str) -> list[list[int]]:
        silo.write(
            f"{consent}{apart}",
            modes="[record]" if private else "[none]",
            **dict.fromkeys(("epsilon", "delta")) if not private else {},
        )
        data = silo.load(how).data
        return [ages(part) for part in (data.train, data.test, data.validation) if part is not None]

    def allowed(age: int) -> bool:
        one = {70: "t", 71: "u"}.get(age) if age >= 70 else subjects[age].strip()
        return bool(one) and (one in listed) is opt_in

    before = parts("")
    expected = [[age for age in part if allowed(age)] for part in before]
    if not private and not all(expected):
        with pytest.raises(DataError, match="without rows to train on or to test on"):
            parts(section)
        return
    assert parts(section) == expected


@given(
    ids=st.lists(st.none() | st.text(max_size=5)),
    listed=st.sets(st.text(max_size=5)),
    means=st.sampled_from([GIVEN, WITHDRAWN]),
)
def test_a_listing_allows_what_a_bare_look_up_does(ids: Sequence[str | None], listed: set[str], means: str) -> None:
    found = Listing(means, frozenset(listed), b"").allows(ids)
    assert found.tolist() == [one is not None and ((one in listed) == (means == GIVEN)) for one in ids]


def test_settings_have_nothing_of_it() -> None:
    assert "consent" not in compose("task=tabular partition.silos=2").overrides
