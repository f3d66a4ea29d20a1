"""The federation in clear beside a run with privacy trains on no row that it is scored on, and on all others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quire.clients.data.silo import Rows
from quire.clients.training import Workbench
from quire.conf.compose import compose
from quire.simulation.baselines import compare
from quire.simulation.inline import run_inline
from quire.simulation.silos import local_silos

FILES = "task=tabular partition.silos=3 strategy.rounds=1"
SHIPPED = "task=breast_cancer partition=iid partition.silos=3 strategy.rounds=1"
RUNS = {
    "record": "privacy=record privacy.delta=1e-4",
    "shared": "privacy=record_distributed privacy.delta=1e-4 aggregation=secure privacy.sampling_rate=0.2",
    "masks alone": "aggregation=secure aggregation.max_rows=100",
}
VALIDATION = "data.validation_fraction=0.25"
CASES = [
    *(("files", validation, privacy) for privacy in RUNS for validation in ("", VALIDATION)),
    *(("files with a test section", validation, "record") for validation in ("", VALIDATION)),
    ("shipped", VALIDATION, "record"),
    ("shipped", "", "masks alone"),
]


def silos_in(folder: Path, test: bool) -> Path:
    """Three silos of 60 rows each, of which no two are the same."""
    folder.mkdir()
    (folder / "schema.yaml").write_text(
        "columns: {a: {low: -4, high: 4}, b: {low: -4, high: 4}}\n"
        "target: {name: y, kind: classification, classes: [0, 1]}\n"
    )
    rng = np.random.default_rng(0)

    def table(name: str, count: int) -> str:
        rows = "".join(f"{rng.normal():.6f},{rng.normal():.6f},{rng.integers(2)}\n" for _ in range(count))
        (folder / f"{name}.csv").write_text(f"a,b,y\n{rows}")
        return f"{{connector: csv, path: {name}.csv}}\n"

    for name in ("a", "b", "c"):
        text = f"name: {name}\npopulation: {{name: {name}, records: 60}}\ndata: {table(name, 60)}"
        (folder / f"{name}.yaml").write_text(text + (f"test: {table(f'{name}-test', 20)}" if test else ""))
    return folder


def hashed(rows: Rows) -> set[bytes]:
    return {x.tobytes() + y.tobytes() for x, y in zip(rows.x, rows.y, strict=True)}


@pytest.mark.parametrize(("data", "validation", "privacy"), CASES)
def test_it_trains_on_the_rows_of_the_run(
    data: str, validation: str, privacy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = None if data == "shipped" else silos_in(tmp_path / "silos", test=data != "files")
    records = " privacy.records=180 privacy.largest=60" if folder and privacy == "shared" else ""
    more = f"{FILES if folder else SHIPPED} {RUNS[privacy]}{records} {validation} strategy.fraction_evaluate=0"
    settings = compose(more)
    run_inline(settings, tmp_path / "run", silos=folder)
    trained: set[bytes] = set()
    clear = [False]
    train = Workbench.train

    def seen(self: Workbench, rows: Rows, *rest: Any, **more: Any) -> float:
        trained.update(hashed(rows) if clear[0] else set())
        return train(self, rows, *rest, **more)

    monkeypatch.setattr(Workbench, "train", seen)
    written = compare(settings, tmp_path / "run", lambda name: clear.__setitem__(0, "in clear" in name), silos=folder)
    assert {"federated_plain"} <= set(written["everyone"])
    silos = local_silos(settings, folder).data(settings)
    assert trained == set().union(*(hashed(silo.train) for silo in silos))
    for silo in silos:
        assert not trained & hashed(silo.test)
        assert silo.validation is None or not trained & hashed(silo.validation)
