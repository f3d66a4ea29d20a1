"""Data policy in the connector: what columns are taken for, and what rules on all of them cost.

Classification: 106 columns of seven tables (the UCI heart disease and credit card files; breast cancer, diabetes, iris,
wine and linnerud of scikit-learn) against ``column_labels.yaml``, which was set by hand and committed before the
classifier was written. The word lists are general ones, but whoever wrote them knew these tables. The classifier is
told which column is learned, as a schema tells it. scikit-learn's digits are left out: 64 pixels are no structured
columns. A column is a positive where it is anything but a plain measurement: precision and recall are of those. None of
these tables holds names, dates or places, so that a made-up one in three languages stands beside them, without a goal:
it shows that the forms are known, not how they look elsewhere.

Rules: a CSV file of 200,000 rows (20,000 in the short form) that is written in the run. The connector alone against the
connector with a rule on each of its seven columns but the target: keyed hash of a number that is another in every row,
two buckets, date to year, postal code to two digits, a list, a hash into 16. Medians of interleaved repetitions.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import harness
import hospitals
import numpy as np
import yaml
from harness import Figure
from made_up_columns import made_up
from sklearn import datasets

from quire.clients.data.rules.classify import KINDS, classify
from quire.clients.data.rules.redact import redacted
from quire.clients.data.silo_file import Section, read_silo
from quire.clients.data.table import to_rows

LABELS = Path(__file__).with_name("column_labels.yaml")
HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
PLAIN = "plain"
SCHEMA = """
columns:
  patient: {categories: [none], unknown: ignore, missing: true}
  age: {low: 0, high: 120}
  weight: {low: 0, high: 300}
  admitted: {categories: ["2020", "2021", "2022"], unknown: ignore}
  postcode: {categories: ["10", "20", "30"], unknown: ignore}
  ward: {categories: [acute, other], unknown: ignore}
  doctor: {categories: [b0, b1, b2, b3], unknown: ignore}
target: {name: sick, kind: classification, classes: [0, 1]}
"""
RULES = """
columns:
  allow: [patient, age, weight, admitted, postcode, ward, doctor, sick]
  key: hash.key
  rules:
    name: drop
    patient: hash
    age: {bucket: {edges: [0, 18, 40, 65, 120]}}
    weight: {bucket: {width: 10}}
    admitted: {generalise: {date: year}}
    postcode: {generalise: {keep: 2}}
    ward: {generalise: {map: {icu: acute, er: acute}, other: other}}
    doctor: {hash: {buckets: 16}}
"""


def tables() -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Give the tables that there are, whole, by their names in the labels."""
    import pandas as pd

    if hospitals.absent("heart_disease") is None:
        names = list(yaml.safe_load(LABELS.read_text(encoding="utf-8"))["heart_disease"]["columns"])
        folder = hospitals.RAW / "heart_disease"
        parts = [
            pd.read_csv(folder / f"processed.{one}.data", names=names, dtype=str, keep_default_na=False)
            for one in HOSPITALS
        ]
        yield "heart_disease", _arrays(pd.concat(parts))
    if hospitals.absent("credit_default") is None:
        file = hospitals.RAW / "credit_default" / "UCI_Credit_Card.csv.gz"
        yield "credit_default", _arrays(pd.read_csv(file, dtype=str, keep_default_na=False))
    for name in ("breast_cancer", "diabetes", "iris", "wine", "linnerud"):
        yield name, _arrays(getattr(datasets, f"load_{name}")(as_frame=True).frame)


def _arrays(frame: object) -> dict[str, np.ndarray]:
    return {str(name): values.to_numpy() for name, values in frame.items()}  # type: ignore[attr-defined]


def classification(quick: bool) -> list[Figure]:
    """Hold proposals against the labels; print where they differ, kind against kind."""
    known = yaml.safe_load(LABELS.read_text(encoding="utf-8"))
    pairs: Counter[tuple[str, str]] = Counter()
    wrong, seen = [], []
    for name, columns in tables():
        labels = known[name]["columns"]
        if list(columns) != list(labels):
            raise ValueError(f"the columns of {name} are not those that were labelled")
        seen.append(name)
        for one in classify(columns, known[name]["target"], ("?",)):
            pairs[labels[one.column], one.kind] += 1
            if labels[one.column] != one.kind:
                wrong.append(f"{name}/{one.column} ({labels[one.column]}) taken for {one.kind}")
    print(_confusion(pairs))
    total, right = sum(pairs.values()), sum(count for (label, kind), count in pairs.items() if label == kind)
    told = "; ".join(wrong) or "none wrong"
    left = (
        f"; without {', '.join(sorted(set(known) - set(seen)))}, which are not there" if len(seen) < len(known) else ""
    )
    figures = [
        Figure(
            "columns of real tables whose kind is right, share",
            right / total,
            ">= 0.95",
            f"{right} of {total}: {told}{left}",
        )
    ]
    hits = sum(count for (label, kind), count in pairs.items() if label == kind != PLAIN)
    for what, place in (("precision", 1), ("recall", 0)):
        of = sum(count for pair, count in pairs.items() if pair[place] != PLAIN)
        note = f"{hits} of {of}, whose kind has to be right too"
        figures.append(
            Figure(f"{what} on columns that are no plain measurements", hits / of if of else None, ">= 0.95", note)
        )
    for what, place in (("precision", 1), ("recall", 0)):
        kinds = sorted({pair[place] for pair in pairs})
        shares = [
            pairs[kind, kind] / sum(count for pair, count in pairs.items() if pair[place] == kind) for kind in kinds
        ]
        note = ", ".join(f"{kind} {share:.3f}" for kind, share in zip(kinds, shares, strict=True))
        figures.append(Figure(f"{what}, mean over kinds", statistics.mean(shares), ">= 0.95", note))
    made = made_up()
    found = classify({name: np.array(values, dtype=object) for name, (_, values) in made.items()})
    missed = [
        f"{one.column} ({made[one.column][0]}) taken for {one.kind}" for one in found if one.kind != made[one.column][0]
    ]
    share = 1 - len(missed) / len(made)
    note = f"{len(made) - len(missed)} of {len(made)}: {'; '.join(missed) or 'none wrong'}; ours"
    return [*figures, Figure("columns of a made-up table whose kind is right, share", share, None, note)]


def _confusion(pairs: Counter[tuple[str, str]]) -> str:
    kinds = [kind for kind in KINDS if any(kind in pair for pair in pairs)]
    rows = [f"{'by hand, below':<16}" + "".join(f"{kind:>11}" for kind in kinds)]
    rows += [f"{label:<16}" + "".join(f"{pairs[label, kind]:>11}" for kind in kinds) for label in kinds]
    return "What columns are (rows) and what they are taken for (columns):\n" + "\n".join(rows)


def redaction(quick: bool) -> list[Figure]:
    """Time the connector with rules on all columns beside the connector without."""
    rows, repetitions = (20_000, 3) if quick else (200_000, 9)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _write(folder, rows)
        plain, ruled = (read_silo(folder / f"{name}.yaml").data for name in ("plain", "ruled"))
        raw = harness.interleaved({"plain": _timed(plain, False), "ruled": _timed(ruled, False)}, repetitions)
        encoded = harness.interleaved({"plain": _timed(plain, True), "ruled": _timed(ruled, True)}, repetitions)
    figures = []
    for what, goal, seconds in (
        ("connector with all rules on over the plain one, rows a second", ">= 0.5", raw),
        ("the same from the file to encoded rows", None, encoded),
    ):
        speeds = {name: f"{rows / statistics.median(found):,.0f}" for name, found in seconds.items()}
        note = f"{speeds['ruled']} against {speeds['plain']} rows a second, {rows:,} rows"
        figures.append(Figure(what, harness.median_ratio(seconds, "plain", "ruled"), goal, note))
    return figures


def _timed(section: Section, encode: bool) -> Callable[[], float]:
    def contender() -> float:
        started = time.perf_counter()
        raw = section.connector.read(section.source)
        raw = redacted(raw, section.columns, section.missing, section.missing_in, "the file")
        if encode:
            to_rows(raw, section.source.schema, section.missing, section.missing_in, "the file")
        return time.perf_counter() - started

    return contender


def _write(folder: Path, rows: int) -> None:
    import pandas as pd

    rng = np.random.default_rng(1)
    days = np.datetime64("2020-01-01") + rng.integers(0, 1000, rows).astype("timedelta64[D]")
    pd.DataFrame(
        {
            "patient": 10_000_000 + rng.permutation(rows),
            "name": [f"person {place}" for place in range(rows)],
            "age": rng.integers(0, 110, rows),
            "weight": np.round(rng.normal(75, 15, rows).clip(2, 290), 1),
            "admitted": days.astype(str),
            "postcode": rng.integers(10_000, 99_999, rows),
            "ward": rng.choice(["icu", "er", "eye", "skin"], rows),
            "doctor": rng.integers(1000, 1400, rows),
            "sick": rng.integers(0, 2, rows),
        }
    ).to_csv(folder / "rows.csv", index=False)
    (folder / "schema.yaml").write_text(SCHEMA, encoding="utf-8")
    (folder / "hash.key").write_bytes(os.urandom(32))
    (folder / "hash.key").chmod(0o600)
    for name, more in (("plain", ""), ("ruled", RULES)):
        text = f"name: {name}\ndata: {{connector: csv, path: rows.csv}}\n{more}"
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


#: Each gives its figures; told whether the short form is asked for.
PARTS: tuple[Callable[[bool], list[Figure]], ...] = (classification, redaction)


def main() -> int:
    """Measure and report."""
    args = harness.arguments(__doc__)
    figures = [figure for part in PARTS for figure in part(args.quick)]
    return harness.report(figures, args, "Data policy in the connector")


if __name__ == "__main__":
    sys.exit(main())
