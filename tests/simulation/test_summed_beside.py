"""What goes under the masks beside the updates: the report says all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import quire
from quire.clients.contract import CLAMPED, STEPS, TRAIN_LOSS
from quire.clients.secure.public import metrics_of
from quire.conf.compose import compose
from quire.simulation import report_words
from quire.simulation.report_data import read_run

SECURE = (
    "task=breast_cancer partition=iid partition.silos=3 strategy.rounds=1 aggregation=secure output.baselines=false "
    "output.report=false"
)


@pytest.mark.parametrize(
    ("more", "summed"),
    [
        ("", {TRAIN_LOSS: "training losses", CLAMPED: "cut to aggregation.bound"}),
        ("strategy=fednova", {TRAIN_LOSS: "losses", CLAMPED: "aggregation.bound", STEPS: "lengths of their courses"}),
        ("privacy=record privacy.epsilon=4", {}),
    ],
)
def test_what_is_summed_beside_the_updates_is_said(tmp_path: Path, more: str, summed: dict[str, str]) -> None:
    overrides = f"{SECURE} {more}"
    quire.run(overrides, tmp_path)
    saw = " ".join(report_words.server_saw(read_run(tmp_path)))
    assert {name for name, _ in metrics_of(compose(overrides), 100)} == set(summed)
    assert all(words in saw for words in summed.values())
    assert ("lengths of their courses" in saw) == (STEPS in summed)
    assert ("training losses" in saw) == bool(summed)
