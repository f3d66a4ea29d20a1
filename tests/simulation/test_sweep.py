"""The sweep page chooses on validation rows or not at all, counts seeds, and escapes what it shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from quire.conf.compose import compose
from quire.errors import QuireError
from quire.simulation import sweep_figures
from quire.simulation.report_words import APOSTROPHE, NBSP
from quire.simulation.sweep_data import Spread, last_scores, read_jobs, read_sweep
from quire.simulation.sweep_page import write_sweep_page
from quire.simulation.sweep_words import headline


def make_job(
    sweep: Path, number: int, overrides: str, score: float, test: float | None = None, status: str = "completed"
) -> None:
    """A job whose silos scored ``score`` each round, and whose model scored ``test`` on test rows at the end."""
    folder = sweep / str(number)
    folder.mkdir(parents=True)
    settings = compose(f"{overrides} strategy.rounds=2 output.baselines=false")
    tree = {**settings.as_dict(), "overrides": settings.overrides}
    (folder / "settings.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    values = {"balanced_accuracy": score, "accuracy": score, "loss": 1 - score}
    events: list[dict[str, Any]] = [{"event": "start", "rounds": 2, "silos": ["a"]}]
    events += [{"event": "round", "round": place, "evaluate": values} for place in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    error = "Round 3 failed." if status == "failed" else None
    (folder / "run.json").write_text(json.dumps({"status": status, "error": error}), encoding="utf-8")
    if test is not None:
        everyone = {"federated": {**values, "balanced_accuracy": test, "accuracy": test}}
        (folder / "comparison.json").write_text(json.dumps({"everyone": everyone}), encoding="utf-8")
    ended = None if status == "running" else 0 if status == "completed" else 1
    record = {"job": number, "overrides": overrides.split(), "pid": 1, "status": ended, "error": error, "seconds": 1.5}
    (folder / "job.json").write_text(json.dumps(record), encoding="utf-8")


def make_sweep(folder: Path, jobs: list[tuple[Any, ...]], **about: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for number, job in enumerate(jobs):
        make_job(folder, number, *job)
    about = {
        "status": "completed",
        "args": ["-m", "training.lr=0.1,1"],
        "launcher": "basic",
        "planned": len(jobs),
    } | about
    (folder / "sweep.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


VALID = "data.validation_fraction=0.2"


def test_the_best_is_the_best_on_validation_rows_whatever_the_test_rows_say(tmp_path: Path) -> None:
    jobs = [
        *((f"training.lr=0.1 seed={seed} {VALID}", 0.9 + seed / 1000, 0.6) for seed in (1, 2, 3)),
        *((f"training.lr=1 seed={seed} {VALID}", 0.7 + seed / 1000, 0.99) for seed in (1, 2, 3)),
    ]
    data = read_sweep(make_sweep(tmp_path / "s", jobs))
    best = data.best(data.configurations)
    assert best is not None
    assert best.values == (0.1,)
    assert best.spread("validation", "balanced_accuracy") == Spread(pytest.approx(0.902), pytest.approx(0.001), 3)
    told = headline(data)
    assert told.sentence.startswith(f"training.lr=0.1 did best on the hospitals{APOSTROPHE} validation rows: 90.2")
    assert told.sentence.endswith("mean of 3 seeds.")
    assert told.tone == "good"
    assert f"it reaches 60.0{NBSP}%" in told.notes[0]
    page = write_sweep_page(tmp_path / "s").read_text(encoding="utf-8")
    assert page.count('class="best"') == 1
    assert "bars reach one standard deviation" in page
    assert "means over 3 seeds" in page


def test_without_validation_rows_no_best_is_named(tmp_path: Path) -> None:
    jobs = [(f"training.lr={lr} seed={seed}", 0.5 + lr / 10, None) for lr in (0.1, 1) for seed in (1, 2)]
    data = read_sweep(make_sweep(tmp_path / "s", jobs))
    assert data.best(data.configurations) is None
    told = headline(data)
    assert told.sentence == "Four jobs over training.lr: no best configuration is named."
    assert "No choice on validation data was possible" in told.verdict
    page = write_sweep_page(tmp_path / "s").read_text(encoding="utf-8")
    assert 'class="best"' not in page
    assert "The best configuration" not in page
    assert "test scores are no ground to choose by" in page


def test_rounds_on_validation_rows_are_no_test_scores(tmp_path: Path) -> None:
    from quire.simulation.report_data import read_run

    make_sweep(tmp_path / "s", [(f"seed=1 {VALID}", 0.9), ("seed=2", 0.8)])
    first, second = (read_run(tmp_path / "s" / place) for place in "01")
    assert last_scores(first, "validation")["accuracy"] == 0.9
    assert last_scores(first, "test") == {}
    assert last_scores(second, "validation") == {}
    assert last_scores(second, "test")["accuracy"] == 0.8


def test_a_configuration_with_a_failed_job_is_not_chosen(tmp_path: Path) -> None:
    jobs = [
        (f"training.lr=0.1 seed=1 {VALID}", 0.99),
        (f"training.lr=0.1 seed=2 {VALID}", 0.99, None, "failed"),
        *((f"training.lr=1 seed={seed} {VALID}", 0.7 + seed / 100) for seed in (1, 2)),
        *((f"training.lr=2 seed={seed} {VALID}", 0.7) for seed in (1, 2)),
    ]
    data = read_sweep(make_sweep(tmp_path / "s", jobs, status="failed"))
    best = data.best(data.configurations)
    assert best is not None
    assert best.values == (1,)
    assert any("one configuration" in note for note in headline(data).notes)
    page = write_sweep_page(tmp_path / "s").read_text(encoding="utf-8")
    assert "1 of 6 jobs were not completed." in page
    assert "Round 3 failed." in page
    assert "1 of 2" in page


def test_a_small_lead_is_called_chance_and_one_seed_tells_nothing(tmp_path: Path) -> None:
    noisy = [(f"training.lr={lr} seed={seed} {VALID}", value) for lr, seed, value in
             [(0.1, 1, 0.8), (0.1, 2, 0.9), (1, 1, 0.88), (1, 2, 0.81)]]  # fmt: skip
    told = headline(read_sweep(make_sweep(tmp_path / "a", noisy)))
    assert told.tone == "level"
    assert "no more than chance would explain" in told.verdict
    single = [(f"training.lr={lr} {VALID}", lr / 2) for lr in (0.1, 1)]
    told = headline(read_sweep(make_sweep(tmp_path / "b", single)))
    assert "with one seed nobody can tell" in told.verdict
    assert "no error bars" in write_sweep_page(tmp_path / "b").read_text(encoding="utf-8")


def test_what_learns_something_else_is_not_compared(tmp_path: Path) -> None:
    jobs = [
        (f"partition.alpha={alpha} training.lr={lr} {VALID}", alpha / 2 + lr / 10)
        for alpha in (0.5, 1)
        for lr in (0.1, 1)
    ]
    data = read_sweep(make_sweep(tmp_path / "s", jobs))
    told = headline(data)
    assert [note.split(":")[0] for note in told.notes] == [
        "partition.alpha=0.5 training.lr=1",
        "partition.alpha=1 training.lr=1",
    ]
    only = [(f"partition.alpha={alpha} {VALID}", alpha / 2) for alpha in (0.5, 1)]
    told = headline(read_sweep(make_sweep(tmp_path / "t", only)))
    assert "no best configuration is named" in told.sentence


def test_one_configuration_over_seeds_is_drawn_by_seed(tmp_path: Path) -> None:
    make_sweep(tmp_path / "s", [(f"seed={seed}", 0.8 + seed / 100) for seed in (1, 2, 3)])
    told = headline(read_sweep(tmp_path / "s"))
    assert told.sentence.startswith(
        f"One configuration reached 82.0{NBSP}%{NBSP}±{NBSP}1.0 balanced accuracy on test rows"
    )
    assert "by seed" in write_sweep_page(tmp_path / "s").read_text(encoding="utf-8")


@pytest.mark.parametrize("many", [2, 9])
def test_numbers_and_names_get_a_figure_each(many: int, tmp_path: Path) -> None:
    jobs = [
        (f"strategy={strategy} training.lr={lr} training.batch_size={8 + size}", 0.5 + lr / 10)
        for strategy in ("fedavg", "fedprox")
        for lr in (0.01, 1)
        for size in range(many)
    ]
    page = write_sweep_page(make_sweep(tmp_path / "s", jobs)).read_text(encoding="utf-8")
    for key in ("strategy", "training.lr", "training.batch_size"):
        assert f"Balanced accuracy on test rows, by {key}" in page
    assert ("in grey; their mean in blue" in page) == (many > 2)
    assert "strategy=fedavg, training.batch_size=8" in page or many > 2


def test_points_stand_at_the_values_that_were_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from markupsafe import Markup
    from matplotlib.figure import Figure

    drawn: dict[str, list[float]] = {}

    def look(name: str, width: float, height: float, what: str, paint: Any) -> Markup:
        axes = Figure().add_subplot()
        paint(axes)
        drawn[axes.get_xlabel()] = sorted({float(x) for line in axes.lines for x in line.get_xdata()})
        return Markup("")

    monkeypatch.setattr(sweep_figures, "draw", look)
    jobs = [
        (f"training.lr={lr} training.batch_size={8 + size}", 0.5 + lr / 10) for lr in (0.01, 1) for size in range(9)
    ]
    sweep_figures.plots(read_sweep(make_sweep(tmp_path / "s", jobs)))
    assert drawn["training.lr"] == [0.01, 1.0]
    assert {round(x) for x in drawn["training.batch_size"]} == set(range(8, 17))  # two a value, side by side


def test_everything_on_the_page_is_escaped(tmp_path: Path) -> None:
    make_sweep(tmp_path / "s", [("training.lr=0.1", 0.5), ("training.lr=1", 0.5)], args=["-m", "x='<script>alert(1)'"])
    record = json.loads((tmp_path / "s" / "1" / "job.json").read_text(encoding="utf-8"))
    record |= {"overrides": ["training.lr=<img src=x>"], "error": "<script>alert(2)</script>"}
    (tmp_path / "s" / "1" / "job.json").write_text(json.dumps(record), encoding="utf-8")
    (tmp_path / "s" / "1" / "run.json").write_text(json.dumps({"status": "<b>odd</b>"}), encoding="utf-8")
    page = write_sweep_page(tmp_path / "s").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<img" not in page
    assert "<b>odd" not in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_links_lead_to_the_reports_that_exist(tmp_path: Path) -> None:
    make_sweep(tmp_path / "s", [("training.lr=0.1", 0.5), ("training.lr=1", 0.5)])
    (tmp_path / "s" / "0" / "report.html").write_text("here")
    page = write_sweep_page(tmp_path / "s").read_text(encoding="utf-8")
    assert page.count('href="0/report.html"') == 1
    assert "1/report.html" not in page


def test_a_job_that_never_began_its_run_has_failed(tmp_path: Path) -> None:
    make_sweep(tmp_path / "s", [("training.lr=0.1", 0.5), ("training.lr=1", 0.5)])
    for name in ("run.json", "metrics.jsonl", "settings.yaml"):
        (tmp_path / "s" / "1" / name).unlink()
    (tmp_path / "s" / "torn").mkdir()
    (tmp_path / "s" / "torn" / "job.json").write_text("{")
    jobs = read_jobs(tmp_path / "s")
    assert [(job.number, job.status) for job in jobs] == [(0, "completed"), (1, "failed")]
    write_sweep_page(tmp_path / "s")


def test_a_job_whose_process_is_gone_has_failed(tmp_path: Path) -> None:
    make_sweep(tmp_path / "s", [("training.lr=0.1", 0.5, None, "running")])
    (job,) = read_jobs(tmp_path / "s")
    assert (job.status, job.exit_status, job.scores) == ("running", 1, {})
    assert "It has not recorded its end" in write_sweep_page(tmp_path / "s").read_text(encoding="utf-8")


def test_an_empty_a_damaged_and_no_sweep_at_all(tmp_path: Path) -> None:
    with pytest.raises(QuireError, match="is not the folder of a sweep"):
        write_sweep_page(tmp_path)
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(QuireError, match="damaged"):
        write_sweep_page(tmp_path)
    make_sweep(tmp_path, [], status="interrupted", planned=4)
    page = write_sweep_page(tmp_path).read_text(encoding="utf-8")
    assert "This sweep was stopped after 0 of 4 jobs had begun." in page
    assert "No job has begun." in page


def test_what_a_search_tried_is_drawn_as_points_with_numbers_of_readable_length(tmp_path: Path) -> None:
    jobs = [
        (f"training.lr={0.0123456789 * place} training.batch_size={7 + place} {VALID}", 0.5 + place / 100)
        for place in range(1, 10)
    ]
    page = write_sweep_page(make_sweep(tmp_path / "s", jobs)).read_text(encoding="utf-8")
    assert "in grey" not in page
    assert "training.lr=0.1111 training.batch_size=16 did best" in page
    assert "training.lr=0.1111111101" in page  # the command that repeats it is exact
