"""Folders of private sweeps made by hand: the files that runs leave, with receipts that silos could have signed."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from quire.clients.private.plan import plan_of
from quire.clients.receipts import Round, receipt_of
from quire.conf.compose import compose
from quire.conf.schema import NoPrivacy, RecordPrivacy, Settings

HASH = "0" * 64
SMALL = "partition=iid strategy.rounds=2"


def make_job(
    sweep: Path,
    number: int,
    overrides: str,
    test: float | None,
    *,
    validation: float | None = None,
    records: Mapping[str, int] | None = None,
    ratios: Sequence[float] = (0.5, 0.25),
    pooled: float | None = 0.97,
    alone: Sequence[float] = (),
    error: str | None = None,
) -> None:
    """Make the folder of a job; one with an error was refused before its run began, and holds ``job.json`` only.

    Parameters
    ----------
    sweep : pathlib.Path
    number : int
    overrides : str
    test, validation : float or None
        Balanced accuracy at the end.
    records : mapping
        The silos by name, with their public numbers of records.
    ratios : sequence of float
        Signal-to-noise by round.
    pooled : float or None
    alone : sequence of float
        One for each silo; empty for no comparison.
    error : str or None
    """
    records = records or {"a": 40, "b": 80}
    folder = sweep / str(number)
    folder.mkdir(parents=True)
    status = 0 if error is None else 2
    job = {"job": number, "overrides": overrides.split(), "pid": 1, "status": status, "error": error, "seconds": 1.0}
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    if error is not None:
        return
    settings = compose(f"{overrides} {SMALL} partition.silos={len(records)}")
    tree = {**settings.as_dict(), "overrides": settings.overrides}
    (folder / "settings.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    (folder / "run.json").write_text(json.dumps({"status": "completed", "error": None}), encoding="utf-8")
    events: list[dict[str, Any]] = [{"event": "start", "rounds": 2, "silos": list(records), "parameters": 25}]
    for place, ratio in enumerate(ratios, start=1):
        evaluate = None if validation is None else {"balanced_accuracy": validation, "loss": 1 - validation}
        events.append(
            {"event": "round", "round": place, "evaluate": evaluate, **_inside(settings, records, ratio, place)}
        )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    if test is not None:
        everyone: dict[str, Any] = {"federated": _scores(test)}
        if pooled is not None:
            everyone |= {"pooled": _scores(pooled), "majority": {"balanced_accuracy": 0.5, "accuracy": 0.6}}
            everyone["alone"] = {name: _scores(score) for name, score in zip(records, alone, strict=False)}
        (folder / "comparison.json").write_text(json.dumps({"everyone": everyone}), encoding="utf-8")


def _inside(settings: Settings, records: Mapping[str, int], ratio: float, place: int) -> dict[str, Any]:
    """What a round of a simulation shows of itself."""
    if isinstance(settings.privacy, NoPrivacy):
        return {"train": {"loss": 0.5}, "silos": {}}
    receipts = {}
    for name, count in records.items():
        about = Round(name, count, 0, place, HASH, HASH, simulated=True, test_seed=False, broken_gradients=0)
        receipt = receipt_of(settings, plan_of(settings, count), about, None)
        receipts[name] = base64.b64encode(receipt).decode("ascii")
    train: dict[str, float] = {"loss": 0.5, "signal_norm": ratio * 8.0}
    if isinstance(settings.privacy, RecordPrivacy) and plan_of(settings, 40).noise_multiplier:
        train["noise_norm"] = 8.0
    silos = {name: {"signal_norm": ratio} for name in records}
    return {"train": train, "silos": silos, "receipts": receipts}


def _scores(value: float) -> dict[str, float]:
    return {"balanced_accuracy": value, "accuracy": value, "loss": 1 - value}


def make_sweep(folder: Path, jobs: Sequence[tuple[str, float | None]], **about: Any) -> Path:
    """Make the folder of a sweep of jobs that need nothing but overrides and a score."""
    for number, (overrides, test) in enumerate(jobs):
        make_job(folder, number, overrides, test, alone=(0.8, 0.9))
    return close_sweep(folder, **about)


def close_sweep(folder: Path, **about: Any) -> Path:
    """Write ``sweep.json``."""
    tree = {"status": "completed", "args": ["-m"], "launcher": "basic", "sweeper": "basic", "planned": None} | about
    (folder / "sweep.json").write_text(json.dumps(tree), encoding="utf-8")
    return folder
