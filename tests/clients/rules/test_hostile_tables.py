"""`quire silo classify` over files as they come: any bytes end in a table or a sentence, and values are no names."""

from __future__ import annotations

import contextlib
import gzip
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from quire.cli import app as command
from quire.clients.data.rules.classify import classify
from quire.clients.data.rules.proposal import proposed
from quire.clients.data.rules.tables import read_table
from quire.errors import DataError, QuireError

GOOD = "nr,name,wert\n1,Anna Vogel,3\n2,Bert Meier,4\n"
PIECES = st.sampled_from(
    [
        *(b",", b";", b"\t", b"\n", b"\r", b'"', b" ", b"\x00", b"\xff", b"\xef\xbb\xbf", b".", b"-", b"e", b"_"),
        *(b"date", b"age", b"id", b"10.0", b"1e10", b"2020.0", b"20261122", b"2026-11-22", b"nan", b"inf", b"1_0"),
        *("²".encode(), "٢٠٢٠".encode(), b"F32.1", b"anna@example.org", b"123-45-6789", b"A" * 70),
    ]
)


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(command, ["silo", "classify", *map(str, words)])
    assert done.exception is None or isinstance(done.exception, SystemExit | QuireError), done.exception
    return done.exit_code, f"{done.output}{done.exception or ''}"


@pytest.mark.parametrize("cells", [["10.0", "24.0", ""], ["1e10", "2e10"], ["1e300", "-1.5e3"], ["+123", "-123"]])
def test_a_column_of_days_holds_whatever_number(cells: list[str]) -> None:
    (found,) = classify({"date": np.array(cells * 3, dtype=object)})
    assert found.column == "date"


@pytest.mark.parametrize("cells", [["2020", "2021"], ["2020.0", "2021.0", ""], ["20201122.0", "20211122.0"]])
def test_years_and_days_are_found_as_a_file_with_gaps_has_them(cells: list[str]) -> None:
    (found,) = classify({"date": np.array(cells * 3, dtype=object)})
    assert (found.kind, found.confidence) == ("date", 0.89)
    (belied,) = classify({"date": np.array(["7.0", "9.0"] * 3, dtype=object)})
    assert belied.kind == "plain"


@pytest.mark.parametrize("separator", ["||", "", "\n", '"', "\\n", "\x00"])
def test_a_separator_is_one_character(tmp_path: Path, separator: str) -> None:
    (tmp_path / "p.csv").write_text(GOOD)
    with pytest.raises(DataError, match="A separator is one character, ") as caught:
        read_table(tmp_path / "p.csv", separator)
    assert "\n" not in str(caught.value)


def test_a_tab_can_be_typed(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(GOOD.replace(",", "\t"))
    for separator in ("\t", "\\t", None):
        assert list(read_table(tmp_path / "p.csv", separator).columns) == ["nr", "name", "wert"]


@pytest.mark.parametrize("header", [True, False, None])
def test_a_field_without_an_end_is_one_sentence(tmp_path: Path, header: bool | None) -> None:
    (tmp_path / "p.csv").write_text("nr," + "x" * 140_000 + "\n1,2\n")
    with pytest.raises(DataError, match=r"The first line of .* cannot be read as CSV: field larger"):
        read_table(tmp_path / "p.csv", header=header)


def test_a_damaged_archive_is_one_sentence(tmp_path: Path) -> None:
    """Wherever it is damaged: in its head, in its first block, or behind what the first line needs."""
    rng = np.random.default_rng(1)
    rows = "".join(f"{number},Anna,{number % 7}\n" for number in rng.integers(0, 10**9, 20_000))
    content = gzip.compress(f"nr,name,wert\n{rows}".encode())
    for place in (4, 12, 40, len(content) // 2, len(content) - 6):
        damaged = bytearray(content)
        damaged[place : place + 8] = bytes(255 - byte for byte in damaged[place : place + 8])
        (tmp_path / "p.csv.gz").write_bytes(damaged if place > 4 else content[: len(content) // 2])
        with pytest.raises(DataError, match="cannot be read as") as caught:
            read_table(tmp_path / "p.csv.gz")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["\U0001f600.csv", "a\x7fb.csv", "no.csv", "1: [x.csv"])
def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(GOOD)
    assert list(read_table(tmp_path / name).columns) == ["nr", "name", "wert"]


@pytest.mark.parametrize(
    "line",
    [
        "Anna Meyer,female,Berlin,34,smoker",
        "Meyer Anna,anna@x.de,F32.1,34",
        "Anna,female,22.11.1950,smoker",
        "Anna,female,+49 30 123456,smoker",
        "Anna,female,E11,smoker",
        "Anna,female,DE89 3704 0044 0532 0130 00,x",
        "Anna,female,123e4567-e89b-12d3-a456-426614174000,x",
        "Anna;female;72,5;smoker",
        "Anna,female,-inf,smoker",
        "Anna,female,female,smoker",
        "\n\nAnna,female,34,smoker",
        '"Anna\nMeyer",female,34,smoker',
    ],
)
def test_one_value_in_place_of_a_name_is_enough(tmp_path: Path, line: str) -> None:
    (tmp_path / "p.csv").write_text(f"{line}\n{line}\n")
    status, said = run(tmp_path / "p.csv")
    assert status != 0
    assert "in the place of a name" in said
    assert "Anna" not in said
    assert run(tmp_path / "p.csv", "--no-header")[0] == 0


def test_who_has_looked_can_say_that_they_are_names(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("Time,V1,V28,Class\n1,0.5,0.25,0\n2,1.5,1.25,1\n")
    status, said = run(tmp_path / "p.csv")
    assert status != 0
    assert "(column 3)" in said
    status, said = run(tmp_path / "p.csv", "--header")
    assert status == 0
    assert "V28" in said


def told(content: bytes, name: str, separator: str | None, header: bool | None) -> None:
    """Read and classify as the command does; nothing but a :class:`QuireError` may come out."""
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(QuireError):
        path = Path(folder) / name
        path.write_bytes(content)
        table = read_table(path, separator, header)
        proposed(classify(table.columns, table.target, table.missing), table.wanted)


@settings(max_examples=200)
@given(
    st.binary(max_size=60) | st.lists(PIECES, max_size=24).map(b"".join),
    st.sampled_from([None, ",", ";", "\\t", " ", "e", "\xa4"]),
    st.sampled_from([None, True, False]),
)
@example(b",", None, None)
def test_any_bytes_end_in_a_table_or_in_a_sentence(content: bytes, separator: str | None, header: bool | None) -> None:
    told(content, "p.csv", separator, header)


@settings(max_examples=80)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_any_damage_to_an_archive_ends_in_a_table_or_in_a_sentence(place: int, bytes_: bytes) -> None:
    content = bytearray(gzip.compress(GOOD.encode() + b"".join(b"%d,x%d,9\n" % (n, n * n) for n in range(90)), mtime=0))
    content[place : place + len(bytes_)] = bytes_
    told(bytes(content), "p.csv.gz", None, None)


@settings(max_examples=100)
@given(st.lists(st.lists(PIECES, max_size=3).map(b"".join), max_size=12), st.sampled_from(["date", "dob", "x", "id"]))
def test_any_cells_of_a_column_are_classified(cells: list[bytes], name: str) -> None:
    told(
        b"\n".join([name.encode() + b",y", *(b'"' + cell.replace(b'"', b"") + b'",1' for cell in cells)]),
        "p.csv",
        ",",
        None,
    )
