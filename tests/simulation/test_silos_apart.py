"""Silos of one folder: with consent at one of them, none shares its store or identity with another."""

from __future__ import annotations

from pathlib import Path

import pytest

from quire.conf.compose import compose
from quire.errors import DataError
from quire.simulation.silos import local_silos

SCHEMA = "columns: {age: {low: 0, high: 100}}\ntarget: {name: sick, kind: classification, classes: [0, 1]}\n"
CONSENT = "consent: {subject: id}\n"


def federation(folder: Path, *own: str) -> None:
    (folder / "schema.yaml").write_text(SCHEMA)
    for number, more in enumerate(own, start=1):
        (folder / f"clinic-{number}.yaml").write_text(
            f"name: clinic-{number}\ndata: {{connector: csv, path: rows.csv}}\n"
            f"population: {{name: a, records: 9}}\n{more}"
        )


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (
            (CONSENT, ""),
            r"clinic-2\.yaml and .*clinic-1\.yaml have the same 'store', .* give each a 'store:' of its own",
        ),
        (("", f"store: b\n{CONSENT}"), r"clinic-2\.yaml and .*clinic-1\.yaml have the same 'identity'"),
        (
            ("", f"store: b\nidentity: b.key\n{CONSENT}", "store: ./c/../b\nidentity: c.key\n"),
            r"clinic-3\.yaml and .*clinic-2\.yaml have the same 'store'",
        ),
    ],
)
def test_silos_that_would_share_requests_are_refused(tmp_path: Path, own: tuple[str, ...], says: str) -> None:
    federation(tmp_path, *own)
    with pytest.raises(DataError, match=says):
        local_silos(compose(f"task=tabular partition.silos={len(own)}"), tmp_path)


@pytest.mark.parametrize(
    "own", [("", ""), (f"store: a\nidentity: a.key\n{CONSENT}", f"store: b\nidentity: b.key\n{CONSENT}", "")]
)
def test_silos_apart_and_silos_without_consent_are_not(tmp_path: Path, own: tuple[str, ...]) -> None:
    federation(tmp_path, *own)
    assert len(local_silos(compose(f"task=tabular partition.silos={len(own)}"), tmp_path).names) == len(own)
