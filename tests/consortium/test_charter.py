"""Runs are submitted under the charter in the operator's folder."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from charters import amended, charter, signed, written

from quire.charter.errors import CharterError
from quire.consortium.charter import with_charter
from quire.consortium.layout import OperatorFolder
from quire.simulation.flower_daemon import charter_variables

HOUR = 3600


def test_a_run_gets_the_version_in_force_unless_it_names_one(tmp_path: Path) -> None:
    began = int(time.time()) - HOUR
    first = charter(issued=began - HOUR, not_before=began, not_after=began + 99 * HOUR)
    later = amended(first, issued=first.issued + 10, not_before=began + 2 * HOUR)
    folder = OperatorFolder(tmp_path)
    assert with_charter(folder, ["seed=1"]) == ["seed=1"]
    written(folder.charter, signed(first), signed(later, previous=first))
    assert with_charter(folder, ["seed=1"]) == ["seed=1", f"charter={first.hash}"]
    assert with_charter(folder, [f"charter={'a' * 64}"]) == [f"charter={'a' * 64}"]


def test_a_charter_that_does_not_hold_submits_nothing(tmp_path: Path) -> None:
    found = charter(issued=1, not_before=int(time.time()) + HOUR)
    folder = OperatorFolder(tmp_path)
    written(folder.charter, signed(found, "basel"))
    with pytest.raises(CharterError, match="signed by 1 of 3"):
        with_charter(folder, [])
    written(folder.charter, signed(found))
    with pytest.raises(CharterError, match="not in force yet"):
        with_charter(folder, [])


def test_a_simulation_by_flower_is_told_where_the_charter_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert charter_variables({}) == {}
    assert charter_variables({"QUIRE_CHARTER": "charter"}) == {"QUIRE_CHARTER": str(tmp_path / "charter")}
