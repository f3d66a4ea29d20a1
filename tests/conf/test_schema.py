"""The schema, the YAML files and the front door agree, and cost nothing to import."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import types
import typing
from pathlib import Path

import pytest
import yaml

import quire.conf
from quire.conf import compose as composing
from quire.conf.compose import compose
from quire.conf.numbers import ROWS
from quire.conf.schema import GROUPS, Settings, SklearnData
from quire.errors import SettingsError

CONF = Path(quire.conf.__file__).resolve().parent
ROOT = Path(__file__).resolve().parents[2]
OPTIONS = [(group, option) for group, options in GROUPS.items() for option in options]
FIELDS = [
    pytest.param(group, option, field, id=f"{group}={option}:{field.name}")
    for group, option in OPTIONS
    for field in dataclasses.fields(GROUPS[group][option])
    if field.name != "name"
]
LIMITS = {"ge", "gt", "le", "lt", "choices", "max_items", "word", "inf"}


def alone(group: str, option: str) -> str:
    """Overrides that choose this option in company that suits it."""
    if group == "task":
        return f"task={option}" + (" task.plugin=mine" if option == "plugin" else "")
    company = {"data=synthetic": " task=synthetic", "data=files": " task=tabular", "partition=natural": " task=tabular"}
    company["aggregation=bulyan"] = " partition.silos=7"
    company["privacy=silo"] = " privacy.delta=1e-5"
    company["privacy=record_distributed"] = " aggregation=secure"
    company["privacy=silo_distributed"] = " privacy.delta=1e-5 aggregation=secure"
    return f"{group}={option}" + company.get(f"{group}={option}", "")


def test_every_yaml_file_is_in_the_registry_and_vice_versa() -> None:
    on_disk = {(path.parent.name, path.stem) for path in CONF.glob("*/*.yaml")}
    assert on_disk == set(OPTIONS)
    assert {path.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml") if path.parent == CONF} == {
        "config.yaml"
    }
    assert not list(CONF.rglob("*.yml"))


def test_every_group_is_a_field_of_the_settings_and_vice_versa() -> None:
    fields = {field.name: field.type for field in dataclasses.fields(Settings)}
    assert set(GROUPS) == set(fields) - {"seed", "charter", "overrides"}
    for group, options in GROUPS.items():
        allowed = typing.get_args(fields[group]) if isinstance(fields[group], types.UnionType) else (fields[group],)
        assert all(issubclass(cls, allowed) for cls in options.values()), group


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_with_its_defaults(group: str, option: str) -> None:
    part = getattr(compose(alone(group, option)), group)
    assert type(part) is GROUPS[group][option]
    assert part.name == option


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_yaml_sets_exactly_the_fields_of_the_schema(group: str, option: str) -> None:
    tree = composing._load(((group, option),))
    assert set(tree[group]) == {field.name for field in dataclasses.fields(GROUPS[group][option])}
    assert set(tree) == {*GROUPS, "seed", "charter"}


@pytest.mark.parametrize(("group", "option", "field"), FIELDS)
def test_every_field_has_help_known_limits_and_a_plain_type(group: str, option: str, field: typing.Any) -> None:
    assert field.metadata["help"].strip()
    assert not field.metadata["help"].endswith(".")
    assert set(field.metadata) - {"help"} <= LIMITS
    assert field.type in (int, float, bool, str, tuple[int, ...], tuple[str, ...], float | None, int | None)
    assert field.default is dataclasses.MISSING, "values belong in the YAML files"
    if field.type in (int, tuple[int, ...], int | None):
        assert {"le", "lt", "choices"} & set(field.metadata), "a whole number without an upper limit overflows"
    assert GROUPS[group][option].__doc__


@pytest.mark.parametrize(("group", "option", "field"), FIELDS)
def test_limits_hold_at_their_edges(group: str, option: str, field: typing.Any) -> None:
    key = f"{group}.{field.name}"
    start = " ".join(item for item in alone(group, option).split() if not item.startswith(f"{key}="))
    step = 1 if field.type in (int, tuple[int, ...], int | None) else 1e-9
    wrap = "{}=[{}]".format if typing.get_origin(field.type) is tuple else "{}={}".format
    inside, outside = [], []
    for limit, value in field.metadata.items():
        if limit in ("ge", "gt"):
            (inside if limit == "ge" else outside).append(value)
            outside.append(value - step)
        elif limit in ("le", "lt"):
            (inside if limit == "le" else outside).append(value)
            outside.append(value * 2 + step)
        elif limit == "choices":
            inside.extend(value)
            outside.append("nothing-of-the-kind")
    for value in inside:
        try:
            assert compose(f"{start} {wrap(key, value)}")
        except SettingsError as refused:  # by a rule over several settings, not by the limit
            assert f"{key} must" not in str(refused)  # noqa: PT017
    for value in outside:
        with pytest.raises(SettingsError, match=rf"^(an entry of )?{key} must be "):
            compose(f"{start} {wrap(key, value)}")


WRONG = {int: ("1.5", "true", "word", "null", "[1]"), float: ("true", "word", "null", "[1.0]", "nan", "inf", "'1.0'")}
WRONG |= {bool: ("1", "yes", "null", "'true'", "[true]"), str: ("1", "true", "null", "[a]")}


@pytest.mark.parametrize(("group", "option", "field"), FIELDS)
def test_a_wrong_type_is_refused(group: str, option: str, field: typing.Any) -> None:
    key = f"{group}.{field.name}"
    start = " ".join(item for item in alone(group, option).split() if not item.startswith(f"{key}="))
    if typing.get_origin(field.type) is tuple:
        wrong = [f"[{value}]" for value in WRONG[typing.get_args(field.type)[0]] if value[0] != "["]
        wrong += ["1", "a", "null"]
    else:
        optional = isinstance(field.type, types.UnionType)
        wrong = list(WRONG[typing.get_args(field.type)[0] if optional else field.type])
        if optional:
            wrong.remove("null")
        if field.metadata.get("inf"):
            wrong.remove("inf")
    for value in wrong:
        with pytest.raises(SettingsError, match=rf"^(an entry of )?{key} must be "):
            compose(f"{start} {key}={value}")


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_settings_survive_yaml_and_json(group: str, option: str) -> None:
    tree = compose(alone(group, option)).as_dict()
    assert set(tree) == {*GROUPS, "seed", "charter"}
    assert yaml.safe_load(yaml.safe_dump(tree)) == tree
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree


def test_odd_values_survive_yaml_and_json() -> None:
    text = "training.lr=1e-7 strategy.deadline=1e5 task.hidden=[1,2] runtime.faults=['drop:*:*:a b, c;=']"
    tree = compose(text).as_dict()
    assert yaml.safe_load(yaml.safe_dump(tree)) == tree
    assert json.loads(json.dumps(tree)) == tree
    assert tree["runtime"]["faults"] == ["drop:*:*:a b, c;="]


def test_rows_of_a_data_set_are_what_it_has() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    (field,) = (field for field in dataclasses.fields(SklearnData) if field.name == "dataset")
    assert set(ROWS) == set(field.metadata["choices"])
    for name, rows in ROWS.items():
        assert len(getattr(datasets, f"load_{name}")().target) == rows


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import quire", "hydra omegaconf torch flwr ray numpy yaml quire.conf quire.strategies"),
        ("import quire.conf.schema, quire.conf.overrides, quire.errors", "hydra omegaconf torch flwr ray numpy yaml"),
        ("import quire.conf.rules, quire.conf.compose", "hydra omegaconf torch flwr ray numpy yaml"),
        ("from quire import Settings, compose, QuireError; compose('seed=2')", "torch flwr ray numpy sklearn"),
    ],
)
def test_imports_are_cheap(statement: str, absent: str) -> None:
    code = f"import sys; {statement}; print(sorted(set(sys.modules) & set({absent.split()!r})))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
