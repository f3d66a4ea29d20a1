"""From cells to features: what the schema says, what it refuses, and what stands for a missing value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quire.clients.data.connectors import Raw
from quire.clients.data.preprocess import prepare
from quire.clients.data.table import to_rows
from quire.clients.tasks.moments import COUNT, SQUARES, SUM, Statistics, combine, moments, usable
from quire.clients.tasks.schema import Categorical, Image, Numeric, Schema, Target
from quire.errors import DataError

AGE = Numeric("age", 0.0, 100.0, missing=False, impute=50.0)
CHOL = Numeric("chol", 100.0, 500.0, missing=True, impute=200.0)
PAIN = Categorical("pain", ("none", "some"), missing=False, unknown="error")
SICK = Target("sick", "classification", (0.0, 1.0))


def encode(schema, missing=(), missing_in=None, **columns):
    raw = Raw({name: np.array(values) for name, values in columns.items()})
    return to_rows(raw, schema, missing, missing_in or {}, "rows.csv")


def one(column, values, **more):
    """Features of one column, with a target that is in order."""
    return encode(Schema((column,), None, SICK), sick=[1] * len(values), **{column.name: values}, **more).x


def cells(*values):
    return np.array(values, dtype=object)


# ------------------------------------------------------------------------------------------ what is encoded
def test_numbers_are_scaled_by_public_bounds_and_clipped():
    assert one(AGE, [0, 50, 100, -7, 1e9])[:, 0].tolist() == [-1, 0, 1, -1, 1]
    assert one(AGE, cells("0", " 50 ", "1e2", 25, 75.0))[:, 0].tolist() == [-1, 0, 1, -0.5, 0.5]


def test_categories_become_indicators_in_the_schemas_order():
    assert one(PAIN, cells("some", " none ")).tolist() == [[0, 1], [1, 0]]
    numbers = Categorical("cp", (4.0, 1.0), missing=False, unknown="error")
    for values in ([1, 4], [1.0, 4.0], cells("1", "4.0"), cells(1, 4.0)):
        assert one(numbers, values).tolist() == [[0, 1], [1, 0]]


def test_a_category_that_no_row_has_is_a_feature_all_the_same():
    assert one(PAIN, cells("none", "none")).tolist() == [[1, 0], [1, 0]]


@pytest.mark.parametrize("mark", ["?", "-9", -9, 0])
def test_marks_of_missing_values(mark):
    marks = (float(mark),) if isinstance(mark, int) else (mark,)
    assert np.isnan(one(CHOL, cells("200", str(mark), "", None, float("nan")), missing=marks)[:, 0]).tolist() == [
        False,
        *[True] * 4,
    ]
    assert np.isnan(one(CHOL, cells("200", str(mark)), missing_in={"chol": marks})[:, 0]).tolist() == [False, True]
    assert not np.isnan(one(CHOL, cells("200", str(mark).replace("?", "1")), missing_in={"age": marks})).any()


def test_a_missing_or_ignored_category_is_all_zeros():
    lenient = Categorical("pain", ("none", "some"), missing=True, unknown="ignore")
    assert one(lenient, cells("?", "odd", "some"), missing=("?",)).tolist() == [[0, 0], [0, 0], [0, 1]]


def test_targets():
    schema = Schema((AGE,), None, Target("num", "classification", ("healthy", "disease"), at_least=1.0))
    assert encode(schema, age=[1, 1, 1], num=cells("0", "1", "4")).y.tolist() == [0, 1, 1]
    named = Schema((AGE,), None, Target("num", "classification", ("b", "a")))
    assert encode(named, age=[1, 1], num=cells("a", "b")).y.tolist() == [1, 0]
    number = Schema((AGE,), None, Target("num", "regression", low=10.0, high=30.0))
    rows = encode(number, age=[1, 1, 1], num=[10, 20, 50])
    assert rows.y.tolist() == [-1, 0, 3]  # scaled and never clipped: that would falsify the scores
    assert rows.y.dtype == np.float32


# --------------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        (
            AGE,
            cells("12", "secret", "x"),
            r"'age' has values that are not numbers; .* \(in 2 rows, the first of them row 2\)",
        ),
        (AGE, cells("12", "nan"), r"'age' has values that are not numbers; .* \(in row 2\)"),
        (AGE, cells("12", "inf"), r"'age' has infinite values \(in row 2\)"),
        (AGE, [1.0, -np.inf], r"'age' has infinite values \(in row 2\)"),
        (AGE, [1.0, np.nan], r"'age' has missing values, which the schema does not allow \(in row 2\)"),
        (AGE, cells("12", ""), r"'age' has missing values, which the schema does not allow"),
        (PAIN, cells("none", "secret"), r"'pain' has values that are none of the schema's categories \(in row 2\)"),
        (PAIN, cells("none", None), r"'pain' has missing values"),
        (PAIN, [1.0, 2.0], r"'pain' has values that are none of the schema's categories \(in 2 rows"),
        (AGE, [], "holds no rows"),
        (AGE, [[1, 2]], "does not hold single values"),
    ],
)
def test_values_that_the_schema_does_not_allow(column, values, words):
    with pytest.raises(DataError, match=words) as caught:
        one(column, values)
    assert "secret" not in str(caught.value), "a message must not quote a value"


@pytest.mark.parametrize(
    ("target", "values", "words"),
    [
        (SICK, cells("0", "2"), "'sick' has values that are none of the schema's classes"),
        (SICK, cells("0", ""), "'sick' has missing values, but it is the target"),
        (SICK, [0.0, np.nan], "'sick' has missing values, but it is the target"),
        (Target("sick", "regression", low=0.0, high=1.0), cells("1", "inf"), "'sick' has values that are not finite"),
        (Target("sick", "classification", ("a", "b"), at_least=1.0), cells("1", "x"), "not finite numbers"),
        (Target("num", "classification", (0.0, 1.0)), [0, 1], "has no column 'num', which the schema asks for"),
    ],
)
def test_targets_that_cannot_be_used(target, values, words):
    with pytest.raises(DataError, match=words):
        encode(Schema((AGE,), None, target), age=[1, 2], sick=values)


def test_columns_of_different_lengths_and_images_of_another_form():
    with pytest.raises(DataError, match="'age' has another number of rows than 'sick'"):
        encode(Schema((AGE,), None, SICK), age=[1], sick=[0, 1])
    schema = Schema((), Image(2, 2, 1), SICK)
    for pixels in (None, np.zeros((1, 1, 2, 2), np.uint8), np.zeros((2, 1, 2, 2)), np.zeros((2, 1, 2, 3), np.uint8)):
        with pytest.raises(DataError, match="images"):
            to_rows(Raw({"sick": np.array([0, 1])}, pixels), schema, (), {}, "here")


@given(st.lists(st.one_of(st.text(max_size=5), st.floats(), st.integers(), st.none(), st.booleans()), max_size=8))
def test_whatever_the_cells_hold_is_encoded_or_refused(values):
    column = np.empty(len(values), dtype=object)
    column[:] = values
    for kind in (AGE, CHOL, PAIN):
        try:
            x = one(kind, column)
        except DataError:
            continue
        assert x.dtype == np.float32
        assert not np.isinf(x).any()
        assert kind is CHOL or not np.isnan(x).any()


# ------------------------------------------------------------------------------------------ preprocessing
def test_public_imputes_by_the_schemas_constant(home):
    home.write("rows.csv", (home.folder / "rows.csv").read_text().replace(",150,", ",,"))
    loaded = home.load()
    data = prepare(loaded, "public")
    x = np.concatenate([data.train.x, data.test.x])
    assert not np.isnan(x).any()
    assert np.float32(-0.5) in x[:, 1]  # 200 between 100 and 500
    assert data.train.x is not loaded.data.train.x or not np.isnan(loaded.data.train.x).any()


def test_per_silo_standardises_by_the_training_rows(home):
    home.write("rows.csv", (home.folder / "rows.csv").read_text().replace(",150,", ",,"))
    loaded = home.load()
    data = prepare(loaded, "per_silo")
    known = ~np.isnan(loaded.data.train.x[:, 1])
    assert data.train.x[known, 1].mean() == pytest.approx(0, abs=1e-6)
    assert data.train.x[known, 1].std() == pytest.approx(1, abs=1e-5)
    assert (data.train.x[~known, 1] == 0).all()
    assert (data.train.x[:, 2:] == loaded.data.train.x[:, 2:]).all()  # indicators stay as they are


def test_summed_moments_are_those_of_the_pooled_rows():
    rng = np.random.default_rng(1)
    parts = [rng.uniform(-1, 1, (n, 3)).astype(np.float32) for n in (5, 90, 300)]
    parts[1][::3, 2] = np.nan
    numeric = np.array([True, False, True])
    sums = [moments(part, numeric) for part in parts]
    assert all(usable(part, 2) for part in sums)
    found, pooled = combine(sums), np.concatenate(parts)[:, numeric].astype(np.float64)
    assert found.mean == pytest.approx(np.nanmean(pooled, axis=0), rel=1e-12)
    assert found.scale == pytest.approx(np.nanstd(pooled, axis=0), rel=1e-9)
    assert combine(sums) == found


def test_a_column_without_values_or_without_spread():
    x = np.array([[np.nan, 0.5], [np.nan, 0.5]], dtype=np.float32)
    assert combine([moments(x, np.array([True, True]))]) == combine(
        [{COUNT: np.array([0.0, 2.0]), SUM: np.array([0.0, 1.0]), SQUARES: np.array([0.0, 0.5])}]
    )
    found = combine([moments(x, np.array([True, True]))])
    assert (found.mean, found.scale) == ((0.0, 0.5), (1.0, 1.0))


@pytest.mark.parametrize(
    "wrong",
    [
        {COUNT: np.array([-1.0])},
        {COUNT: np.array([np.inf])},
        {SUM: np.array([9.0])},
        {SUM: np.array([np.nan])},
        {SQUARES: np.array([-0.1])},
        {SQUARES: np.array([3.0])},
        {SQUARES: np.array([1.0, 1.0])},
        {SQUARES: np.array([1], dtype=np.int64)},
        {"more": np.array([1.0])},
    ],
)
def test_moments_that_no_rows_could_have(wrong):
    good = {COUNT: np.array([2.0]), SUM: np.array([1.0]), SQUARES: np.array([0.5])}
    assert usable(good, 1)
    assert not usable({**good, **wrong}, 1)
    assert not usable(good, 2)


def test_statistics_that_keep_changing_do_not_fill_the_memory(home):
    loaded = home.load()
    for mean in range(5):
        prepare(loaded, "federated", Statistics((float(mean), 0.0), (1.0, 1.0)))
    assert len(loaded.prepared) == 1
    assert prepare(loaded, "public") is prepare(loaded, "public")


@pytest.mark.parametrize(
    ("count", "total", "squares"),
    [(1e308, -1e308, 0.0), (1e13, 0.0, 0.0), (2.5, 0.0, 1.0), (10.0, 10.0, 1.0), (-1.0, 0.0, 0.0), (4.0, 0.0, 5.0)],
)
def test_moments_that_no_rows_could_give_are_refused(count, total, squares):
    parts = {COUNT: np.array([count]), SUM: np.array([total]), SQUARES: np.array([squares])}
    assert not usable(parts, 1)


@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 20), st.just(3)), elements=st.floats(-1, 1, width=32)))
def test_moments_of_rows_are_always_usable(x):
    assert usable(moments(x, np.ones(3, dtype=bool)), 3)


def test_a_column_of_numbers_is_read_as_the_same_column_of_text_would_be():
    """A Parquet file has numbers where a CSV file has their digits: both mean the same."""
    codes = Categorical("code", ("1234567", "0.25", "other"), missing=False, unknown="ignore")
    expected = [[1, 0, 0], [0, 1, 0]]
    assert one(codes, np.array([1234567, 0.25])).tolist() == expected
    assert one(codes, cells("1234567", "0.25")).tolist() == expected
    for values in (np.array([200, -9]), cells("200", "-9")):
        assert np.isnan(one(CHOL, values, missing=("-9",))[:, 0]).tolist() == [False, True]
