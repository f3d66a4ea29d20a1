"""`columns` of a silo.yaml: read strictly, held against the schema, and in force wherever the rows are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import quire
from quire.clients.data.rules.cells import Bucket, Day, Hash, Keep, Mapped
from quire.errors import DataError

DATA = "{connector: csv, path: rows.csv}"
SCHEMA = """
columns:
  age: {low: 0, high: 100}
  chol: {low: 100, high: 500, missing: true, impute: 200}
  pain: {categories: [none, some]}
target: {name: sick, kind: classification, classes: [0, 1]}
"""
FULL = """
columns:
  allow: [age, chol, pain, sick, when, ward, code, patient]
  rules:
    name: drop
    patient: hash
    code: {generalise: {keep: 2}}
    when: {generalise: {date: month, format: "%d.%m.%Y"}}
    ward: {generalise: {map: {icu: acute, "1": 2}, other: rest}}
    age: {bucket: {edges: [0, 40, 65, 110]}}
    chol: {bucket: {width: 25}}
  key: hash.key
  confirmed: "A. Vogel, 2026-11-22"
"""


def test_it_says_what_its_file_says(home):
    home.silo(DATA, FULL)
    columns = home.read().data.columns
    assert columns.allow == {"age", "chol", "pain", "sick", "when", "ward", "code", "patient"}
    assert columns.dropped == {"name"}
    assert dict(columns.rules) == {
        "patient": Hash(),
        "code": Keep(2),
        "when": Day("month", "%d.%m.%Y"),
        "ward": Mapped((("icu", "acute"), ("1", 2.0)), "rest"),
        "age": Bucket(edges=(0.0, 40.0, 65.0, 110.0)),
        "chol": Bucket(width=25.0),
    }
    assert columns.key == home.folder / "hash.key"
    assert columns.confirmed == "A. Vogel, 2026-11-22"
    assert columns.hashes
    assert columns.files == ()
    columns.key.touch()
    assert columns.files == (columns.key,)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("{}", "'columns' must have 'allow', 'rules' or both"),
        ("{allow: []}", "'allow' must name at least one column"),
        ("{allow: age}", "'allow' must be a list"),
        ("{allow: [age, age]}", "'allow' has 'age' twice"),
        ("{allowed: [age]}", "'columns' has no key 'allowed'"),
        ("{allow: [age, chol, sick]}", "the schema asks for the column 'pain', which these columns do not let out"),
        ("{allow: [age, chol, pain]}", "the schema asks for the column 'sick'"),
        ("{rules: {age: drop}}", "the schema asks for the column 'age', which these columns do not let out"),
        ("{allow: [age, chol, pain, sick], rules: {age: drop}}", "the column 'age' is allowed and dropped"),
        ("{allow: [age, chol, pain, sick], rules: {agee: hash}}", "'agee' has a rule, and 'allow' does not name it"),
        ("{rules: {agee: hash}}", "'agee' has a rule, and the schema has no such column"),
        ("{rules: {age: shuffle}}", "a rule is drop, hash, or one of hash, bucket, generalise with what it needs"),
        ("{rules: {age: {quantile: 4}}}", "'age' has no key 'quantile'; there are hash, bucket, generalise"),
        ("{rules: {age: {}}}", "a column has one rule"),
        ("{rules: {age: {hash: {buckets: 3}, bucket: {width: 1}}}}", "a column has one rule"),
        ("{rules: {age: {hash: {buckets: 1}}}}", "'buckets' must be a whole number from 2 to 10000"),
        ("{rules: {age: {bucket: {}}}}", "'bucket' must have either 'width' or 'edges'"),
        ("{rules: {age: {bucket: {width: 0}}}}", "'width' must be greater than 0"),
        ("{rules: {age: {bucket: {width: 5, edges: [0, 1, 2]}}}}", "'bucket' must have either 'width' or 'edges'"),
        ("{rules: {age: {bucket: {edges: [0, 1]}}}}", "'edges' must be at least three numbers"),
        ("{rules: {age: {bucket: {edges: [0, 2, 2]}}}}", "each greater than the one before"),
        ("{rules: {age: {generalise: {}}}}", "'generalise' must have one of 'keep', 'date' and 'map'"),
        ("{rules: {age: {generalise: {keep: 2, date: year}}}}", "'generalise' must have one of"),
        ("{rules: {age: {generalise: {keep: 0}}}}", "'keep' must be a whole number from 1"),
        ("{rules: {age: {generalise: {date: day}}}}", "'date' must be month or year"),
        ("{rules: {age: {generalise: {keep: 2, other: x}}}}", "'other' goes with 'map'"),
        ("{rules: {age: {generalise: {date: year, format: '%H'}}}}", "'format' must tell how year and month"),
        ("{rules: {age: {generalise: {date: year, format: '%Q'}}}}", "'format' must tell how year and month"),
        ("{rules: {age: {generalise: {map: {}}}}}", "'map' must name at least one value"),
        ("{rules: {age: {bucket: {width: 10}}}, confirmed: me}", "'confirmed' must say who and when"),
        ("{rules: {age: {bucket: {width: 10}}}, confirmed: 'me, 2026-13-01'}", "'confirmed' must say who and when"),
        ("{rules: {age: {bucket: {width: 10}}}, confirmed: ''}", "'confirmed' must say who and when"),
    ],
)
def test_what_it_cannot_say_is_refused_in_one_sentence(home, said, words):
    home.silo(DATA, f"columns: {said}\n")
    with pytest.raises(DataError, match=words) as caught:
        home.read()
    assert "silo.yaml, line 3, column " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rule", ["{bucket: {width: 10}}", "{bucket: {edges: [0, 10, 100]}}"])
def test_a_rule_gives_no_mark_of_missing_values(home, rule):
    home.silo("{connector: csv, path: rows.csv, missing_in: {age: [5]}}", f"columns: {{rules: {{age: {rule}}}}}\n")
    with pytest.raises(DataError, match="the rule of 'age' gives a value that is a mark of missing values"):
        home.read()
    mapped = "columns: {rules: {pain: {generalise: {map: {bad: some}, other: '?'}}}}\n"
    home.silo("{connector: csv, path: rows.csv, missing: ['?']}", mapped)
    with pytest.raises(DataError, match="the rule of 'pain' gives a value that is a mark"):
        home.read()


@pytest.mark.parametrize(
    ("mark", "rule", "given"),
    [
        ("'99'", "{generalise: {keep: 2}}", True),
        ("99", "{generalise: {keep: 2}}", True),
        ("NA", "{generalise: {keep: 2}}", True),
        ("'?'", "{generalise: {keep: 2}}", False),
        ("'999'", "{generalise: {keep: 2}}", False),
        ("9999", "{generalise: {date: year}}", True),
        ("'9999'", "{generalise: {date: year}}", True),
        ("99", "{generalise: {date: year}}", False),
        ("'9999-12'", "{generalise: {date: month}}", True),
        ("'9999-13'", "{generalise: {date: month}}", False),
        ("b0", "{hash: {buckets: 2}}", True),
        ("b2", "{hash: {buckets: 2}}", False),
        ("b01", "{hash: {buckets: 2}}", False),
        (f"h{'0' * 32}", "hash", True),
        ("h0", "hash", False),
        ("99", "{generalise: {map: {a: '99'}}}", True),
        ("'99'", "{generalise: {map: {a: 99}}}", True),
        ("'99'", "{generalise: {map: {a: 99, b: x}}}", True),
        ("'99'", "{generalise: {map: {a: 98}, other: 99.0}}", True),
        ("'99'", "{generalise: {map: {a: '99.0'}}}", False),
    ],
)
def test_a_mark_that_has_the_form_of_what_a_rule_gives_is_refused(home, mark, rule, given):
    home.silo(f"{{connector: csv, path: rows.csv, missing: [{mark}]}}", f"columns: {{rules: {{pain: {rule}}}}}\n")
    if not given:
        assert home.read().data.columns.rules
        return
    with pytest.raises(DataError, match="the rule of 'pain' gives a value that is a mark of missing values") as caught:
        home.read()
    assert "\n" not in str(caught.value)


def test_images_have_no_columns(home):
    home.write(
        "schema.yaml", "image: {height: 2, width: 2}\ntarget: {name: y, kind: classification, classes: [0, 1]}\n"
    )
    home.silo("{connector: images, path: .}", "columns: {allow: [y]}\n")
    with pytest.raises(DataError, match="'columns' is for tables, and the schema has images"):
        home.read()


def test_rows_are_redacted_before_they_are_encoded(home):
    plain = home.load().data
    home.silo(
        DATA, "columns: {rules: {age: {bucket: {width: 10}}, pain: {generalise: {map: {none: none}, other: some}}}}\n"
    )
    ruled = home.load().data
    ages = lambda rows: 50 * (rows.x[:, 0] + 1)  # noqa: E731
    assert len(plain.train) == len(ruled.train)
    assert np.allclose(ages(ruled.train), 10 * np.floor(ages(plain.train) / 10 + 1e-6) + 5, atol=1e-4)
    assert (plain.train.y == ruled.train.y).all()
    assert (plain.train.x[:, 1:] == ruled.train.x[:, 1:]).all()
    assert {25.0, 35.0} >= set(np.round(ages(ruled.test), 3).tolist())  # rows kept for testing as well


def test_a_hash_without_a_key_is_a_sentence(home):
    home.silo(DATA, "columns: {rules: {pain: {hash: {buckets: 8}}}}\n")
    with pytest.raises(DataError, match=r"The rule 'hash' needs a secret key, and .*silo.key"):
        home.load()


def test_rows_are_read_again_when_the_key_has_changed(home):
    home.write("schema.yaml", SCHEMA.replace("[none, some]", "[b0, b1, b2, b3, b4, b5, b6, b7]"))
    home.silo(DATA, "columns: {rules: {pain: {hash: {buckets: 8}}}, key: hash.key}\n")
    key, seen = home.folder / "hash.key", set()
    for number in range(12):
        key.write_bytes(bytes([number]) * (32 + number))
        key.chmod(0o600)
        seen.add(home.load().data.train.x[:, 2:].tobytes())
    assert len(seen) > 1


def test_a_run_learns_what_the_redacted_rows_say_and_nothing_else(tmp_path: Path):
    """End to end in this process: the same model, bit for bit, as over files that were redacted beforehand."""
    schema = (
        "columns: {age: {low: 0, high: 100}, ward: {categories: [acute, other]}, came: {low: 1990, high: 2030}}\n"
        "target: {name: sick, kind: classification, classes: [0, 1]}\n"
    )
    rules = (
        "columns:\n  allow: [age, ward, came, sick]\n  rules:\n    name: drop\n    age: {bucket: {width: 10}}\n"
        "    came: {generalise: {date: year}}\n    ward: {generalise: {map: {icu: acute, er: acute}, other: other}}\n"
    )
    rng = np.random.default_rng(1)
    for folder, said in (("raw", rules), ("ready", "")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "schema.yaml").write_text(schema)
        for number in (1, 2):
            silo = f"name: clinic-{number}\ndata: {{connector: csv, path: {number}.csv}}\n{said}"
            (tmp_path / folder / f"clinic-{number}.yaml").write_text(silo)
    for number in (1, 2):
        raw, ready = ["age,ward,came,name,sick"], ["age,ward,came,sick"]
        for row in range(60):
            age, year, sick = int(rng.integers(20, 95)), int(rng.integers(2000, 2020)), int(rng.integers(2))
            ward = str(rng.choice(["icu", "er", "eye"]))
            raw.append(f"{age},{ward},{year}-0{1 + 7 * sick}-05,patient {row},{sick}")  # the month tells who is sick
            ready.append(f"{10 * (age // 10) + 5},{'other' if ward == 'eye' else 'acute'},{year},{sick}")
        (tmp_path / "raw" / f"{number}.csv").write_text("\n".join(raw) + "\n")
        (tmp_path / "ready" / f"{number}.csv").write_text("\n".join(ready) + "\n")
    asked = "task=tabular partition.silos=2 strategy.rounds=2 seed=3"
    models = {
        name: quire.run(asked, tmp_path / "runs" / name, silos=tmp_path / name).model for name in ("raw", "ready")
    }
    assert models["raw"] == models["ready"]
