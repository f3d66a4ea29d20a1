"""Who fits a task, who does not and why, in words; and in which order."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Call
from offering import HEART, NOW, PURPOSE, offer

from quire.catalog.catalogue import Catalogue
from quire.catalog.counts import Count
from quire.catalog.errors import CatalogError
from quire.catalog.matching import Fit, Wanted, match
from quire.clients.tasks.schema import Categorical, Image, Numeric, Schema, Target
from quire.conf.compose import compose

AGE, SEX, CHOL = HEART.columns
DIGITS = Schema((), Image(8, 8, 1), Target("digit", "classification", tuple(float(one) for one in range(10))))
COST = replace(HEART, target=Target("cost", "regression", low=0.0, high=9.0))


def wanted(overrides: str = "task=tabular", schema: Schema | None = None, **more: Any) -> Wanted:
    held = "privacy" in overrides or "aggregation" in overrides
    return Wanted(compose(overrides) if overrides else None, schema, held, **more)


def one(schema: Schema, asked: Wanted, **changes: Any) -> Fit:
    (found,) = match([offer(schema, **changes)], asked, NOW)
    return found


def columns(*found: Numeric | Categorical) -> Schema:
    return replace(HEART, columns=found)


def test_the_very_schema_fits() -> None:
    found = one(HEART, wanted("", HEART))
    assert (found.fits, found.exact, found.notes) == (True, True, ())


@pytest.mark.parametrize(
    ("offered", "reason"),
    [
        (columns(AGE, SEX), "it has no column 'chol'"),
        (columns(Numeric("x", 0.0, 1.0, False, 0.5)), "it has no column 'age', 'sex', 'chol'"),
        (columns(Categorical("age", ("a",), False, "error"), SEX, CHOL), "the column 'age' holds categories, and numb"),
        (columns(AGE, Numeric("sex", 0.0, 1.0, False, 0.5), CHOL), "the column 'sex' holds numbers, and categories"),
        (columns(replace(AGE, high=99.0), SEX, CHOL), "the column 'age' has the bounds 20 to 99, and 20 to 90 are"),
        (columns(AGE, replace(SEX, categories=("f", "m", "x")), CHOL), "other categories: 'x' beside those asked for"),
        (columns(AGE, replace(SEX, categories=("f",)), CHOL), "the column 'sex' has other categories: no 'm'"),
        (columns(AGE, replace(SEX, unknown="ignore"), CHOL), "the column 'sex' may have unknown categories"),
        (columns(replace(AGE, missing=True), SEX, CHOL), "the column 'age' may lack values"),
        (replace(HEART, target=replace(HEART.target, name="dead")), "its target is 'dead', and 'sick' is asked for"),
        (replace(HEART, target=replace(HEART.target, at_least=2.0)), "parts two classes at another value"),
        (replace(HEART, target=Target("sick", "regression")), "the target 'sick' is a number, and a class is asked"),
        (DIGITS, "its rows are images, not columns"),
    ],
)
def test_what_does_not_fit_is_said_in_words(offered: Schema, reason: str) -> None:
    found = one(offered, wanted("", HEART))
    assert not found.fits
    assert reason in found.reasons[0]


def test_targets_and_images_are_held_against_each_other() -> None:
    classes = replace(HEART, target=Target("sick", "classification", ("no", "yes", "maybe")))
    asked = replace(HEART, target=Target("sick", "classification", ("no", "yes")))
    assert "other classes: 'maybe' beside" in one(classes, wanted("", asked)).reasons[0]
    other = replace(COST, target=replace(COST.target, high=8.0))
    assert "the bounds 0 to 8, not 0 to 9" in one(other, wanted("", COST)).reasons[0]
    assert "not images" in one(HEART, wanted("", DIGITS)).reasons[0]
    assert "another height" in one(replace(DIGITS, image=Image(8, 9, 1)), wanted("", DIGITS)).reasons[0]
    assert one(DIGITS, wanted("", DIGITS)).exact


def test_more_columns_in_another_order_fit_once_the_schema_is_taken_over() -> None:
    offered = columns(CHOL, Numeric("bp", 0.0, 300.0, False, 120.0), SEX, AGE)
    found = one(offered, wanted("", HEART))
    assert (found.fits, found.exact) == (True, False)
    assert "take over" in found.notes[0]
    strict = columns(AGE, SEX, replace(CHOL, missing=False, impute=200.0))
    assert one(strict, wanted("", HEART)).fits


def test_tasks_by_name() -> None:
    assert one(HEART, wanted()).fits
    assert "asks for images" in one(HEART, wanted("task=images")).reasons[0]
    assert "asks for columns" in one(DIGITS, wanted()).reasons[0]
    assert one(DIGITS, wanted("task=images")).fits
    assert one(DIGITS, wanted("task=digits")).fits
    reasons = one(HEART, wanted("task=breast_cancer")).reasons
    assert reasons == ("its rows have 4 features, and task=breast_cancer asks for 30",)
    assert "asks for 10" in one(replace(DIGITS, target=HEART.target), wanted("task=digits")).reasons[0]
    ten = columns(*(Numeric(f"x{place}", 0.0, 1.0, False, 0.5) for place in range(10)))
    assert "its target is a class" in one(ten, wanted("task=diabetes")).reasons[0]
    assert one(replace(ten, target=Target("y", "regression")), wanted("task=diabetes")).fits
    nine = columns(*ten.columns[:8], SEX)
    assert "categories" in one(replace(nine, target=Target("y", "regression")), wanted("task=diabetes")).reasons[0]
    assert "task.model=logistic" in one(COST, wanted()).reasons[0]
    assert one(COST, wanted("task=tabular task.model=linear")).fits
    with pytest.raises(CatalogError, match="makes its rows up"):
        wanted("task=synthetic")
    with pytest.raises(CatalogError, match="Name what is looked for"):
        Wanted()


SECURE = "task=tabular partition.silos=4 strategy.min_silos=4 aggregation=secure aggregation.max_rows=500"


@pytest.mark.parametrize(
    ("level", "run", "fits"),
    [
        ("public", "task=tabular privacy=none", True),
        ("confidential", "task=tabular privacy=none", False),
        ("confidential", SECURE, True),
        ("restricted", SECURE, False),
        ("restricted", "task=tabular privacy=record privacy.epsilon=1", True),
        ("secret", "task=tabular privacy=record privacy.epsilon=1", False),
        ("secret", f"{SECURE} privacy=record privacy.epsilon=1", True),
    ],
)
def test_labels_are_held_against_privacy_and_aggregation(level: str, run: str, fits: bool) -> None:
    labels = {"sensitivity": level, "residency": None, "purposes": None}
    found = one(HEART, wanted(run), labels=labels)
    assert found.fits == fits
    assert fits or f"its rows are {level}, which asks for" in found.reasons[0]
    open_ = one(HEART, wanted(), labels=labels)
    assert open_.fits
    assert level == "public" or "which asks for" in open_.notes[0]


def test_purposes_and_places() -> None:
    labels = {"sensitivity": "public", "residency": ["ch", "eu"], "purposes": [PURPOSE]}
    found = one(HEART, wanted(), labels=labels)
    assert found.fits
    assert [note.split()[-1] for note in found.notes] == ["--purpose", "--residency"]
    broken = PURPOSE.replace(" heart ", "\n  heart ")
    assert one(HEART, wanted(purpose=broken, residency=("eu", "ch")), labels=labels).fits
    reasons = one(HEART, wanted(purpose="Sell it.", residency=("eu", "us")), labels=labels).reasons
    assert reasons == (
        "its rows may not serve this purpose, word for word",
        "members have to be in ch, eu, and not in us",
    )
    assert one(HEART, wanted(purpose="Sell it.", residency=("us",))).fits, "without labels anything goes"


def test_terms_rows_and_time() -> None:
    terms = {"privacy": ["record"], "aggregation": ["secure"]}
    reasons = one(HEART, wanted("task=tabular privacy=none"), terms=terms).reasons
    assert reasons == (
        "its policy admits privacy record, not none",
        "its policy admits aggregation secure, not plain",
    )
    assert one(HEART, wanted(), terms=terms).fits
    robust = wanted("task=tabular privacy=none aggregation=median")
    assert one(HEART, robust, terms={"privacy": ["none"], "aggregation": ["plain"]}).fits
    reasons = one(HEART, robust, terms={"privacy": ["none"], "aggregation": ["secure"]}).reasons
    assert reasons == ("its policy admits aggregation secure, not median",)
    assert one(HEART, wanted(rows=300)).fits
    assert "300 rows, declared, and at least 301 are asked for" in one(HEART, wanted(rows=301)).reasons[0]
    (late,) = match([offer()], wanted(), NOW + 86401)
    assert "expired" in late.reasons[0]


def test_the_best_come_first() -> None:
    more = columns(*HEART.columns, Numeric("bp", 0.0, 300.0, False, 120.0))
    offers = [
        offer(columns(AGE), silo="poor"),
        offer(columns(AGE, SEX), silo="near", rows=Count("declared", 9).to_json()),
        offer(more, silo="large", rows=Count("rounded", 5000, 1000).to_json()),
        offer(more, silo="larger", rows=Count("declared", 6000).to_json()),
        offer(silo="small", rows=Count("dp", 10, epsilon="0.5").to_json()),
    ]
    found = [fit.offer.silo for fit in match(offers, wanted("", HEART), NOW)]
    assert found == ["small", "larger", "large", "poor", "near"]


SCHEMA = """columns:
  age: {low: 20, high: 90}
  sex: {categories: [f, m]}
  chol: {low: 100, high: 600, missing: true}
target: {name: sick, kind: classification, classes: ["no", "yes"], positive: {at_least: 1}}
"""


def test_the_command_says_who_fits(tmp_path: Path, quire: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    import quire.catalog_cli as commands

    monkeypatch.setattr(commands, "_now", lambda: NOW)
    monkeypatch.chdir(tmp_path)
    shelf = Catalogue(tmp_path / "p")
    labels = {"sensitivity": "restricted", "residency": None, "purposes": None}
    for made in (offer(labels=labels), offer(columns(AGE, SEX), silo="clinic-2"), offer(COST, silo="clinic-3")):
        shelf.add(made, NOW)
    Path("schema.yaml").write_text(SCHEMA)
    status, out, _ = quire("catalog", "match", "p", "schema.yaml")
    assert status == 0
    assert " 1 clinic-1: 300 rows, declared; fits, with the very schema\n" in out
    assert "clinic-2: 300 rows, declared; does not fit\n     it has no column 'chol'\n" in out
    assert out.endswith("1 of 3 silos of p fit, with 300 rows in all, as they say.\n")
    status, out, _ = quire("catalog", "match", "p", "schema.yaml", "privacy=none", "--json")
    found = json.loads(out)
    assert (status, found["fits"], found["rows"]) == (1, 0, 0)
    assert "restricted" in next(silo for silo in found["silos"] if silo["silo"] == "clinic-1")["reasons"][0]
    assert quire("catalog", "match", "p", "schema.yaml", "privacy=record", "privacy.epsilon=1")[0] == 0
    status, out, _ = quire("catalog", "match", "p", "tabular")
    assert "They have 2 schemas: to learn together they have to agree on one." in out
    assert quire("catalog", "match", "p", "tabular", "--min-rows", "301")[0] == 1
    Path("cost.yml").write_text(SCHEMA.split("target")[0] + "target: {name: cost, kind: regression, low: 0, high: 9}\n")
    assert quire("catalog", "match", "p", "cost.yml", "training.lr=0.1")[0] == 0
    assert quire("catalog", "match", "p", "cost.yml", "task.model=mlp")[0] == 0


@pytest.mark.parametrize("rule", ["median", "krum aggregation.byzantine=1", "norm_bound"])
def test_robust_rules_are_to_a_policy_what_the_server_sees(rule: str) -> None:
    run = wanted(f"task=tabular partition.silos=7 aggregation={rule}")
    assert one(HEART, run, terms={"privacy": ["none"], "aggregation": ["plain"]}).fits
    reasons = one(HEART, run, terms={"privacy": ["none"], "aggregation": ["secure"]}).reasons
    assert reasons == (f"its policy admits aggregation secure, not {rule.split()[0]}",)
    labels = {"sensitivity": "confidential", "residency": None, "purposes": None}
    assert "aggregation=secure" in one(HEART, run, labels=labels).reasons[0]


def test_nobody_is_looked_for_who_takes_the_short_cut_of_a_simulation() -> None:
    with pytest.raises(CatalogError, match="which no real silo takes part in"):
        wanted(f"{SECURE} aggregation.simulate=exact_sum")
