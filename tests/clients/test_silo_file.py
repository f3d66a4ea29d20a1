"""schema.yaml and silo.yaml: read strictly, every mistake in one sentence with its place."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quire.clients.data.silo_file import read_silo, silo_files
from quire.clients.tasks.schema import Categorical, Numeric, read_schema
from quire.conf.strict_yaml import MAX_BYTES, read_yaml
from quire.errors import DataError

GOOD = "{name: sick, kind: classification, classes: [0, 1]}"


def schema_of(home, columns="{age: {low: 0, high: 9}}", target=GOOD, more=""):
    return read_schema(home.write("schema.yaml", f"columns: {columns}\ntarget: {target}\n{more}"))


def one_sentence(error):
    message = str(error)
    assert message.endswith(".")
    assert "\n" not in message
    assert not re.search(r"[.?!] [A-Z]", message), message
    return message


def test_a_schema_says_what_its_file_says(home):
    schema = home.read().schema
    assert schema.columns == (
        Numeric("age", 0.0, 100.0, False, 50.0),
        Numeric("chol", 100.0, 500.0, True, 200.0),
        Categorical("pain", ("none", "some"), False, "error"),
    )
    assert (schema.features, schema.numeric.tolist()) == (4, [True, True, False, False])
    assert schema.target.classes == (0.0, 1.0)


def test_the_hash_sees_what_is_said_and_not_how(home):
    first = schema_of(home, "{age: {low: 0, high: 9}, x: {categories: [a, b]}}").sha256
    same = "\n  age:\n    high: 9.0   # years\n    low: 0\n  x: {categories: ['a', 'b'], missing: false}"
    assert schema_of(home, same).sha256 == first
    others = [
        schema_of(home, "{x: {categories: [a, b]}, age: {low: 0, high: 9}}"),
        schema_of(home, "{age: {low: 0, high: 8}, x: {categories: [a, b]}}"),
        schema_of(home, "{age: {low: 0, high: 9}, x: {categories: [b, a]}}"),
        schema_of(home, "{age: {low: 0, high: 9, missing: true}, x: {categories: [a, b]}}"),
        schema_of(home, "{age: {low: 0, high: 9}, x: {categories: [a, b]}}", GOOD.replace("[0, 1]", "[1, 0]")),
    ]
    assert len({first, *(other.sha256 for other in others)}) == 6


@pytest.mark.parametrize(
    ("columns", "target", "words"),
    [
        ("{}", GOOD, "line 1, column 10: there must be at least one column"),
        ("[age]", GOOD, "'columns' must hold keys with values"),
        ("{age: 5}", GOOD, "line 1, column 16: 'age' must hold keys with values"),
        ("{age: {low: 0}}", GOOD, "'age' must have 'low' and 'high', or 'categories'"),
        ("{age: {low: 0, high: x}}", GOOD, "'high' must be a number"),
        ("{age: {low: 0, high: .inf}}", GOOD, "'high' must be a number"),
        ("{age: {low: 0, high: true}}", GOOD, "'high' must be a number"),
        ("{age: {low: 3, high: 3}}", GOOD, "'high' must be greater than 'low'"),
        ("{age: {low: 0, high: 9, impute: 10}}", GOOD, "'impute' must lie between 0 and 9"),
        ("{age: {low: 0, high: 9, hihg: 10}}", GOOD, "'age' has no key 'hihg'; there are low, high"),
        ("{age: {low: 0, high: 9, unknown: ignore}}", GOOD, "only a categorical column has 'unknown'"),
        ("{age: {low: 0, high: 9}, age: {low: 0, high: 9}}", GOOD, "'age' is there twice"),
        ("{age: {categories: [a, b], low: 1}}", GOOD, "a categorical column has no 'low'"),
        ("{age: {categories: [yes, no]}}", GOOD, "put yes, no, on, off and null in quotes"),
        ("{age: {categories: []}}", GOOD, "must have from 1 to 10000 entries, not 0"),
        ("{age: {categories: [1, 1.0]}}", GOOD, "'categories' has an entry twice"),
        ("{age: {categories: [1, a]}}", GOOD, "must be all numbers or all texts"),
        ("{age: {categories: [a], unknown: guess}}", GOOD, "'unknown' must be error or ignore"),
        ("{sick: {low: 0, high: 9}}", GOOD, "the target 'sick' must not be one of the columns"),
        ("{age: {low: 0, high: 9}}", "{name: sick}", "'target' lacks the key 'kind'"),
        ("{age: {low: 0, high: 9}}", "{name: sick, kind: ranking}", "'kind' must be classification or regression"),
        ("{age: {low: 0, high: 9}}", "{name: y, kind: classification, classes: [1]}", "from 2 to 10000 entries, not 1"),
        ("{age: {low: 0, high: 9}}", "{name: y, kind: regression}", "'target' lacks the key 'low'"),
        ("{age: {low: 0, high: 9}}", GOOD[:-1] + ", low: 1}", "'target' has no key 'low'"),
        (
            "{age: {low: 0, high: 9}}",
            GOOD.replace("]", ", 2]")[:-1] + ", positive: {at_least: 1}}",
            "two classes apart",
        ),
        ("{age: !!python/name:os.system x}", GOOD, "'age' must hold keys with values"),
        ("{age: {low: !!python/name:os.system '', high: 1}}", GOOD, "'low' has a tag"),
        ("{a: &x {low: 0, high: 1}, b: *x}", GOOD, r"line 1, column \d+: .*an alias \(\*name\) is not allowed"),
        ("{age: {low: 0", GOOD, "it is not YAML as it should be"),
    ],
)
def test_a_schema_that_says_what_none_can(home, columns, target, words):
    with pytest.raises(DataError, match=words) as caught:
        schema_of(home, columns, target)
    assert "schema.yaml, line " in one_sentence(caught.value)


def test_images_have_sides_and_classes(home):
    text = "image: {height: 2, width: 3, channels: 3}\ntarget: {name: y, kind: classification, classes: [a, b]}"
    assert read_schema(home.write("schema.yaml", text)).features == 18
    for wrong, words in [
        (text.replace("height: 2", "height: 0"), "'height' must be a whole number from 1 to 4096"),
        (text.replace("channels: 3", "channels: 2"), "1 channel or 3"),
        (text + "\ncolumns: {a: {low: 0, high: 1}}", "either 'columns' or 'image'"),
        ("target: {name: y, kind: classification, classes: [a, b]}", "either 'columns' or 'image'"),
        (
            text.split("\n")[0] + "\ntarget: {name: y, kind: regression, low: 0, high: 1}",
            "images can only be told apart",
        ),
    ]:
        with pytest.raises(DataError, match=words):
            read_schema(home.write("schema.yaml", wrong))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("name: home", "the file lacks the key 'data'"),
        ("name: Home\ndata: {connector: csv, path: rows.csv}", "'name' must be at most 32 lower-case letters"),
        ("data: {connector: csv, path: rows.csv}\nschema: other.yaml", r"other\.yaml cannot be read: No such file"),
        ("data: {connector: csv, path: rows.csv}\nsecret: x", "the file has no key 'secret'; there are data, name"),
        ("data: {connector: csv, path: rows.csv, missing: '?'}", "'missing' must be a list"),
        ("data: {connector: csv, path: rows.csv, missing_in: {height: [0]}}", "the schema has no column 'height'"),
        ("data: {connector: csv, path: 5}", "'path' must be a text; put it in quotes"),
        ("plugins: x\ndata: {connector: csv, path: rows.csv}", "'plugins' must be a list"),
        ("- 1", "the file must hold keys with values"),
        ("\x00", "is not YAML in UTF-8"),
    ],
)
def test_a_silo_file_that_cannot_be_used(home, text, words):
    home.write("silo.yaml", text)
    with pytest.raises(DataError, match=words) as caught:
        home.load()
    one_sentence(caught.value)


def test_files_that_are_not_there_or_too_large(home):
    with pytest.raises(DataError, match=r"nowhere\.yaml cannot be read: No such file or directory"):
        read_silo(home.folder / "nowhere.yaml")
    home.write("silo.yaml", "#" * (MAX_BYTES + 1))
    with pytest.raises(DataError, match="is larger than"):
        home.read()
    (home.folder / "silo.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match="is not YAML in UTF-8"):
        home.read()
    home.write("silo.yaml", "[" * 50_000)
    with pytest.raises(DataError, match="is not YAML"):
        home.read()


def test_a_file_is_read_again_when_it_has_changed(home):
    assert home.read().name == "home"
    home.write("silo.yaml", "name: other-home\ndata: {connector: csv, path: rows.csv}")
    assert home.read().name == "other-home"
    first = home.read().schema
    assert home.read().schema is first
    home.write("schema.yaml", f"columns: {{age: {{low: 0, high: 1}}}}\ntarget: {GOOD}")
    assert home.read().schema.features == 1


def test_a_folder_of_silos_is_in_natural_order(home):
    (home.folder / "silo.yaml").unlink()
    for name in ("bank-10", "bank-9", "bank-1"):
        home.write(f"{name}.yaml", "x")
    assert [path.stem for path in silo_files(home.folder)] == ["bank-1", "bank-9", "bank-10"]
    (home.folder / "schema.yaml").unlink()
    with pytest.raises(DataError, match=r"has no schema\.yaml"):
        silo_files(home.folder)
    with pytest.raises(DataError, match="There is no folder"):
        silo_files(home.folder / "none")


@given(st.one_of(st.binary(max_size=60), st.text("{}[]:,-&*!|>'\"#\n ab01.", max_size=60).map(str.encode)))
def test_whatever_the_file_holds_is_read_or_refused(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("yaml") / "x.yaml"
    file.write_bytes(content)
    try:
        read_yaml(file).plain()
    except DataError as error:
        assert str(error).endswith(".")  # noqa: PT017
