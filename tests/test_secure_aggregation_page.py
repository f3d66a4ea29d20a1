"""What docs/secure-aggregation.md says can be checked against the code: errors, settings, policy, commands."""

import re
from pathlib import Path

import pytest

from quire.clients.data.silo_file import read_operator_of
from quire.conf.compose import compose
from quire.errors import SettingsError
from quire.privacy.secagg.errors import BY_NUMBER
from quire.privacy.secagg.params import thresholds

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "secure-aggregation.md").read_text(encoding="utf-8")


def test_the_page_lists_every_error_with_its_number():
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| (.+) \|$", PAGE, flags=re.MULTILINE)
    assert {int(number): name for number, name, _ in rows} == {n: kind.__name__ for n, kind in BY_NUMBER.items()}
    for number, _, words in rows:
        assert (BY_NUMBER[int(number)].__doc__ or "").startswith(words)


def test_the_commands_of_the_page_compose():
    commands = re.findall(r"^quire run (.+)$", PAGE, flags=re.MULTILINE)
    assert len(commands) == 4
    for overrides in commands:
        assert compose(overrides).aggregation.name == "secure"


@pytest.mark.parametrize(
    "more", ["strategy=scaffold", "privacy=silo privacy.delta=1e-5", "data.preprocessing=federated"]
)
def test_what_the_page_says_is_refused_is_refused(more):
    compose(f"task=breast_cancer {more}")
    with pytest.raises(SettingsError, match="aggregation=secure"):
        compose(f"task=breast_cancer aggregation=secure {more}")


def test_every_setting_of_the_page_is_one():
    known = compose("task=breast_cancer aggregation=secure").as_dict()
    names = re.findall(r"`(aggregation|strategy|partition|privacy|data)\.(\w+)", PAGE)
    assert names
    for group, key in names:
        assert key in known[group], f"{group}.{key}"


def test_the_policy_of_the_page_is_one(tmp_path):
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    head = (
        "name: a\ndata: {connector: shipped, partition: 0, partitions: 4}\npopulation: {name: a, records: 100}\n"
        f"roster: {{file: roster.json, hash: {'ab' * 32}}}\n"
    )
    (tmp_path / "silo.yaml").write_text(head + block.replace("9b1c...64 digits...", "cd" * 32), encoding="utf-8")
    policy = read_operator_of(tmp_path / "silo.yaml").policy
    assert (policy.aggregation, policy.colluders, policy.min_cohort) == (frozenset({"secure"}), 1, 4)


@pytest.mark.parametrize(("colluders", "dropouts"), [(3, 3), (1, 4), (7, 1)])
def test_the_trade_of_colluders_is_that_of_the_page(colluders, dropouts):
    assert thresholds(10, colluders).dropouts == dropouts
    text = "ten members with `c = 3` survive three of them missing, with `c = 1` four, with `c = 7` one"
    assert text in PAGE.replace("\n", " ")
