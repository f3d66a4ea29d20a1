"""Every connector reads what its format says, and refuses in one sentence what it cannot read."""

from __future__ import annotations

import gzip
import re
import sqlite3

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from quire.clients.data.connectors.idx import read_idx, write_idx
from quire.errors import DataError

IMAGES = """
image: {height: 4, width: 6}
target: {name: shape, kind: classification, classes: [round, square]}
"""


def rows_of(loaded):
    """All rows of a silo, training and test together, in an order of their own."""
    x = np.concatenate([loaded.data.train.x, loaded.data.test.x])
    y = np.concatenate([loaded.data.train.y, loaded.data.test.y])
    order = np.lexsort(np.nan_to_num(x, nan=-9.0).T)
    return x[order], y[order]


def refused(home, words):
    """Load, and check that the refusal is one sentence with these words."""
    with pytest.raises(DataError) as caught:
        home.load()
    message = str(caught.value)
    assert re.search(words, message), message
    assert message.endswith(".")
    assert "\n" not in message
    assert caught.value.exit_code == 2


def table(home):
    return pd.read_csv(home.folder / "rows.csv")


def as_csv_gz(home):
    (home.folder / "rows.csv.gz").write_bytes(gzip.compress((home.folder / "rows.csv").read_bytes()))
    home.silo("{connector: csv, path: rows.csv.gz}")


def as_semicolons_without_header(home):
    table(home).to_csv(home.folder / "rows.txt", sep=";", header=False, index=False)
    home.silo("{connector: csv, path: rows.txt, separator: ';', names: [age, chol, pain, sick]}")


def as_parquet(home):
    table(home).assign(more=1).to_parquet(home.folder / "rows.parquet")
    home.silo("{connector: parquet, path: rows.parquet}")


def as_sql(home):
    with sqlite3.connect(home.folder / "rows.db") as connection:
        table(home).to_sql("patients", connection, index=False)
    home.silo("{connector: sql, url: 'sqlite:///rows.db', query: 'SELECT *, 1 AS more FROM patients'}")


@pytest.mark.parametrize("how", [as_csv_gz, as_semicolons_without_header, as_parquet, as_sql])
def test_the_same_rows_come_out_of_every_format(home, how):
    x, y = rows_of(home.load())
    how(home)
    other_x, other_y = rows_of(home.load())
    assert x.shape == (12, 4)
    assert (x == other_x).all()
    assert (y == other_y).all()


def test_columns_are_found_by_name_not_by_place(home):
    x, _ = rows_of(home.load())
    frame = table(home)
    frame[["sick", "pain", "age", "chol"]].to_csv(home.folder / "rows.csv", index=False)
    assert (rows_of(home.load())[0] == x).all()


def test_nulls_are_missing_values_in_every_format(home):
    text = (home.folder / "rows.csv").read_text().replace(",150,", ",,")
    home.write("rows.csv", text)
    for how in (None, as_parquet, as_sql):
        if how is not None:
            how(home)
        assert np.isnan(rows_of(home.load())[0][:, 1]).sum() == 1


def test_idx_plain_and_gzipped(home):
    home.write("schema.yaml", IMAGES.replace("[round, square]", "[3, 7]"))
    pixels = np.arange(5 * 24, dtype=np.uint8).reshape(5, 4, 6)
    write_idx(home.folder / "images", pixels)
    write_idx(home.folder / "labels", np.array([3, 7, 3, 7, 3]))
    (home.folder / "labels.gz").write_bytes(gzip.compress((home.folder / "labels").read_bytes()))
    home.silo("{connector: idx, images: images, labels: labels.gz}")
    x, y = rows_of(home.load())
    assert y.tolist() == [0, 1, 0, 1, 0]
    assert x.reshape(5, 4, 6) == pytest.approx(pixels / 127.5 - 1, abs=1e-6)


def paint(home):
    home.write("schema.yaml", IMAGES)
    for shape, light in (("round", 0), ("square", 255)):
        (home.folder / "pictures" / shape).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (9, 9), (light, light, light)).save(home.folder / "pictures" / shape / f"{number}.png")
    (home.folder / "pictures" / "round" / "notes.txt").write_text("not an image")
    home.silo("{connector: images, path: pictures}")


def test_a_folder_of_images_for_each_class_resized_and_grey(home):
    paint(home)
    x, y = rows_of(home.load())
    assert x.shape == (6, 24)
    assert (x == np.repeat([-1.0, 1.0], 3)[:, None]).all()
    assert y.tolist() == [0, 0, 0, 1, 1, 1]
    home.write("schema.yaml", IMAGES.replace("width: 6", "width: 6, channels: 3"))
    assert rows_of(home.load())[0].shape == (6, 72)


def test_rows_kept_for_testing_may_lie_in_a_file_of_their_own(home):
    home.write("test.csv", "age,chol,pain,sick\n50,300,none,1\n")
    home.silo("{connector: csv, path: rows.csv}", "test: {connector: csv, path: test.csv}")
    data = home.load().data
    assert (len(data.train), len(data.test)) == (12, 1)


def test_user_and_password_of_a_database_come_from_the_environment(home, monkeypatch):
    as_sql(home)
    url = "{connector: sql, url: 'sqlite:///rows.db', query: SELECT 1, password_env: HOME_SECRET}"
    home.silo(url)
    refused(home, "the environment has no variable 'HOME_SECRET'")
    monkeypatch.setenv("HOME_SECRET", "hunter2")
    source = home.read().data.source
    from quire.clients.data.connectors import sql

    assert sql._url(source).password == "hunter2"
    assert "hunter2" not in str(sql._url(source))


# --------------------------------------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("{connector: csv, path: none.csv}", r"silo\.yaml, line 2, column 30: there is no .*none\.csv"),
        ("{connector: csv}", "the connector needs the key 'path'"),
        ("{connector: csv, path: rows.csv, query: x}", "'data' has no key 'query'; there are connector, missing"),
        ("{connector: excel, path: rows.csv}", r"'excel' is none of Quire's connectors, .*is not approved"),
        ("{connector: csv, path: rows.csv, separator: ';'}", "has no column 'age', which the schema asks for"),
        ("{connector: csv, path: rows.csv, encoding: klingon}", "cannot be read as CSV: unknown encoding"),
        ("{connector: csv, path: rows.csv, header: 1}", "'header' must be true or false"),
        ("{connector: parquet, path: rows.csv}", "cannot be read as Parquet"),
        ("{connector: idx, images: rows.csv, labels: rows.csv}", "idx files hold images, but the schema has columns"),
        ("{connector: images, path: .}", "folders hold images, but the schema has columns"),
        ("{connector: sql, url: 'sqlite:///none.db', query: SELECT 1}", r"there is no .*none\.db"),
        ("{connector: sql, url: nonsense, query: SELECT 1}", "not an address that SQLAlchemy understands"),
        ("{connector: sql, url: 'sqlite:///rows.csv', query: SELECT 1 FROM x}", "the database answered with an error"),
        ("{connector: sql, url: 'nosuchdb://host/x', query: SELECT 1}", "the database answered with an error"),
        ("{path: rows.csv}", "'data' lacks the key 'connector'"),
        ("[1, 2]", "'data' must hold keys with values"),
    ],
)
def test_a_source_that_cannot_be_read(home, data, words):
    home.silo(data)
    refused(home, words)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELECT age FROM patients", "the result of the query has no column 'chol'"),
        ("SELECT * FROM nobody", "the database answered with an error: no such table: nobody"),
        ("SELEKT", "the database answered with an error: near"),
        ("DELETE FROM patients", "the result of the query has no column 'age'"),
    ],
)
def test_a_query_that_fails(home, query, words):
    as_sql(home)
    home.silo(f"{{connector: sql, url: 'sqlite:///rows.db', query: '{query}'}}")
    refused(home, words)
    with sqlite3.connect(home.folder / "rows.db") as connection:
        assert connection.execute("SELECT count(*) FROM patients").fetchone() == (12,)


@pytest.mark.parametrize("cut", [3, 40, -5])
def test_a_truncated_parquet_file(home, cut):
    as_parquet(home)
    path = home.folder / "rows.parquet"
    path.write_bytes(path.read_bytes()[:cut])
    refused(home, "cannot be read as Parquet")


def test_a_damaged_gzip_file(home):
    as_csv_gz(home)
    path = home.folder / "rows.csv.gz"
    path.write_bytes(path.read_bytes()[:-12])
    refused(home, "cannot be read as CSV")


def test_damaged_idx_files(home):
    home.write("schema.yaml", IMAGES.replace("[round, square]", "[0, 1]"))
    images, labels = home.folder / "images", home.folder / "labels"
    home.silo("{connector: idx, images: images, labels: labels}")
    write_idx(labels, np.array([0, 1]))
    write_idx(images, np.zeros((2, 4, 6)))
    whole = images.read_bytes()
    for content, words in [
        (b"", "is not an idx file"),
        (whole[:3], "is not an idx file"),
        (b"\0\0\x0d" + whole[3:], "is not an idx file of unsigned bytes"),
        (whole[:9], "ends within its header"),
        (whole[:-1], "speaks of 48 bytes, it holds 47"),
        (whole + b"x", "speaks of 48 bytes, it holds more"),
        (gzip.compress(whole)[:-9], "cannot be read"),
        (whole[:4] + b"\xff\xff\xff\xff" + whole[8:], "speaks of"),
    ]:
        images.write_bytes(content)
        refused(home, words)
    write_idx(images, np.zeros((3, 4, 6)))
    refused(home, "does not hold one label for each of the 3 images")
    write_idx(images, np.zeros((2, 6, 4)))
    refused(home, "holds images of 1 x 6 x 4, the schema says 1 x 4 x 6")


def test_what_is_no_image(home):
    paint(home)
    (home.folder / "pictures" / "round" / "0.png").write_bytes(b"\x89PNG nothing")
    refused(home, r"0\.png cannot be read as an image")
    (home.folder / "pictures" / "round" / "0.png").unlink()
    (home.folder / "pictures" / "round").rename(home.folder / "pictures" / "oval")
    refused(home, "'shape' has values that are none of the schema's classes")


def test_a_bomb_of_an_idx_file_is_not_unpacked(tmp_path):
    header = bytes([0, 0, 8, 1]) + (4).to_bytes(4, "big")
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(header + bytes(50_000_000)))
    with pytest.raises(DataError, match="it holds more"):
        read_idx(tmp_path / "bomb.gz")


def test_a_row_longer_than_the_header_is_refused_and_not_read_shifted(home):
    """As some programs write row names: without a name for their column."""
    lines = home.folder.joinpath("rows.csv").read_text().splitlines()
    named = "\n".join([lines[0], *(f"{place},{line}" for place, line in enumerate(lines[1:], start=1))])
    home.write("rows.csv", named + "\n")
    with pytest.raises(DataError, match="cannot be read as CSV"):
        home.load()


@pytest.mark.parametrize("separator", [",", "::"])
@pytest.mark.parametrize("end", ["csv", "csv.gz"])
def test_a_column_that_is_there_twice_is_refused(home, separator, end):
    """Which one is meant nobody can tell; a column that nobody asks for may be there as often as it likes."""
    lines = home.folder.joinpath("rows.csv").read_text().splitlines()
    rows = [line.replace(",", separator) for line in lines]
    asked = lines[0].split(",")[0]
    for name in (asked, "note"):
        text = "\n".join(
            [f"{rows[0]}{separator}{name}{separator}{name}", *(f"{row}{separator}1{separator}2" for row in rows[1:])]
        )
        data = text.encode("utf-8-sig")
        (home.folder / f"twice.{end}").write_bytes(gzip.compress(data) if end.endswith("gz") else data)
        home.silo(f"{{connector: csv, path: twice.{end}, separator: '{separator}'}}")
        if name == asked:
            refused(home, f"has more than one column '{asked}'")
        else:
            assert len(home.load().data.train)
