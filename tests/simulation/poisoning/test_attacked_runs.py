"""Whole runs that are attacked: who colludes, what it does, what the run says, and what suspicion makes of it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import yaml

from quire.conf.compose import compose
from quire.contribution_cli import _words
from quire.dashboard.runs import read as read_shown
from quire.dashboard.views import _facts
from quire.errors import RunFailed
from quire.reports.audit import audit
from quire.reports.checks import Keys
from quire.reports.details import Details
from quire.reports.dpia import dpia
from quire.reports.inputs import Inputs
from quire.reports.markdown import markdown
from quire.reports.run import read_run as read_documented
from quire.simulation.contribution import contribution
from quire.simulation.inline import run_inline
from quire.simulation.poisoning.grid import colluding
from quire.simulation.poisoning.outcome import write_outcome
from quire.simulation.poisoning_section import banner, section
from quire.simulation.report import write_report
from quire.simulation.report_data import read_run
from quire.simulation.sweep_page import write_sweep_page
from quire.strategies.robust.coordinates import median

SMALL = (
    "task=digits partition=iid partition.silos=7 strategy.rounds=3 strategy.evaluate_every=3 training.epochs=1 "
    "output.baselines=false"
)
GIANT = f"{SMALL} attack=giant attack.fraction=0.3 attack.start=2"


def ran(text, folder):
    settings = compose(text)
    return settings, run_inline(settings, folder)


def rounds(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "round"]


@pytest.fixture(scope="module")
def quarantined(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacked") / "run"
    settings, result = ran(f"{GIANT} suspicion=quarantine suspicion.rounds=1", folder)
    write_outcome(settings, folder)
    return settings, folder, result


def test_who_colludes_follows_from_the_seed_and_the_names_alone():
    names = [f"site-{n}" for n in range(1, 31)]
    attack = compose("task=digits partition.silos=30 attack=alie attack.fraction=0.3").attack
    first = colluding(attack, 1, names)
    assert len(first) == 9
    assert first == colluding(attack, 1, reversed(names))
    assert first != colluding(attack, 2, names)
    assert list(first) == [name for name in names if name in first]


def test_an_attacker_is_left_out_from_its_first_round_with_a_reason(quarantined):
    settings, folder, _ = quarantined
    colluders = colluding(settings.attack, settings.seed, [f"site-{n}" for n in range(1, 8)])
    first, second, third = (line["suspicion"] for line in rounds(folder))
    assert all(told["in_mean"] and "event" not in told for told in first.values())
    for told in (second, third):
        assert {silo for silo, one in told.items() if not one["in_mean"]} == set(colluders)
    for silo in colluders:
        assert second[silo]["event"] == "quarantined"
        assert "times as large as usual" in second[silo]["reason"]
    assert rounds(folder)[-1]["evaluate"]["accuracy"] > 0.8


def test_the_run_says_loudly_that_it_was_attacked_and_by_whom(quarantined):
    settings, folder, _ = quarantined
    about = json.loads((folder / "run.json").read_text())
    assert about["attacked"]["name"] == "giant"
    assert about["held_to"]["attack"]["colluders"] == list(
        colluding(settings.attack, settings.seed, [f"site-{n}" for n in range(1, 8)])
    )
    page = write_report(folder).read_text()
    for words in (about["attacked"]["words"], "Suspicion, not verdicts", "2 sites colluded", "quarantined"):
        assert words in page
    assert page.index("attacked on purpose") < page.index("<h1>")


def test_what_is_made_of_the_run_says_so_too(quarantined, tmp_path):
    """The documents for those who answer for it, the page of a sweep, and the dashboard."""
    _, folder, _ = quarantined
    found = read_documented(folder, Keys(), Inputs())
    document = dpia(found, None, Details(), None, Inputs(), "2026-11-22")
    for text in (markdown(document), markdown(audit([found], None, [], Inputs(), "2026-11-22"))):
        assert "Attacked on purpose" in text
        assert "A simulation of attack=giant" in text
    assert ("Attacked on purpose", "giant") in _facts(read_shown(folder.parent, folder))
    for number, name in enumerate(("giant", "none")):
        job = tmp_path / str(number)
        job.mkdir()
        for file in ("run.json", "metrics.jsonl"):
            (job / file).write_bytes((folder / file).read_bytes())
        tree = yaml.safe_load((folder / "settings.yaml").read_text())
        (job / "settings.yaml").write_text(yaml.safe_dump({**tree, "attack": {**tree["attack"], "name": name}}))
        record = {"job": number, "overrides": [f"seed={number}"], "pid": 1, "status": 0, "seconds": 1.0}
        (job / "job.json").write_text(json.dumps(record))
    (tmp_path / "sweep.json").write_text(json.dumps({"status": "completed", "args": ["-m", "seed=0,1"], "planned": 2}))
    words = "1 of 2 jobs were attacked on purpose (attack=giant): their models are no results."
    assert words in write_sweep_page(tmp_path).read_text()
    (tmp_path / "0" / "settings.yaml").write_bytes((tmp_path / "1" / "settings.yaml").read_bytes())
    assert "attacked on purpose" not in write_sweep_page(tmp_path).read_text()


def test_what_silos_add_to_an_attacked_federation_is_called_that(tmp_path):
    text = "task=breast_cancer partition=iid partition.silos=3 strategy.rounds=1 training.epochs=1 strategy.min_silos=1"
    attacked = contribution(f"{text} attack=giant attack.fraction=0.4", cycles=2)
    assert attacked.as_dict()["attacked"] == "giant"
    assert _words(attacked)[0].startswith("These federations were attacked on purpose (attack=giant)")
    assert "attacked" not in dataclasses.replace(attacked, attack="").as_dict()


def test_a_run_without_an_attack_says_nothing_of_the_kind(tmp_path):
    _, result = ran(SMALL.replace("rounds=3", "rounds=1"), tmp_path / "run")
    data = read_run(result.folder)
    assert (banner(data, None), section(data)) == (None, None)
    assert "suspicion" not in rounds(result.folder)[0]
    assert write_outcome(compose(SMALL), result.folder) is None
    assert not (result.folder / "attack.json").exists()


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"scores": 3, "success": "much", "rows": []}'])
def test_a_damaged_outcome_costs_the_report_nothing_but_itself(quarantined, damage):
    _, folder, _ = quarantined
    kept = (folder / "attack.json").read_text()
    try:
        (folder / "attack.json").write_text(damage)
        told = section(read_run(folder))
    finally:
        (folder / "attack.json").write_text(kept)
    assert told["attack"]["success"] is None
    assert told["attack"]["count"] == 2
    assert section(read_run(folder))["attack"]["accuracy"] > 0.8


def test_the_same_seed_gives_the_same_run_with_other_processes_too(quarantined, tmp_path):
    settings, _, result = quarantined
    again = f"{settings.overrides} runtime.workers=2"
    assert ran(again, tmp_path / "run")[1].model == result.model


def test_a_run_that_was_stopped_goes_on_to_the_same_model_and_the_same_quarantine(quarantined, tmp_path, monkeypatch):
    from quire.strategies.folder import RunFolder

    settings, folder, result = quarantined
    done = RunFolder.round_done

    def stopped(self, report, state):
        done(self, report, state)
        if report.round == 2:
            raise RunFailed("stopped")

    monkeypatch.setattr(RunFolder, "round_done", stopped)
    with pytest.raises(RunFailed, match="stopped"):
        run_inline(settings, tmp_path / "run")
    monkeypatch.undo()
    assert run_inline(settings, tmp_path / "run", resume=True).model == result.model
    strip = [(line["suspicion"], line["model"]) for line in rounds(tmp_path / "run")]
    assert strip == [(line["suspicion"], line["model"]) for line in rounds(folder)]


def test_watching_leaves_nobody_out(tmp_path):
    watched = ran(f"{SMALL} attack=sign_flip attack.fraction=0.3 suspicion=watch", tmp_path / "a")[1]
    plain = ran(f"{SMALL} attack=sign_flip attack.fraction=0.3", tmp_path / "b")[1]
    assert watched.model == plain.model
    told = [one for line in rounds(tmp_path / "a") for one in line["suspicion"].values()]
    assert all(one["in_mean"] for one in told)
    assert {one.get("event") for one in told} == {None, "suspected"}


def test_colluders_send_what_the_formula_says_of_the_updates_of_that_round(tmp_path, monkeypatch):
    """Taken off the server's own mean: under an attack with epsilon 1 on all, colluders send minus the honest mean."""
    from quire.strategies.aggregators import PlainMean

    seen = []
    fold = PlainMean.fold

    def spy(self):
        inner = fold(self)
        add = inner.add

        def noted(update):
            seen.append(update)
            add(update)

        inner.add = noted
        return inner

    monkeypatch.setattr(PlainMean, "fold", spy)
    text = f"{SMALL} attack=inner_product attack.epsilon=1 attack.fraction=0.3"
    settings, _ = ran(text.replace("rounds=3", "rounds=1"), tmp_path / "run")
    colluders = colluding(settings.attack, settings.seed, [update.silo for update in seen])
    bad = [update.arrays for update in seen if update.silo in colluders]
    good = [update.arrays for update in seen if update.silo not in colluders]
    assert (len(bad), len(good)) == (2, 5)
    for name in good[0]:
        expected = -np.mean([one[name] for one in good], axis=0, dtype=np.float64)
        for one in bad:
            np.testing.assert_allclose(one[name], expected, atol=1e-7)
    assert set(median(good)) == set(good[0])


def test_a_backdoor_is_told_by_its_success_and_not_by_accuracy(tmp_path):
    text = (
        "task=digits partition=iid partition.silos=5 strategy.rounds=4 strategy.fraction_evaluate=0 runtime.threads=1 "
        "attack=backdoor attack.fraction=0.4 attack.poisoned=1 attack.boost=4 runtime=batched"
    )
    settings, result = ran(text, tmp_path / "run")
    found = write_outcome(settings, result.folder)
    assert found["success"] > found["without"] + 0.3
    assert found["scores"]["accuracy"] > 0.6
    assert json.loads((result.folder / "attack.json").read_text()) == found


def test_turned_labels_have_a_success_rate_too(tmp_path):
    settings, result = ran(f"{SMALL} attack=label_flip attack.fraction=0.8", tmp_path / "run")
    found = write_outcome(settings, result.folder)
    assert found["success"] > 0.5 > found["scores"]["accuracy"]


def test_updates_of_nan_are_a_failure_of_their_silos(tmp_path):
    _, result = ran(f"{SMALL.replace('rounds=3', 'rounds=1')} attack=not_finite attack.fraction=0.3", tmp_path / "run")
    (line,) = rounds(result.folder)
    assert len(line["failed"]) == 2
    assert all("not finite" in failure["words"] for failure in line["failed"])


def test_silos_that_vote_clear_whom_they_lose_nothing_by(tmp_path):
    """A silo with half of its labels turned is kept out; one that merely answers larger than usual may be let be."""
    text = (
        "task=digits partition=iid partition.silos=7 strategy.rounds=2 training.epochs=1 data.validation_fraction=0.2 "
        "strategy.fraction_evaluate=0 attack.fraction=0.15 suspicion=quarantine suspicion.vote=true "
        "suspicion.allowance=1 suspicion.false_alarms=0.05"  # six times as large is then suspected at once
    )
    for attack, event in (("sign_flip attack.scale=5", "quarantined"), ("scaling attack.factor=6", "cleared")):
        folder = tmp_path / event
        ran(f"{text} attack={attack}", folder)
        events = [one for line in rounds(folder) for one in line["suspicion"].values() if "event" in one]
        assert events[0]["event"] == event
        assert ("lose nothing by it" in events[0]["reason"]) == (event == "cleared")
