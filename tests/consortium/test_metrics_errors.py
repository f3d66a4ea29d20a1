"""Metrics where their sources fail, or where labels come to the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from provisioned import Provisioned, provision

from quire.consortium.about import Server
from quire.consortium.metrics import gauge
from quire.consortium.silo_metrics import Ledger
from quire.errors import QuireError


@pytest.fixture
def made(tmp_path: Path) -> Provisioned:
    return provision(tmp_path, ["clinic"], Server("localhost", 8443))


def test_a_ledger_that_cannot_be_read_stays_unreadable_until_it_is_looked_at_again(
    made: Provisioned, monkeypatch: pytest.MonkeyPatch
) -> None:
    silo = made.silos["clinic"]
    good = silo.silo_file.read_text()
    silo.silo_file.write_text("nonsense: [")
    monkeypatch.setattr("quire.consortium.silo_metrics._MOMENT", 0.0)
    ledger = Ledger(silo)
    for _ in range(3):
        with pytest.raises(QuireError):
            list(ledger.look())
    silo.silo_file.write_text(good)
    with pytest.raises(QuireError):
        list(ledger.look())
    monkeypatch.setattr("quire.consortium.silo_metrics._KEEP", -1.0)
    assert list(ledger.look())


def test_gauges_whose_labels_are_cut_to_the_same_are_one() -> None:
    family = gauge("days", "Days.", ["whose"], {("x" * 90 + "1",): 3.0, ("x" * 90 + "2",): 2.0})
    assert [sample.value for sample in family.samples] == [2.0]
