"""What docs/distributed-privacy.md and docs/which-privacy.md say can be checked against the code."""

import math
import re
from pathlib import Path

import pytest

from quire.conf.compose import compose
from quire.conf.privacy_schema import DistributedPrivacy, RecordDistributedPrivacy
from quire.conf.schema import GROUPS
from quire.errors import SettingsError
from quire.privacy.secagg.params import default_colluders, thresholds

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE, WHICH = ((DOCS / f"{name}.md").read_text(encoding="utf-8") for name in ("distributed-privacy", "which-privacy"))


def test_the_commands_of_the_page_compose():
    commands = re.findall(r"^quire run (.+)$", PAGE, flags=re.MULTILINE)
    assert len(commands) == 2
    for overrides in commands:
        assert isinstance(compose(overrides).privacy, DistributedPrivacy)


def test_the_table_of_the_noise_is_what_the_thresholds_give():
    row = r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \|$"
    rows = re.findall(row, PAGE, flags=re.MULTILINE)
    assert [int(found[0]) for found in rows] == [2, 3, 5, 10, 20, 100]
    for found in rows:
        silos, colluders, survivors, shares = (int(text) for text in found[:4])
        limits = thresholds(silos, default_colluders(silos))
        assert (limits.colluders, limits.min_survivors) == (colluders, survivors)
        assert shares == survivors - colluders - 1
        assert (found[4], found[5]) == (f"{math.sqrt(silos / shares):.2f}", f"{math.sqrt(silos):.2f}")
    assert f"{math.sqrt(10 / 8):.2f}" == "1.12"
    assert "1.12\ntimes" in WHICH


def test_every_mode_is_in_the_table():
    assert all(f"`{mode}`" in WHICH for mode in GROUPS["privacy"])


def test_every_setting_of_the_page_is_one():
    for key in ("epsilon", "clip", "sampling_rate", "records", "largest"):
        assert key in RecordDistributedPrivacy.__dataclass_fields__
        assert key in PAGE


@pytest.mark.parametrize(
    "more", ["strategy=fedprox", "training.steps=2", "training.momentum=0.5", "strategy.fraction=0.8"]
)
def test_what_the_page_says_is_refused_is_refused(more):
    with pytest.raises(SettingsError, match=r"one noisy step|spares no epsilon"):
        compose(f"task=breast_cancer aggregation=secure privacy=record_distributed {more}")
