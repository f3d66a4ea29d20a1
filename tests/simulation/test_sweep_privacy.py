"""What a private sweep says is what its runs promised, spent and reached; what was refused says why."""

from __future__ import annotations

import csv
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from private_sweeps import close_sweep, make_job, make_sweep

from quire.clients.private.plan import plan_of
from quire.conf.compose import compose
from quire.privacy.dp.contract import capped_weight
from quire.simulation.report_words import DASH, NBSP
from quire.simulation.sweep_axes import Axis, spaced
from quire.simulation.sweep_data import read_sweep
from quire.simulation.sweep_page import write_sweep_page
from quire.simulation.sweep_privacy import PrivacyData, read_privacy
from quire.simulation.sweep_privacy_words import headline, references, rows, warning

RECORD = "privacy=record training.batch_size=8"
VALID = "data.validation_fraction=0.2"
REFUSED = "a cannot take part: training.batch_size=64 is larger than the silo's 40 records: lower it."


def privacy_of(folder: Path) -> PrivacyData:
    found = read_privacy(read_sweep(folder))
    assert found is not None
    return found


def page_of(folder: Path) -> str:
    return write_sweep_page(folder).read_text(encoding="utf-8")


def epsilons(tmp_path: Path, **about: object) -> Path:
    scores = {"1": (0.80, 0.82), "4": (0.90, 0.90), "inf": (0.94, 0.92)}
    jobs = [
        (f"{RECORD} privacy.epsilon={epsilon} seed={seed}", score)
        for epsilon, pair in scores.items()
        for seed, score in enumerate(pair, start=1)
    ]
    return make_sweep(tmp_path / "s", jobs, **about)


def test_one_line_of_epsilons_with_what_they_cost_seed_by_seed(tmp_path: Path) -> None:
    found = privacy_of(epsilons(tmp_path))
    (panel,) = found.panels
    (line,) = panel.lines
    assert [point.epsilon for point in line.points] == [1.0, 4.0, math.inf]
    assert panel.chosen == ()
    assert panel.without is line.points[-1]
    lost = panel.cost(line.points[0])
    assert lost is not None
    assert (lost.mean, lost.n) == (pytest.approx(0.12), 2)
    assert lost.deviation == pytest.approx(np.std([0.14, 0.10], ddof=1))
    assert panel.cost(line.points[-1]) is None
    told = headline(found)
    assert told is not None
    assert told.sentence == (
        f"From epsilon 1 to 4, balanced accuracy goes from 81.0{NBSP}% to 90.0{NBSP}%; without noise it is 93.0{NBSP}%."
    )
    assert told.verdict.startswith("Epsilon 1 costs 12.0 points (over 2 seeds; standard error 2.0).")


def test_the_noise_is_that_of_each_silos_own_number_of_records(tmp_path: Path) -> None:
    settings = compose(f"{RECORD} privacy.epsilon=4 partition=iid partition.silos=2 strategy.rounds=2")
    expected = {plan_of(settings, count).noise_multiplier for count in (40, 80)}
    assert len(expected) == 2
    point = privacy_of(epsilons(tmp_path)).points[1]
    assert point.multipliers is not None
    assert {point.multipliers.low, point.multipliers.high} == expected
    assert point.deltas is not None
    assert point.deltas.high == 1e-5
    assert privacy_of(tmp_path / "s").points[2].multipliers is None


def test_signal_to_noise_is_a_ratio_by_round_and_none_without_noise(tmp_path: Path) -> None:
    for seed, ratios in ((1, (0.5, 0.3)), (2, (0.7, 0.1))):
        make_job(tmp_path / "s", seed, f"{RECORD} privacy.epsilon=1 seed={seed}", 0.8, ratios=ratios)
    make_job(tmp_path / "s", 3, f"{RECORD} privacy.epsilon=inf seed=1", 0.8)
    noised, clipped = privacy_of(close_sweep(tmp_path / "s")).points
    assert noised.ratios == {1: pytest.approx(0.6), 2: pytest.approx(0.2)}
    assert clipped.ratios == {}


@pytest.mark.parametrize("weights", ["uniform", "capped"])
def test_for_one_silo_the_ratio_is_the_most_that_it_can_be(weights: str, tmp_path: Path) -> None:
    overrides = f"privacy=silo privacy.delta=1e-5 privacy.epsilon=8 privacy.weights={weights} privacy.cap=80"
    make_job(tmp_path / "s", 0, overrides, 0.8, ratios=(0.5, 7.0))
    found = privacy_of(close_sweep(tmp_path / "s"))
    point = found.points[0]
    multiplier = plan_of(compose(f"{overrides} strategy.rounds=2"), 40).noise_multiplier
    weight = {"uniform": 2.0, "capped": capped_weight(40, 80) + 1.0}[weights]
    noise = multiplier * math.sqrt(25)  # of 25 parameters; the clip is 1
    assert point.ratios == {1: pytest.approx(0.5 * weight / noise), 2: pytest.approx(1.0 * weight / noise)}
    assert rows(found)[0]["ratio"].startswith("≤ ")
    assert "point the same way" in page_of(tmp_path / "s")


def test_settings_are_chosen_on_validation_rows_at_each_epsilon_and_shown_on_test_rows(tmp_path: Path) -> None:
    validation = {("0.5", 1): 0.7, ("2", 1): 0.6, ("0.5", 4): 0.8, ("2", 4): 0.9}
    for number, ((clip, epsilon), score) in enumerate(validation.items()):
        for seed in (1, 2):
            overrides = f"{RECORD} privacy.clip={clip} privacy.epsilon={epsilon} seed={seed} {VALID}"
            make_job(tmp_path / "s", 2 * number + seed, overrides, 1.4 - score, validation=score)
    found = privacy_of(close_sweep(tmp_path / "s"))
    (panel,) = found.panels
    (chosen,) = panel.chosen
    clips = [
        dict(zip(found.data.keys, point.configuration.values, strict=True))["privacy.clip"] for point in chosen.points
    ]
    assert clips == [0.5, 2]
    assert len(panel.lines) == 2
    told = headline(found)
    assert told is not None
    assert f"goes from 70.0{NBSP}% to 50.0{NBSP}%" in told.sentence
    assert "had no part in the choice" in told.notes[0]
    assert [row["chosen"] for row in rows(found)] == [True, False, True, False]
    assert page_of(tmp_path / "s").count('class="chosen"') == 2


def test_a_promise_is_no_knob(tmp_path: Path) -> None:
    """The best epsilon is always the largest: none is named the best, on any rows."""
    for number, epsilon in enumerate((1, 8)):
        make_job(tmp_path / "s", number, f"{RECORD} privacy.epsilon={epsilon} {VALID}", 0.9, validation=epsilon / 10)
    data = read_sweep(close_sweep(tmp_path / "s"))
    assert all(data.best(group) is None for group in data.conditions.values())
    assert "did best" not in page_of(tmp_path / "s")
    assert privacy_of(tmp_path / "s").panels[0].chosen == ()


def test_without_validation_rows_nothing_is_chosen_and_lines_stand_beside_each_other(tmp_path: Path) -> None:
    jobs = [
        (f"{RECORD} strategy={strategy} privacy.epsilon={epsilon}", epsilon / 10)
        for strategy in ("fedavg", "fedprox")
        for epsilon in (1, 8)
    ]
    found = privacy_of(make_sweep(tmp_path / "s", jobs))
    assert [line.values for line in found.panels[0].leading] == [{"strategy": "fedavg"}, {"strategy": "fedprox"}]
    told = headline(found)
    assert told is not None
    assert told.notes[0] == f"strategy=fedavg: 10.0{NBSP}% at epsilon 1 and 80.0{NBSP}% at epsilon 8."
    assert "Nothing is chosen among values of strategy" in told.notes[-1]


def test_units_and_no_privacy_side_by_side(tmp_path: Path) -> None:
    jobs = [
        (f"{RECORD}", 0.8),
        ("privacy=silo privacy.delta=1e-4", 0.7),
        ("privacy=none", 0.95),
    ]
    found = privacy_of(make_sweep(tmp_path / "s", jobs))
    (panel,) = found.panels
    assert panel.without is not None
    assert panel.without.mode == "none"
    assert [row["unit"] for row in rows(found)] == ["one record", "one silo", "no privacy"]
    assert [row["cost"] for row in rows(found)] == ["+15.0", "+25.0", DASH]
    told = headline(found)
    assert told is not None
    assert "different promises" in told.notes[-1]
    axis = Axis.of(found.points)
    assert axis.place(found.points[0]) < axis.place(found.points[1]) < axis.place(found.points[2]) == 1.0
    assert "no privacy" in page_of(tmp_path / "s")


def test_one_line_beside_no_privacy_is_told_as_one(tmp_path: Path) -> None:
    told = headline(privacy_of(make_sweep(tmp_path / "s", [(RECORD, 0.8), ("privacy=none", 0.95)])))
    assert told is not None
    assert told.sentence == f"At epsilon 2, balanced accuracy is 80.0{NBSP}%; without privacy it is 95.0{NBSP}%."
    assert told.verdict == "Epsilon 2 costs 15.0 points (with one seed nobody can tell whether by chance)."


def test_deltas_are_promises_of_their_own(tmp_path: Path) -> None:
    jobs = [
        (f"{RECORD} privacy.delta={delta} privacy.epsilon={epsilon}", 0.8)
        for delta in ("1e-5", "1e-3")
        for epsilon in (1, 4)
    ]
    found = privacy_of(make_sweep(tmp_path / "s", jobs))
    assert [line.values for line in found.panels[0].lines] == [{"privacy.delta": 1e-5}, {"privacy.delta": 1e-3}]
    assert [row["delta"] for row in rows(found)] == ["1e-5", "1e-5", "0.001", "0.001"]


def test_other_data_is_another_pair_of_axes(tmp_path: Path) -> None:
    jobs = [
        (f"{RECORD} data.test_fraction={fraction} privacy.epsilon={epsilon}", fraction)
        for fraction in (0.2, 0.4)
        for epsilon in (1, 4)
    ]
    found = privacy_of(make_sweep(tmp_path / "s", jobs))
    assert [panel.values for panel in found.panels] == [{"data.test_fraction": 0.2}, {"data.test_fraction": 0.4}]
    assert "data.test_fraction=0.4" in page_of(tmp_path / "s")


def test_what_was_refused_is_a_row_with_its_reason(tmp_path: Path) -> None:
    make_job(tmp_path / "s", 0, f"{RECORD} privacy.epsilon=4 seed=1", 0.9)
    make_job(tmp_path / "s", 1, f"{RECORD} privacy.epsilon=4 seed=2", None, error=REFUSED)
    make_job(tmp_path / "s", 2, f"{RECORD} privacy.epsilon=1 seed=1", None, error=REFUSED)
    found = privacy_of(close_sweep(tmp_path / "s", status="failed"))
    assert [(row["epsilon"], row["runs"], row["score"]) for row in rows(found)] == [
        ("1", "0 of 1", DASH),
        ("4", "1 of 2", f"90.0{NBSP}%"),
    ]
    assert found.together == 4.0  # what never began has spent nothing
    page = page_of(tmp_path / "s")
    assert "2 of 3 jobs were not completed." in page
    assert page.count("training.batch_size=64 is larger than the silo") == 2


def test_a_sweep_of_nothing_but_refusals_has_its_page(tmp_path: Path) -> None:
    for number, epsilon in enumerate((0.1, 1)):
        make_job(tmp_path / "s", number, f"{RECORD} privacy.epsilon={epsilon}", None, error=REFUSED)
    page = page_of(close_sweep(tmp_path / "s", status="failed"))
    assert "none was completed" in page
    assert "0 of 1" in page


def test_damaged_receipts_are_left_aside(tmp_path: Path) -> None:
    make_job(tmp_path / "s", 0, f"{RECORD} privacy.epsilon=4", 0.9)
    journal = tmp_path / "s" / "0" / "metrics.jsonl"
    lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    for line in lines[1:]:
        line["receipts"] = {"a": "!", "b": "e30=", "c": 7}
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (row,) = rows(privacy_of(close_sweep(tmp_path / "s")))
    assert (row["multiplier"], row["delta"]) == (DASH, DASH)


def test_the_warning_counts_runs_and_is_stronger_for_a_search(tmp_path: Path) -> None:
    told = warning(privacy_of(epsilons(tmp_path)))
    assert len(told) == 2
    assert "Papernot and Steinke (2022" in told[0]
    assert "six runs of this sweep, published together, promise nothing" in told[1]
    (tmp_path / "s" / "sweep.json").unlink()
    close_sweep(tmp_path / "s", sweeper="optuna")
    told = warning(privacy_of(tmp_path / "s"))
    assert told[0].startswith("Optuna searched here")
    assert "six runs long" in told[0]
    page = page_of(tmp_path / "s")
    assert 'class="caution bad"' in page
    assert "Optuna searched here" in page


def test_runs_together_spend_the_sum(tmp_path: Path) -> None:
    jobs = [(f"{RECORD} privacy.epsilon={epsilon} seed={seed}", 0.9) for epsilon in (0.5, 2) for seed in (1, 2)]
    assert "promise epsilon 5 by basic composition" in warning(privacy_of(make_sweep(tmp_path / "s", jobs)))[1]


def test_what_is_trained_beside_is_named_and_has_no_privacy(tmp_path: Path) -> None:
    found = privacy_of(epsilons(tmp_path))
    told = {row["name"]: (row["score"], row["note"]) for row in references(found.panels[0])}
    assert told["Pooled"] == (f"97.0{NBSP}%", "all rows in one place, no privacy")
    assert told["A hospital alone"] == (f"85.0{NBSP}%", f"no privacy; worst 80.0{NBSP}%, best 90.0{NBSP}%")
    assert told["Guessing"][0] == f"50.0{NBSP}%"
    page = page_of(tmp_path / "s")
    assert page.count("simulator only") >= 4
    assert "pooled 97.0" in page  # the label in the figure


def test_the_tables_beside_the_page_hold_what_it_shows(tmp_path: Path) -> None:
    page = page_of(epsilons(tmp_path))
    with (tmp_path / "s" / "privacy_utility.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["privacy.epsilon"] for row in table] == ["1.0", "4.0", "inf"]
    assert [float(row["test_balanced_accuracy_mean"]) for row in table] == pytest.approx([0.81, 0.9, 0.93])
    assert float(table[0]["cost_mean"]) == pytest.approx(0.12)
    assert float(table[0]["noise_multiplier_low"]) < float(table[0]["noise_multiplier_high"])
    assert table[2]["noise_multiplier_low"] == ""
    tree = json.loads((tmp_path / "s" / "privacy_utility.json").read_text(encoding="utf-8"))
    assert [row["privacy.epsilon"] for row in tree["rows"]] == [1.0, 4.0, "inf"]
    assert tree["rows"][0]["signal_to_noise"] == {"1": 0.5, "2": 0.25}
    assert [seed["test"]["accuracy"] for seed in tree["rows"][0]["seeds"]] == [0.8, 0.82]
    assert 'href="privacy_utility.csv"' in page


def test_a_sweep_without_privacy_has_none_of_this(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path / "s", [("training.lr=0.1", 0.9), ("training.lr=1", 0.8)])
    assert read_privacy(read_sweep(folder)) is None
    page = page_of(folder)
    assert "Privacy and utility" not in page
    assert not (folder / "privacy_utility.csv").exists()


def test_what_users_write_is_escaped(tmp_path: Path) -> None:
    make_job(tmp_path / "s", 0, f"{RECORD} privacy.epsilon=4", 0.9)
    make_job(tmp_path / "s", 1, "privacy=record privacy.epsilon=<img>", None, error="<script>alert(1)</script>")
    page = page_of(close_sweep(tmp_path / "s", args=["-m", "<script>"]))
    assert "<script" not in page
    assert "<img" not in page
    assert "http" not in page.replace("http://www.w3.org", "")


@pytest.mark.parametrize("finite", [(1.0,), (0.5, 8.0), (0.1, 1.0, 2.0, 1000.0)])
@pytest.mark.parametrize("infinite", [True, False])
def test_the_axis_is_logarithmic_and_infinity_stands_apart(finite: tuple[float, ...], infinite: bool) -> None:
    axis = Axis(finite, infinite, none=False)
    places = [axis.at(value) for value in finite]
    assert places == sorted(places)
    assert places[-1] <= axis.end
    assert (axis.end < 0.9) == infinite
    if len(finite) > 2:  # a decade is as long everywhere
        assert axis.at(1.0) - axis.at(0.1) == pytest.approx(axis.at(100.0) - axis.at(10.0))


def test_labels_do_not_touch_and_keep_their_order() -> None:
    told = [(0.5, "a", ""), (0.5, "b", ""), (0.51, "c", ""), (0.9, "d", "")]
    placed = spaced(told, (0.0, 1.0))
    heights = [y for y, *_ in placed]
    assert [text for _, text, _ in placed] == ["a", "b", "c", "d"]
    assert all(after - before >= 0.05 for before, after in pairwise(heights))
    assert max(heights) <= 1.0
