"""Nothing redacted reaches a batch: over generated tables, rules and marks, in what training sees."""

from __future__ import annotations

import math
import re
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from quire.clients.data.connectors import Raw
from quire.clients.data.rules.cells import Bucket, Day, Hash, Keep, Mapped, Rule, as_number, as_text, gives
from quire.clients.data.rules.columns import Columns
from quire.clients.data.rules.redact import redacted
from quire.clients.data.table import to_rows
from quire.clients.tasks.schema import Categorical, Numeric, Schema, Target
from quire.errors import DataError

MISSING = "?"
#: Long enough to be found again wherever it may turn up, and no part of anything that a rule makes.
SECRETS = st.text("QWXYZ", min_size=8, max_size=12)
DATES = st.dates(date(1900, 1, 1), date(2099, 12, 31))
NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda number: round(number, 3))
EDGES = (-100.0, 0.0, 18.5, 40.0, 900.0)
TABLE = {
    "name": (SECRETS, None),
    "patient": (SECRETS, Hash()),
    "ward": (SECRETS, Hash(8)),
    "code": (SECRETS, Keep(3)),
    "place": (SECRETS, Mapped((("QQQQQQQQ", "north"),), "other")),
    "born": (DATES.map(str), Day("year")),
    "came": (DATES.map(lambda day: f"{day:%d.%m.%Y}"), Day("month", "%d.%m.%Y")),
    "weight": (NUMBERS.map(str), Bucket(width=7.5)),
    "age": (NUMBERS.map(str), Bucket(edges=EDGES)),
    "left": (SECRETS, None),
}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "hash.key"
    path.write_bytes(bytes(range(32)))
    path.chmod(0o600)
    return path


def columns_of(key: Path, **rules: Rule) -> Columns:
    return Columns(frozenset({*rules, "sick"}), frozenset(), tuple(rules.items()), key, key, None)


@st.composite
def tables(draw: st.DrawFn) -> dict[str, np.ndarray]:
    rows = draw(st.integers(1, 12))
    return {
        name: np.array(draw(st.lists(values | st.just(MISSING), min_size=rows, max_size=rows)), dtype=object)
        for name, (values, _) in TABLE.items()
    } | {"sick": np.array(draw(st.lists(st.sampled_from("01"), min_size=rows, max_size=rows)), dtype=object)}


def middle(text: str, rule: Bucket) -> float:
    """The representative, worked out from the definition alone: an oracle."""
    number = float(text)
    if rule.edges:
        inside = [(low + high) / 2 for low, high in pairwise(EDGES) if low <= number < high]
        return inside[0] if inside else (-50.0 if number < EDGES[0] else 470.0)
    return (number - number % rule.width) + rule.width / 2


@given(tables())
def test_nothing_redacted_reaches_a_batch(key: Path, table: dict[str, np.ndarray]) -> None:
    rules = {name: rule for name, (_, rule) in TABLE.items() if rule is not None}
    raw = redacted(Raw(table), columns_of(key, **rules), (MISSING,), {}, "here")
    assert set(raw.columns) == {*rules, "sick"}  # what is not allowed is gone: `name`, `left`
    seen = " ".join(str(cell) for values in raw.columns.values() for cell in values)
    for name, (_, rule) in TABLE.items():
        for place, text in enumerate(table[name]):
            if text != MISSING and not isinstance(rule, Bucket):
                assert text not in seen
            if rule is None:
                continue
            made = raw.columns[name][place]
            if text == MISSING:
                assert made is None or math.isnan(made)
            elif isinstance(rule, Bucket):
                assert made == pytest.approx(middle(text, rule), abs=1e-6)
            elif isinstance(rule, Keep):
                assert made == text[:3]
            elif isinstance(rule, Day):
                assert made == (text[:4] if rule.part == "year" else f"{text[6:]}-{text[3:5]}")
            elif isinstance(rule, Mapped):
                assert made == ("north" if text == "QQQQQQQQ" else "other")
            else:
                assert re.fullmatch("h[0-9a-f]{32}" if rule.buckets is None else "b[0-7]", made)
    schema = Schema(
        (
            *(Numeric(name, -1e6, 1e6, True, 0.0) for name in ("weight", "age")),
            *(Categorical(name, tuple(f"b{n}" for n in range(8)), True, "error") for name in ("ward",)),
            Categorical("place", ("north", "other"), True, "error"),
        ),
        None,
        Target("sick", "classification", (0.0, 1.0)),
    )
    rows = to_rows(raw, schema, (MISSING,), {}, "here")
    assert rows.y.tolist() == [int(text) for text in table["sick"]]  # as many rows, in their order
    for spot, name in enumerate(("weight", "age")):
        expected = [np.nan if text == MISSING else middle(text, rules[name]) / 1e6 for text in table[name]]
        assert np.allclose(rows.x[:, spot], np.clip(expected, -1, 1), atol=1e-6, equal_nan=True)
    known = np.array([text != MISSING for text in table["ward"]])
    assert (rows.x[:, 2:10].sum(axis=1) == known).all()


@given(tables(), st.data())
def test_what_a_rule_makes_of_a_row_depends_on_no_other(
    key: Path, table: dict[str, np.ndarray], data: st.DataObject
) -> None:
    columns = columns_of(key, **{name: rule for name, (_, rule) in TABLE.items() if rule is not None})
    count = len(table["sick"])
    chosen = np.array(data.draw(st.permutations(range(count)))[: data.draw(st.integers(1, count))])
    every = redacted(Raw(table), columns, (MISSING,), {}, "here").columns
    few = redacted(Raw({name: values[chosen] for name, values in table.items()}), columns, (MISSING,), {}, "here")
    for name, values in few.columns.items():
        assert [str(cell) for cell in values] == [str(cell) for cell in every[name][chosen]]


def one(rule: Rule, values: object, key: Path, *missing: str | float) -> list[object]:
    raw = Raw({"x": np.asarray(values, dtype=object) if isinstance(values, list) else values})  # type: ignore[arg-type]
    return redacted(raw, columns_of(key, x=rule), missing, {}, "here").columns["x"].tolist()


def test_a_value_is_the_same_whatever_file_it_came_from(key: Path) -> None:
    """7 as text, as a whole number, as 7.0, and in a column with other types beside it."""
    forms = [["7"], [" 7 "], np.array([7]), np.array([7.0]), [7], [7.0], np.array([7], np.int8), [np.float64(7.0)]]
    for rule in (Hash(), Hash(5), Bucket(width=5), Mapped((("7", "seven"),))):
        assert len({str(one(rule, form, key)) for form in forms}) == 1, rule
    assert one(Mapped((("1.0", "yes"),), "no"), ["1", 1, 1.0, "1.00", 2], key) == ["yes"] * 4 + ["no"]
    moment = np.array(["2026-11-22T10:30:00", "NaT"], dtype="datetime64[ns]")
    assert one(Day("month"), moment, key) == one(Day("month"), ["2026-11-22", ""], key) == ["2026-11", None]
    assert one(Day("year"), [date(2026, 11, 22), None], key) == ["2026", None]
    big = 2**63 - 1
    assert one(Keep(30), np.array([big]), key) == [str(big)]  # not by way of floating point


def test_whether_a_list_gives_numbers_is_for_the_list_to_say(key: Path) -> None:
    """And not for the rows: 2 among texts is the text `2`, whatever else is in the table."""
    mixed = Mapped((("a", 2.0), ("b", "two")))
    assert one(mixed, ["a", "b"], key) == ["2", "two"]
    assert one(mixed, ["a", "a"], key) == ["2", "2"]
    assert np.isnan(one(Mapped((("a", 2.0),)), ["a", "c"], key)).tolist() == [False, True]
    assert one(Mapped((("a", "x"),)), ["c"], key) == [None]


@pytest.mark.parametrize("rows", [1, 2, 999, 1000, 1001, 2500])
def test_a_column_of_many_values_is_hashed_as_one_of_few(key: Path, rows: int) -> None:
    """Whether equal values are looked for first is a matter of time: each row gets what it would get alone."""
    many = [f" patient {number} " for number in range(rows)]
    few = [many[number % 7] for number in range(rows)]
    expected = {text.strip(): one(Hash(), [text], key)[0] for text in many[:10]}
    hashes = one(Hash(), many, key)
    assert len(set(hashes)) == rows
    assert hashes[:10] == list(expected.values())[:rows]
    assert one(Hash(), few, key) == [expected[text.strip()] for text in few]
    late = [*many, None, "?", float("nan"), 7, 7.0, "7", many[0]]  # all is as ever behind what a sample shows
    assert one(Hash(), late, key, "?") == [*hashes, None, None, None, *one(Hash(), ["7"] * 3, key), hashes[0]]
    with pytest.raises(DataError, match=r"values that are no number, or one too large for their rule \(in 1 row\)"):
        one(Bucket(width=1), [*map(str, range(rows)), "x"], key)


def test_values_that_are_equal_in_python_do_not_stand_for_each_other(key: Path) -> None:
    assert one(Mapped((("True", "truth"), ("1", "one"))), [True, 1, True], key) == ["truth", "one", "truth"]


def test_missing_values_stay_missing_and_only_they(key: Path) -> None:
    for rule in (Hash(), Keep(9), Mapped((), "other"), Bucket(width=4)):
        made = one(rule, ["12", "?", "-9", "-9.0", "", None, float("nan")], key, "?", -9.0)
        assert [cell is None or cell != cell for cell in made] == [False, *[True] * 6], rule
    assert np.isnan(one(Bucket(width=4), np.array([-9, 3]), key, "-9")).tolist() == [True, False]


@pytest.mark.parametrize(
    ("rule", "bad", "words"),
    [
        (Bucket(width=5), "eighty", "values that are no number"),
        (Bucket(width=5), "inf", "values that are no number"),
        (Bucket(width=5), "1_0", "values that are no number"),
        (Bucket(width=5), "12345678901234567890", "or one too large for their rule"),  # whose bucket would name it
        (Day("year"), "22.11.2026", "values that are not dates"),
        (Day("year", "%d.%m.%Y"), "2026-11-22", "values that are not dates"),
    ],
)
def test_what_has_no_place_in_its_rule_is_refused_and_not_quoted(key: Path, rule: Rule, bad: str, words: str) -> None:
    good = (
        "2026-11-22" if isinstance(rule, Day) and rule.form is None else "22.11.2026" if rule.wrong[-1] == "m" else ""
    )
    with pytest.raises(DataError, match=words) as caught:
        one(rule, [good, bad, bad], key)
    assert str(caught.value).endswith("(in 2 rows).")
    assert bad not in str(caught.value)


def test_a_cut_that_leaves_a_mark_is_refused_where_the_rows_are(key: Path) -> None:
    """99123 cut to 99 would be missing, and would count as such in everything that follows."""
    with pytest.raises(DataError, match=r"has values that would be cut to a mark of missing values \(in 2 rows\)\."):
        one(Keep(2), ["? x", "? y", "?", "12345"], key, "?")
    with pytest.raises(DataError, match=r"cut to a mark of missing values \(in 1 row\)\."):
        one(Keep(3), ["9.05", "12"], key, 9.0)
    assert one(Keep(3), ["?", "?x", "12345"], key, "?") == [None, "?x", "123"]


MARKS = st.sampled_from(["?", "9", "99", "NA", "b1", "2020", "0009", "2020-01", 9.0, 99.0, 2020.0, -9.0, 0.5])
CELLS = st.text("?9NA-. b01", min_size=1, max_size=6) | st.dates().map(str)
MADE = st.sampled_from(["9", "99", "NA", "?", "9.0", 9.0, 99.0, -9.0])
ANY = (
    st.builds(Keep, st.integers(1, 5))
    | st.builds(Day, st.sampled_from(["month", "year"]))
    | st.builds(Hash, st.integers(2, 4))
    | st.builds(Mapped, st.lists(st.tuples(CELLS.map(str.strip), MADE), max_size=3).map(tuple), MADE)
    | st.builds(Bucket, width=st.sampled_from([1.0, 2.0, 18.0, 4040.0]))
)


@given(ANY, MARKS, st.lists(CELLS, min_size=1, max_size=6), st.lists(CELLS, min_size=1, max_size=3))
def test_no_rule_makes_a_value_missing(
    key: Path, rule: Rule, mark: str | float, cells: list[str], tails: list[str]
) -> None:
    """What no rule of a file can do, in the eyes of what encodes the rows: a value is refused before it is missing."""
    assume(not gives(rule, mark))
    cells = [*cells, *(f"{as_text(mark)}{tail}" for tail in tails)]  # what a cut could leave the mark of
    marks = {mark, "", *(text for text in cells if as_number(text.strip()) == mark)}
    known = np.array([text for text in cells if text.strip() not in marks and text not in marks], dtype=object)
    assume(len(known))
    try:
        raw = redacted(Raw({"x": known}), columns_of(key, x=rule), (mark,), {}, "here")
    except DataError:
        return
    column = (Numeric("x", 0, 1, False, 0.0),) if rule.numeric else (Categorical("x", ("a",), False, "ignore"),)
    raw = Raw({**raw.columns, "sick": np.zeros(len(known))})
    schema = Schema(column, None, Target("sick", "classification", (0.0, 1.0)))
    assert len(to_rows(raw, schema, (), {"x": (mark,)}, "here")) == len(known)


def test_a_hash_hides_behind_its_key(key: Path, tmp_path: Path) -> None:
    first = one(Hash(), ["anna", "anna", "bert"], key)
    assert first[0] == first[1] != first[2]
    other = tmp_path / "other.key"
    other.write_bytes(bytes(32))
    other.chmod(0o600)
    assert not set(one(Hash(), ["anna", "bert"], other)) & set(first)
    both = columns_of(key, x=Hash(), y=Hash())
    made = redacted(Raw({name: np.array(["anna"], object) for name in ("x", "y")}), both, (), {}, "here").columns
    assert made["x"][0] != made["y"][0]  # a key for each column
    hashes = one(Hash(16), [f"patient {n}" for n in range(3200)], key)
    counts = np.unique(np.array(hashes, dtype=str), return_counts=True)[1]
    assert len(counts) == 16
    assert 120 < counts.min() <= counts.max() < 290  # 200 expected, deviation 14: six of them


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (None, 0o600, "cannot be read: No such file"),
        (bytes(31), 0o600, "has 31 bytes: write 32 random ones there"),
        (bytes(5000), 0o600, "has 4097 bytes"),
        (bytes(32), 0o640, "must be a file that its owner alone may read"),
    ],
)
def test_a_key_that_is_no_secret_is_refused(tmp_path: Path, content: bytes | None, mode: int, words: str) -> None:
    path = tmp_path / "hash.key"
    if content is not None:
        path.write_bytes(content)
        path.chmod(mode)
    with pytest.raises(DataError, match=words):
        one(Hash(), ["anna"], path)


def test_without_a_key_file_the_silos_own_key_serves(tmp_path: Path) -> None:
    from quire.clients.identity import new_identity

    def hashed() -> list[object]:
        columns = Columns(None, frozenset(), (("x", Hash()),), None, tmp_path / "silo.key", None)
        return redacted(Raw({"x": np.array(["anna"], object)}), columns, (), {}, "here").columns["x"].tolist()

    with pytest.raises(
        DataError, match=r"The rule 'hash' needs a secret key, and .*: name a file with one in 'columns'"
    ):
        hashed()
    new_identity(tmp_path / "silo.key")
    assert hashed() == hashed()
