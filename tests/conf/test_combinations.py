"""Every combination of options composes, or is refused with the reason."""

from __future__ import annotations

import itertools
import re

import pytest

from quire.conf.compose import compose
from quire.conf.schema import GROUPS, RobustAggregation
from quire.errors import SettingsError

ROWS = ("task", "data", "partition")  # what depends on one another
NEEDED = (
    {"task=plugin": "task=plugin task.plugin=mine"}
    | {"aggregation=bulyan": "aggregation=bulyan partition.silos=7"}
    | {f"privacy={one}": f"privacy={one} privacy.delta=1e-5" for one in ("silo", "silo_distributed")}
)
NOT_TOGETHER = (
    r"(task|data)=\w+ cannot be (learned from|shared out by) [\w.]+=\w+\.|partition=dirichlet shares .*|"
    r"data=\w+ has no setting 'dataset': task=\w+ cannot be combined with data=\w+\."
)


@pytest.mark.parametrize("choice", itertools.product(*([f"{g}={option}" for option in GROUPS[g]] for g in ROWS)))
def test_every_combination_of_rows_composes_or_says_why_not(choice: tuple[str, ...]) -> None:
    try:
        s = compose(" ".join(NEEDED.get(item, item) for item in choice))
    except SettingsError as refused:
        assert re.fullmatch(NOT_TOGETHER, str(refused))  # noqa: PT017
        task, data, partition = (item.partition("=")[2] for item in choice)
        home = dict.fromkeys(("tabular", "images", "plugin"), "files") | {"synthetic": "synthetic"}
        assert data != home.get(task, "sklearn") or (data == "files") != (partition == "natural") or task == "diabetes"
    else:
        assert {f"{group}={getattr(s, group).name}" for group in GROUPS} >= set(choice)


ROBUST = {f"aggregation={name}" for name, cls in GROUPS["aggregation"].items() if issubclass(cls, RobustAggregation)}
# Attacks, suspicion and compression have tests of their own for what they cannot go with.
APART = ("attack", "suspicion", "compression")
# Trackers know nothing of runtimes; rules for merging nothing of either, nor of server optimisers: one of each will do.
FEW = {f"strategy={one}" for one in ("fedavg", "fedadam", "fednova", "scaffold")}
OTHERS = [
    choice
    for choice in itertools.product(
        *([f"{g}={o}" for o in options] for g, options in GROUPS.items() if g not in (*ROWS, *APART))
    )
    if {"runtime=inline", "tracking=none"} & set(choice)
    and (not ROBUST & set(choice) or ({"runtime=inline", "tracking=none"} <= set(choice) and FEW & set(choice)))
]


@pytest.mark.parametrize("choice", OTHERS)
def test_every_way_of_training_composes_or_says_why_not(choice: tuple[str, ...]) -> None:
    in_clear = {"strategy=fednova", "strategy=scaffold"} & set(choice)
    text = " ".join(NEEDED.get(item, item) for item in choice)
    if in_clear and "privacy=none" not in choice:
        with pytest.raises(SettingsError, match=f"^{in_clear.pop()} sends each silo's .* in clear"):
            compose(text)
    elif "strategy=qfedavg" in choice and not {"privacy=none", "aggregation=plain"} <= set(choice):
        words = r"strategy=qfedavg|aggregation=secure is for one that is not|hides that behind noise|opens sums only"
        with pytest.raises(SettingsError, match=words):
            compose(text)
    elif ROBUST & set(choice) and (in_clear or "privacy=none" not in choice):
        with pytest.raises(SettingsError, match=r"averages more than updates|hides that behind noise|opens sums only"):
            compose(text)
    elif "aggregation=secure" in choice and {"strategy=scaffold", "privacy=silo"} & set(choice):
        with pytest.raises(SettingsError, match="aggregation=secure"):
            compose(text)
    elif "_distributed" in text and "aggregation=plain" in choice:
        with pytest.raises(SettingsError, match="take aggregation=secure, which opens sums only"):
            compose(text)
    elif {"privacy=record_distributed", "strategy=fedprox"} <= set(choice):
        with pytest.raises(SettingsError, match="takes one noisy step a round"):
            compose(text)
    else:
        assert {f"{group}={getattr(compose(text), group).name}" for group in GROUPS} >= set(choice)
