"""Numbers in YAML that people write: as they mean them, or refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from quire.conf.strict_yaml import Entry, loaded, read_yaml
from quire.errors import DataError


@pytest.fixture
def entry(tmp_path: Path):
    def read(text: str) -> Entry:
        (tmp_path / "a.yaml").write_text(f"it: {text}\n", encoding="utf-8")
        return read_yaml(tmp_path / "a.yaml").mapping(["it"])["it"]

    return read


@pytest.mark.parametrize(
    ("text", "number"),
    [("4", 4.0), ("-4.5", -4.5), ("+4", 4.0), ("4.", 4.0), (".5", 0.5), ("1e-5", 1e-5), ("1.0e-6", 1e-6), ("2E3", 2e3)],
)
def test_decimal_numbers_are_read(entry, text: str, number: float) -> None:
    assert entry(text).number() == number


ODD = ["2:0.0", "2:30", "010", "00.5", "0b1", "0x10", "1_000", "1_0.5", ".inf", ".nan", "1e400", "1" + "0" * 400]


@pytest.mark.parametrize("text", [*ODD, "1:" * 200 + "1.0", "1" * 5000, "true", "'4'", "4.0.0", "\u0664", "[4]"])
def test_other_spellings_are_no_numbers(entry, text: str) -> None:
    with pytest.raises(DataError, match=r"a\.yaml, line 1, column 5: ") as refused:
        entry(text).number()
    assert str(refused.value).count(". ") == 0
    with pytest.raises(DataError, match=r"a\.yaml, line 1, column 5: "):
        entry(text).whole(-1000, 1000)


@pytest.mark.parametrize("text", [*ODD[:-2], ODD[-1]])
def test_a_label_that_looks_like_another_number_is_to_be_quoted(entry, text: str) -> None:
    with pytest.raises(DataError, match="put it in quotes"):
        entry(text).label()
    assert entry(f"'{text}'").label() == text


def test_whole_numbers_are_read(entry) -> None:
    assert [entry(text).whole(-10, 1000) for text in ("0", "10", "-5", "1000")] == [0, 10, -5, 1000]
    with pytest.raises(DataError, match="from 1 to 9"):
        entry("10").whole(1, 9)


@pytest.mark.parametrize("text", ["!!bool maybe", "!!int ''", "!!float ''", "!!int x", "!!timestamp then", "!!null x"])
def test_a_tag_that_does_not_go_with_its_text_is_refused_in_a_sentence(entry, text: str) -> None:
    with pytest.raises(DataError, match=r"a\.yaml, line 1, column 5: "):
        entry(text).number()


@pytest.mark.parametrize("text", ["!!bool maybe", "a: !!int ''", "a: !!timestamp then", "2026-99-99", "{", "[" * 9999])
def test_what_a_machine_did_not_write_is_no_yaml(text: str) -> None:
    with pytest.raises(ValueError, match="not YAML"):
        loaded(text)
