"""What the report says privacy cost: computed from the run, also where it cost nothing or nobody can tell."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from quire.simulation import plain_words
from quire.simulation.report_data import read_run
from quire.simulation.report_words import NBSP
from tests.simulation.test_report import SILOS, comparison, make_run, page_of, scores

RECORD = "task=breast_cancer privacy=record privacy.epsilon=2"
SHARED = "task=breast_cancer aggregation=secure privacy=record_distributed privacy.epsilon=2"
MASKS = "task=breast_cancer aggregation=secure"
OVERRIDES = "task=breast_cancer training.lr=0.1"


def compared(federated: float, **plain: float | None) -> dict[str, Any]:
    """A comparison with federations in clear, of which those without a score could not be trained."""
    found = comparison(SILOS, federated, 0.97, [0.8, 0.85, 0.9, 0.7, 0.75])
    found["plain"] = {}
    for way, value in plain.items():
        about = {"overrides": OVERRIDES}
        if value is None:
            found["plain"][way] = about | {"error": "Round 1 had no good reply."}
            continue
        found["plain"][way] = about | {"model": "cd" * 32}
        found["everyone"][way] = scores(value)
    return found


def cost_of(folder: Path, overrides: str, found: dict[str, Any]) -> plain_words.Cost:
    cost = plain_words.cost(read_run(make_run(folder, compared=found, overrides=overrides)))
    assert cost is not None
    return cost


@pytest.mark.parametrize(
    ("overrides", "federated", "plain", "sentence", "tone"),
    [
        (
            RECORD,
            0.90,
            0.95,
            "Privacy at epsilon 2 cost 5.0 points of balanced accuracy against the same federation",
            0,
        ),
        (RECORD, 0.95, 0.952, "Privacy at epsilon 2 made no difference to speak of: −0.2 points of balanced", 1),  # noqa: RUF001
        (RECORD, 0.97, 0.95, "Privacy at epsilon 2 cost no balanced accuracy here: the model is 2.0 points better", 1),
        (RECORD.replace("=2", "=inf"), 0.90, 0.95, "Clipping, without any noise, cost 5.0 points of balanced", 0),
        (MASKS, 0.95, 0.95, "Summing under masks made no difference to speak of: ±0.0 points of balanced accuracy", 1),
    ],
)
def test_the_sentence_is_computed(
    tmp_path: Path, overrides: str, federated: float, plain: float, sentence: str, tone: int
) -> None:
    cost = cost_of(tmp_path, overrides, compared(federated, federated_plain=plain))
    assert cost.sentence.startswith(sentence)
    assert cost.tone == ("level", "open")[tone]
    assert f"reaches {100 * plain:.1f}{NBSP}%." in cost.notes[0]
    assert ("chance" in " ".join(cost.notes)) == (federated - plain > 0.01)
    assert "points of balanced accuracy" in page_of(tmp_path).text("p") or "cost no balanced" in cost.sentence
    assert cost.sentence in page_of(tmp_path).text("p")


def test_one_step_a_round_is_held_against_one_step_a_round(tmp_path: Path) -> None:
    cost = cost_of(tmp_path, SHARED, compared(0.92, federated_plain=0.97, federated_steps=0.95))
    assert cost.sentence.startswith("Privacy at epsilon 2 cost 3.0 points")
    assert cost.notes[0].startswith("Without it, one batch a round as in this run, neither clipped nor noised")
    assert "one local pass in each round a federation reaches 97.0" in cost.notes[1]


@pytest.mark.parametrize(
    ("overrides", "way"),
    [("training.epochs=3", "three local passes in each round"), ("training.steps=1", "one local step in each round")],
)
def test_what_a_user_without_privacy_would_have_run_is_named(tmp_path: Path, overrides: str, way: str) -> None:
    folder = make_run(tmp_path, overrides=f"{SHARED} {overrides}")
    assert plain_words.how(read_run(folder), "federated_plain") == way


def test_a_federation_that_could_not_be_trained_is_said(tmp_path: Path) -> None:
    cost = cost_of(tmp_path, RECORD, compared(0.9, federated_plain=None))
    assert cost.sentence == (
        "Privacy at epsilon 2: what it cost cannot be told, for the same federation without it could not be trained: "
        "Round 1 had no good reply."
    )
    page = page_of(tmp_path)
    assert cost.sentence in page.text("p")
    assert not [kind for kind in page.classes("div") if kind == "tile plain"]


def test_one_of_two_is_enough(tmp_path: Path) -> None:
    cost = cost_of(tmp_path, SHARED, compared(0.9, federated_plain=0.95, federated_steps=None))
    assert cost.sentence.startswith("Privacy at epsilon 2 cost 5.0 points")
    assert "one local pass in each round" in cost.notes[0]


@pytest.mark.parametrize("value", [float("nan"), None, "high", True])
def test_a_score_that_is_undefined_gives_no_figure(tmp_path: Path, value: Any) -> None:
    found = compared(0.9, federated_plain=0.95)
    found["everyone"]["federated_plain"] = {"accuracy": value, "balanced_accuracy": value, "loss": value}
    cost = cost_of(tmp_path, RECORD, found)
    assert cost.sentence.endswith("cannot be told, for one of the two models has no score.")
    page_of(tmp_path)


def test_a_number_that_is_learned(tmp_path: Path) -> None:
    found = compared(0.3, federated_plain=0.4)
    for way in ("federated", "federated_plain", "pooled", "majority"):
        score = found["everyone"][way].get("accuracy", 0.0)
        found["everyone"][way] = {"r2": -0.02 if way == "majority" else score, "rmse": 50.0, "loss": 0.5}
    found["everyone"]["alone"] = {silo: {"r2": 0.1, "loss": 0.9} for silo in SILOS}
    found["silos"] = {silo: {"train": 40, "test": 200, "labels": {}} for silo in SILOS}
    cost = cost_of(tmp_path, "task=diabetes privacy=record privacy.epsilon=4", found)
    assert cost.sentence == (
        "Privacy at epsilon 4 cost 10.0 points of explained variance against the same federation without it."
    )
    page = page_of(tmp_path)
    assert "always the mean" in page.text("td")
    assert f"−2.0{NBSP}%".replace("−", "-") in page.text("td").replace(" %", f"{NBSP}%")  # noqa: RUF001


def rows_of(page: str) -> dict[str, list[str]]:
    table = page[page.index("Every model on everyone") :]
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', table[: table.index("</table>")], re.DOTALL)
    return {title: re.findall(r"<td[^>]*>(.*?)</td>", cells, re.DOTALL) for title, cells in rows}


def test_every_model_has_a_row(tmp_path: Path) -> None:
    make_run(tmp_path, compared=compared(0.92, federated_plain=0.97, federated_steps=0.95), overrides=SHARED)
    page_of(tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    table = plain_words.table(read_run(tmp_path))
    assert table is not None
    assert [row[0] for row in table["rows"]] == [
        "Federated, epsilon 2",
        "Federated, without privacy",
        "Federated, without privacy",
        "Pooled",
        *(f"{silo} alone" for silo in SILOS),
        "Guessing",
    ]
    rows = rows_of(page)
    assert rows["Federated, epsilon 2"] == ["this run", f"92.0{NBSP}%", f"92.0{NBSP}%", "0.080"]
    assert rows["hospital-4 alone"][1] == f"70.0{NBSP}%"
    assert rows["Guessing"] == ["always the most frequent class", f"50.0{NBSP}%", f"50.0{NBSP}%", "–"]  # noqa: RUF001
    assert page.count(f"quire run {OVERRIDES}</code>") == 2
    label = re.search(r'aria-label="balanced accuracy on everyone[^"]*"', page)
    assert label
    assert f"federated in clear 95.0{NBSP}%" in label[0]


def test_the_label_has_epsilon_and_the_largest_delta_of_the_card(tmp_path: Path) -> None:
    folder = make_run(tmp_path, compared=compared(0.9, federated_plain=0.95), overrides=RECORD)
    data = read_run(folder)
    assert plain_words.promise(data) == "epsilon 2"
    cards = {"silos": [{"statement": {"delta": delta}} for delta in (1e-6, 1e-5)]}
    with_card = type(data)(**{**data.__dict__, "card": cards})
    assert plain_words.promise(with_card) == "epsilon 2, delta 1e-05"


def test_many_silos_are_one_row(tmp_path: Path) -> None:
    silos = [f"silo-{place}" for place in range(30)]
    found = comparison(silos, 0.9, 0.92, [0.5 + 0.01 * place for place in range(30)])
    found["everyone"]["federated_plain"], found["plain"] = scores(0.91), {"federated_plain": {"overrides": OVERRIDES}}
    table = plain_words.table(read_run(make_run(tmp_path, silos, compared=found, overrides=MASKS)))
    assert table is not None
    assert [(row[0], row[2][0]) for row in table["rows"]] == [
        ("Federated, under masks", f"90.0{NBSP}%"),
        ("Federated, in clear", f"91.0{NBSP}%"),
        ("Pooled", f"92.0{NBSP}%"),
        ("A hospital alone", f"64.5{NBSP}%"),
        ("Guessing", f"50.0{NBSP}%"),
    ]
    page_of(tmp_path)


@pytest.mark.parametrize("overrides", [OVERRIDES, RECORD])
def test_without_such_a_federation_the_page_is_as_it_was(tmp_path: Path, overrides: str) -> None:
    page = page_of(make_run(tmp_path, compared=comparison(SILOS, 0.9, 0.95, [0.8] * 5), overrides=overrides))
    assert plain_words.cost(read_run(tmp_path)) is None
    assert page.classes("div").count("tile fed") == 1
    assert "tile plain" not in page.classes("div")
    assert "Every model" not in page.text("h3")


def test_what_is_written_beside_the_models_cannot_write_markup(tmp_path: Path) -> None:
    found = compared(0.9, federated_plain=None)
    found["plain"]["federated_plain"] = {"overrides": "<script>alert(1)</script>", "error": "<img src=x>"}
    page = page_of(make_run(tmp_path, compared=found, overrides=RECORD))
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    found["plain"] = {"federated_plain": "nonsense"}
    page_of(make_run(tmp_path, compared=found, overrides=RECORD))
