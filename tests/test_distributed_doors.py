"""Distributed noise through Flower's simulation engine: the model, the receipts and the card of the inline run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shared_runs import UNITS, card_of, rounds_of

import quire
from quire.conf.compose import compose
from quire.simulation.flower import run_flower
from quire.simulation.verify import verify_run
from quire.strategies.folder import read_about

pytestmark = pytest.mark.slow


@pytest.mark.timeout(600)
@pytest.mark.parametrize("unit", UNITS)
def test_flowers_simulation_engine_comes_to_the_inline_model(unit: str, tmp_path: Path) -> None:
    overrides = f"{UNITS[unit]} partition.silos=4 strategy.rounds=2"
    inline = quire.run(overrides, tmp_path / "inline")
    found = run_flower(compose(f"{overrides} runtime=flower"), tmp_path / "flower")
    assert found.model == inline.model
    assert read_about(tmp_path / "flower")["runtime"] == "flower"
    for mine, theirs in zip(rounds_of(tmp_path / "flower"), rounds_of(tmp_path / "inline"), strict=True):
        assert [mine[key] for key in ("replied", "train", "evaluate", "released")] == [
            theirs[key] for key in ("replied", "train", "evaluate", "released")
        ]
    mine, theirs = (json.loads(json.dumps(card_of(tmp_path / name))) for name in ("flower", "inline"))
    assert mine["distributed"] == theirs["distributed"]
    assert [silo["figures"] for silo in mine["silos"]] == [silo["figures"] for silo in theirs["silos"]]
    assert verify_run(tmp_path / "flower").wrong == []
