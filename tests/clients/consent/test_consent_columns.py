"""`consent` beside `columns`: the column of subjects is needed to know rows by, and allowed to go nowhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from consenting import CONSENT, PLAIN, RECORDS, Consenting

import quire
from quire.clients import local
from quire.clients.data.silo import Rows

SECRET = "Ottoline"
COLUMNS = "columns: {allow: [age, sick], rules: {note: drop, age: {bucket: {width: 20}}}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two clinics. A row of ``clinic-N`` is of patient ``sub-N-ROW``, with an age and a note that nobody is to see."""
    place = tmp_path / "silos"
    place.mkdir()
    for name in ("clinic-1", "clinic-2"):
        (place / name).mkdir()
        silo = Consenting(place / name)
        silo.write(CONSENT + COLUMNS, **PLAIN)
        ages = np.random.default_rng(1).integers(10, 90, RECORDS)
        lines = [f"sub-{name[-1]}-{row},{age},{SECRET}-{row},{int(age > 50)}" for row, age in enumerate(ages)]
        silo.csv.write_text("\n".join(["patient,age,note,sick", *lines]) + "\n")
        silo.withdraw(*(f"sub-1-{row}" for row in range(0, RECORDS, 3)))
        text = (silo.folder / "silo.yaml").read_text().replace("name: clinic-1", f"name: {name}")
        text = text.replace("path: ", f"path: {name}/").replace("policy:\n", "policy:\n  rehearsal: true\n")
        (place / f"{name}.yaml").write_text(f"{text}store: {name}/store\nidentity: {name}/silo.key\n")
        (place / "schema.yaml").write_text((silo.folder / "schema.yaml").read_text())
    return place


def test_rows_are_left_out_by_a_column_that_goes_nowhere(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Rows] = []
    train = local.Workbench.train

    def watched(self: local.Workbench, rows: Rows, *args: object, **more: object) -> float:
        seen.append(rows)
        return train(self, rows, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(local.Workbench, "train", watched)
    run = tmp_path / "run"
    quire.run("task=tabular partition.silos=2 strategy.rounds=2 training.steps=2 seed=3", run, silos=folder)
    for name, out in (("clinic-1", RECORDS // 3), ("clinic-2", 0)):
        text = (folder / name / "store" / "consent" / "lineage.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        assert [(line["came"], line["trained"] + line["scored"]) for line in lines] == [(RECORDS, RECORDS - out)] * 2
        assert [line["left_out"] for line in lines] == [{"withdrawn": out} if out else {}] * 2
        assert [line["column"] for line in lines] == ["patient"] * 2
    assert len(seen) == 4
    for rows in seen:
        assert rows.x.shape[1] == 1, "neither subjects nor notes are a feature"
        assert len(set(rows.x.ravel().tolist())) <= 5, "ages are in buckets of twenty years"
    files = [path for path in run.rglob("*") if path.is_file()]
    assert len(files) > 3
    for path in files:
        data = path.read_bytes()
        assert not any(word in data for word in (b"sub-1-", b"sub-2-", SECRET.encode(), b"patient")), path
