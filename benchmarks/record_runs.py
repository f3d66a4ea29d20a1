"""Runs under record-level privacy whose settings are chosen on validation rows, for ``privacy.py`` and others."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hospitals

DELTA = 1e-4
TESTED = 0.2  # share of heart disease's rows


@dataclass(frozen=True)
class Study:
    """A task under record-level privacy, and the grid that its settings are chosen from.

    Attributes
    ----------
    common : str
        Settings of all cells.
    grid : tuple of str
        Its cells.
    """

    common: str
    grid: tuple[str, ...]


HOW = "privacy=record privacy.gradients=hooks data.preprocessing=public training.steps=5 training.momentum=0"
HEART = Study(
    f"task=tabular {HOW} privacy.delta={DELTA} training.batch_size=64",
    (
        "strategy.rounds=12 training.lr=1 privacy.clip=0.3",
        "strategy.rounds=12 training.lr=0.3 privacy.clip=1",
        "strategy.rounds=12 training.lr=1 privacy.clip=1",
        "strategy.rounds=5 training.lr=1 privacy.clip=1",
    ),
)
CANCER = Study(
    f"task=breast_cancer partition=iid {HOW} training.batch_size=64 strategy.rounds=24",
    (
        "training.lr=1 privacy.clip=0.3",
        "training.lr=0.3 privacy.clip=1",
        "training.lr=3 privacy.clip=0.1",
    ),
)


def scored(overrides: str, folder: Path | None = None) -> dict[str, Any]:
    """Run a federation and score it on the test rows; the majority row beside it where there are baselines."""
    from quire.conf.compose import compose
    from quire.simulation.baselines import compare
    from quire.simulation.inline import run_inline

    settings = compose(f"strategy.fraction_evaluate=0 {overrides}")
    with tempfile.TemporaryDirectory() as scratch:
        run = run_inline(settings, Path(scratch) / "run", silos=folder)
        result = compare(settings, run.folder, silos=folder)
    if settings.privacy.name == "record":
        result["spent"] = max(spent(overrides, one["train"]) for one in result["silos"].values())
    return result


def spent(overrides: str, records: int) -> float:
    """Return the epsilon that a whole run costs a silo with so many records, at the delta of its settings."""
    from quire.clients.private.plan import plan_of
    from quire.conf.compose import compose
    from quire.privacy.dp.spending import Spending

    settings = compose(overrides)
    plan = plan_of(settings, records)
    return Spending.of(plan.released(settings.strategy.rounds)).epsilon(plan.delta)


def validation_loss(overrides: str, folder: Path | None = None) -> float:
    """Return the last model's loss on the validation rows, a mean weighted by rows; one run."""
    from quire.conf.compose import compose
    from quire.simulation.inline import run_inline

    rounds = compose(overrides).strategy.rounds
    settings = compose(f"{overrides} data.validation_fraction=0.2 strategy.evaluate_every={rounds}")
    with tempfile.TemporaryDirectory() as scratch:
        run = run_inline(settings, Path(scratch) / "run", silos=folder)
        lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [event["evaluate"]["loss"] for event in map(json.loads, lines) if event.get("evaluate")]
    return float(losses[-1])


def chosen(study: Study, overrides: str, folder: Path | None = None) -> str:
    """Return the cell of the grid with the lowest loss on one seed's validation rows."""
    return min(study.grid, key=lambda cell: validation_loss(f"{study.common} {cell} {overrides}", folder))


def private(study: Study, overrides: str, folder: Path | None = None) -> dict[str, Any]:
    """Choose, run on all training rows, and score."""
    cell = chosen(study, overrides, folder)
    result = scored(f"{study.common} {cell} {overrides} output.baselines=false", folder)
    return {**result, "cell": cell}


def divided(folder: Path, seed: int, out: Path) -> Path:
    """Write silos whose files name their test rows: each row goes there, or not, by a hash of itself and the seed.

    Without test rows of its own a silo's split depends on whether the run is private (row by row) or not (class by
    class), and a private model and FedAvg would be scored on different rows.
    """
    import yaml

    out.mkdir()
    shutil.copy(folder / "schema.yaml", out)
    for place in hospitals.HOSPITALS:
        silo = yaml.safe_load((folder / f"{place}.yaml").read_text(encoding="utf-8"))
        source = silo["data"]
        parts: dict[str, list[str]] = {"data": [], "test": []}
        for line in (folder / source["path"]).read_text(encoding="utf-8").splitlines():
            digest = hashlib.sha256(f"{seed} {place} {line}".encode()).digest()
            parts["test" if int.from_bytes(digest[:8], "big") < TESTED * 2.0**64 else "data"].append(line + "\n")
        for part, lines in parts.items():
            (out / f"{place}-{part}.csv").write_text("".join(lines), encoding="utf-8")
            silo[part] = {**source, "path": f"{place}-{part}.csv"}
        (out / f"{place}.yaml").write_text(json.dumps(silo), encoding="utf-8")
    return out
