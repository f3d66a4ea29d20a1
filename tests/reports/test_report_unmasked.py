"""Runs that pass for more than they were: the short cut of simulations, robust rules, marks that nobody checked."""

from __future__ import annotations

import json

import pytest
from report_runs import DAY, notices, residual, said

import quire
from quire.clients.identity import new_identity
from quire.reports.audit import audit
from quire.reports.checks import Keys
from quire.reports.details import Details
from quire.reports.document import Group, Standing
from quire.reports.dpia import dpia
from quire.reports.inputs import Inputs
from quire.reports.markdown import markdown
from quire.reports.run import read_run
from quire.strategies.secure_words import NOT_SECURE, SHORT_CUT

BASE = "task=breast_cancer partition=iid strategy.rounds=1 output.report=false output.baselines=false"
CLEAR = f"{BASE} aggregation=secure aggregation.simulate=exact_sum"
PRIVATE = f"{CLEAR} privacy=record_distributed privacy.epsilon=8 privacy.sampling_rate=0.2"
ROBUST = ["median", "krum aggregation.byzantine=1", "centered_clipping"]


def made(overrides, folder):
    quire.run(overrides, folder)
    return read_run(folder, Keys(), Inputs())


def assessed(run):
    return dpia(run, None, Details(), None, Inputs(), DAY)


@pytest.mark.parametrize("overrides", [CLEAR, PRIVATE], ids=["none", "record_distributed"])
def test_a_run_by_the_short_cut_is_nowhere_called_secure(tmp_path, overrides):
    run = made(overrides, tmp_path / "run")
    assert run.short_cut
    assert not run.masked
    document = assessed(run)
    assert notices(document)["No secure aggregation"] == NOT_SECURE
    assert said(document, "Aggregation").says[0] == NOT_SECURE
    assert "each silo's update on its own" in said(document, "Aggregation").says[1]
    assert NOT_SECURE in said(document, "Technical measures (g)").says
    assert said(document, "Against collusion").says[0].startswith("Nothing was masked")
    groups = [item for section in document.sections for item in section.items if isinstance(item, Group)]
    for group in groups:
        assert group.statements[-1].says[0].startswith(f"Open: this run had no secure aggregation, by {SHORT_CUT}")
        assert not any(one.title == "What masks cost here" for one in group.statements)
    both = markdown(document), markdown(audit([run], None, [], Inputs(), DAY))
    for text in both:
        assert "NO secure aggregation" in text
        assert "were summed under masks" not in text
        assert "stays under masks" not in text
    assert ("No privacy, and no masks" in notices(document)) == (overrides is CLEAR)


@pytest.mark.parametrize("rule", ROBUST)
def test_a_robust_rule_is_told_as_what_it_is_and_the_server_sees_all(tmp_path, rule):
    run = made(f"{BASE} aggregation={rule}", tmp_path / "run")
    name = rule.split()[0]
    document = assessed(run)
    assert f"aggregation={name} the server saw every" in notices(document)["No privacy, and no masks"]
    assert said(document, "Against collusion").says == (
        f"aggregation={name}: nobody has to collude, for the server sees each update as it is.",
    )
    assert residual(document, "The server sees updates").says[0].endswith(": not bounded.")
    assert residual(document, "Collusion").says[0].endswith(": not bounded.")
    assert f"aggregation={name}: updates that lie apart" in said(document, "Influence of one silo").says[0]
    assert residual(document, "Poisoned updates").says[0].endswith(": moderate.")
    assert "no outlier" in residual(document, "Poisoned updates").says[1]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """A run under masks without privacy and with a log, which says of itself that its silos were real."""
    place = tmp_path_factory.mktemp("marks")
    new_identity(place / "log.key")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUIRE_LOG_KEY", str(place / "log.key"))
        quire.run(f"{BASE} aggregation=secure", place / "run")
    about = json.loads((place / "run" / "run.json").read_text())
    (place / "run" / "run.json").write_text(json.dumps({**about, "runtime": "deployment"}))
    (place / "run" / "roster.json").unlink(missing_ok=True)
    return place / "run"


def test_countersignatures_that_nobody_could_check_verify_nothing(deployed):
    run = read_run(deployed, Keys(), Inputs())
    assert run.checks["log"].standing is Standing.VERIFIED  # roots and the log's own signature: the server's word
    assert any("cannot be told without the roster" in one or "not checked" in one for one in run.checks["log"].words)
    assert run.witnesses == 0
    assert run.signed_settings is Standing.UNCHECKED
    assert residual(assessed(run), "A record that is rewritten").says[0] == "High."


def test_a_run_without_a_roster_says_so(deployed):
    run = read_run(deployed, Keys(), Inputs())
    assert run.checks["roster"].standing is Standing.UNCHECKED
    assert "name it with --roster" in run.checks["roster"].words[0]


def test_a_pin_without_any_roster_fails(deployed):
    run = read_run(deployed, Keys(pin="0" * 64), Inputs())
    assert run.checks["roster"].standing is Standing.FAILED
    whose = next(one for one in assessed(run).notices if one.title == "Whose keys")
    assert whose.tone != "good"
