"""Audits through the code of a run: right code passes with the effect that theory says, each broken piece is caught."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from quire.clients.private.gradients import ClippedGradients
from quire.clients.private.plan import Plan
from quire.conf.compose import compose
from quire.errors import SettingsError
from quire.privacy.csprng import Csprng
from quire.privacy.dp.audit import LowerBound, gaussian, one_run
from quire.privacy.dp.contract import Unit
from quire.privacy.dp.release import add_noise
from quire.simulation import audit_paths
from quire.simulation.audit import audit, claim
from quire.simulation.audit_findings import Audit, Audited, Finding
from quire.strategies.private import NoisySum

SILOS = "task=breast_cancer partition=iid partition.silos=3 training.steps=2"
TASK = f"{SILOS} strategy.rounds=4"
RECORD = f"{TASK} privacy=record privacy.epsilon=4"
SILO = f"{TASK} privacy=silo privacy.epsilon=4 privacy.delta=1e-5"


def plan(discrete=True, releases=1, clip=2.5, noise=1.0, unit=Unit.RECORD):
    return Plan(unit, clip, noise, 1.0, releases, 1, discrete, 1e-5)


def through(path, mechanism, canaries=2000, seed=0):
    """Return the scores of one of the paths that need no task."""
    if path == "sum":
        return audit_paths.through_sum(mechanism, 31, canaries, seed)
    if path == "silos":
        return audit_paths.through_silos(replace(mechanism, steps=1), mechanism.steps, canaries, seed)
    return audit_paths.through_rows(mechanism, path, canaries, seed)


def weaken(monkeypatch, factor):
    """Draw the noise of every release with a smaller deviation than it says; 0 for none."""

    def weak(total, release, source):
        if factor == 0:
            return total
        return add_noise(total, replace(release, noise_multiplier=factor * release.noise_multiplier), source)

    for module in ("quire.clients.private.sgd", "quire.strategies.private", "quire.simulation.audit_paths"):
        monkeypatch.setattr(f"{module}.add_noise", weak)


def unclip(monkeypatch):
    right = ClippedGradients.sum
    monkeypatch.setattr(ClippedGradients, "sum", lambda self, x, y, clip: right(self, x, y, math.inf))


def unclip_silos(monkeypatch):
    monkeypatch.setattr("quire.simulation.audit_paths.clipped_update", lambda update, clip: (update, 0.0))


# ---------------------------------------------------------------------------------------------- the paths
@pytest.mark.parametrize("discrete", [True, False])
@pytest.mark.parametrize("path", ["sum", "hooks", "ghost", "silos"])
def test_a_canary_moves_its_score_by_one_clip_per_release_and_noise_is_what_was_asked_for(path, discrete):
    releases, noise = 3, 0.7
    found = through(path, plan(discrete, releases, noise=noise))
    inside, outside = found.scores[found.included], found.scores[~found.included]
    assert len(inside) + len(outside) == 2000
    assert 0.001 < binom.cdf(len(inside), 2000, 0.5) < 0.999
    deviation = noise * math.sqrt(releases)
    assert inside.mean() - outside.mean() == pytest.approx(releases, abs=5 * deviation / math.sqrt(500))
    assert inside.std() == pytest.approx(deviation, rel=0.12)
    assert outside.std() == pytest.approx(deviation, rel=0.12)


def test_scores_are_in_units_of_the_clip():
    small, large = (through("hooks", plan(False, clip=clip), 200).scores for clip in (1e-3, 1e3))
    assert small == pytest.approx(large, rel=1e-4, abs=1e-4)


def test_canaries_fit_into_the_sum_of_a_model_with_fewer_parameters_and_are_spread_over_one_with_more():
    for dimension in (31, 5000):
        found = audit_paths.through_sum(plan(noise=0.05), dimension, 1000, 1)
        assert len(found.scores) == 1000
        assert ((found.scores > 0.5) == found.included).all()


def test_the_same_seed_gives_the_same_scores_and_another_one_other_coins():
    first, again, other = (through("silos", plan(), 300, seed) for seed in (5, 5, 6))
    assert first.scores.tolist() == again.scores.tolist()
    assert first.included.tolist() != other.included.tolist()


def test_a_silo_that_does_not_clip_is_left_out_of_the_sum_by_the_server(monkeypatch):
    unclip_silos(monkeypatch)
    found = through("silos", plan(noise=0.01))
    assert np.abs(found.scores).max() < 0.1


# ------------------------------------------------------------------------------------------- broken pieces
def caught(found, mechanism):
    bounds = [estimate(found.scores, found.included, 1e-5, 0.975).epsilon for estimate in (one_run, gaussian)]
    return max(bounds) > claim(mechanism)


@pytest.mark.parametrize("discrete", [True, False])
@pytest.mark.parametrize("path", ["sum", "hooks", "ghost", "silos"])
def test_right_code_is_not_refuted_and_each_bug_in_the_noise_is(path, discrete, monkeypatch):
    mechanism = plan(discrete)
    assert not caught(through(path, mechanism), mechanism)
    for factor in (0.0, 0.1):
        weaken(monkeypatch, factor)
        assert caught(through(path, mechanism), mechanism)


@pytest.mark.parametrize("method", ["hooks", "ghost"])
def test_clipping_that_is_gone_from_the_gradients_is_caught(method, monkeypatch):
    unclip(monkeypatch)
    assert caught(through(method, plan()), plan())


def test_clipping_that_is_gone_from_silo_and_server_is_caught(monkeypatch):
    unclip_silos(monkeypatch)
    monkeypatch.setattr(NoisySum, "objection", lambda self, update: None)
    assert caught(through("silos", plan()), plan())


# ------------------------------------------------------------------------------------- a run's own settings
@pytest.mark.parametrize("overrides", [RECORD, f"{RECORD} privacy.noise=gaussian privacy.gradients=hooks", SILO])
def test_a_runs_own_settings_pass(overrides):
    found = audit(compose(overrides), canaries=1000)
    names = ["sum", "silos", "update"] if overrides == SILO else ["sum", "rows", "model"]
    assert [finding.path for finding in found.findings] == names
    assert not found.refuted
    assert "no proof" in found.verdict()
    assert found.audited.dimension == 31
    assert all(finding.rate == 1.0 and 0 < finding.claim < 10 for finding in found.findings)
    assert all(finding.strength >= (1 if finding.path == "sum" else 10) for finding in found.findings[:2])
    assert found.findings[2].strength >= (0.1 if overrides == SILO else 10)
    written = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert written["refuted"] is False
    assert written["noise_multiplier"] == found.audited.plan.noise_multiplier
    assert [finding["path"] for finding in written["findings"]] == names


@pytest.mark.parametrize("bug", ["clip", "noise"])
def test_a_bug_is_caught_on_the_runs_own_model_too(bug, monkeypatch):
    if bug == "clip":
        unclip(monkeypatch)
    else:
        weaken(monkeypatch, 0.1)
    found = audit(compose(RECORD), canaries=2000)
    broken = {finding.path for finding in found.findings if finding.refuted}
    assert broken == ({"rows", "model"} if bug == "clip" else {"sum", "rows", "model"})
    assert "on the path '" in found.verdict()
    assert "do not train" in found.verdict()


def test_missing_noise_is_caught_at_a_silos_own_update(monkeypatch):
    weaken(monkeypatch, 0.0)
    assert {finding.path for finding in audit(compose(SILO), canaries=1000).findings if finding.refuted} == {
        "sum",
        "silos",
        "update",
    }


def test_sampling_that_takes_everybody_is_caught_by_auditing_it(monkeypatch):
    settings = compose(f"{SILOS} strategy.rounds=20 privacy=record privacy.epsilon=1 training.batch_size=4")
    right = audit(settings, canaries=1000, sampled=True).findings
    assert [(finding.path, finding.releases, finding.gaussian) for finding in right] == [("rows", 40, None)]
    assert right[0].rate == 4 / 152
    assert 0.98 < right[0].claim <= 1.0
    assert not right[0].refuted
    monkeypatch.setattr(Csprng, "poisson_sample", lambda self, population, rate: np.arange(population))
    assert audit(settings, canaries=1000, sampled=True).refuted


def test_the_silo_with_the_least_noise_is_audited():
    found = audit(compose(RECORD.replace("iid", "dirichlet partition.alpha=5")), canaries=100)
    assert found.audited.silo.startswith("hospital-")
    assert found.audited.plan.rate == min(
        16 / rows for rows in _training_rows(RECORD.replace("iid", "dirichlet partition.alpha=5"))
    )


def _training_rows(overrides):
    from quire.clients.data.simulated import federation

    return [len(silo.train) for silo in federation(compose(overrides))]


def test_releases_are_as_many_as_leave_a_claim_of_about_three():
    few, told = (
        audit(compose(f"{SILOS} strategy.rounds=40 privacy=record privacy.epsilon=2"), 100, releases=n)
        for n in (None, 7)
    )
    assert few.findings[0].releases == round(few.audited.plan.noise_multiplier**2 / 2)
    assert 2.5 < few.findings[0].claim < 3.6
    assert [finding.releases for finding in told.findings] == [7, 7, 1]


def test_more_looks_are_paid_for():
    """All bounds hold together: with more seeds each is lower, not more often wrong."""
    one, three = (audit(compose(SILO), canaries=1000, seeds=seeds).findings for seeds in (1, 3))
    assert [finding.seed for finding in three] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for alone, beside in zip(one, three, strict=False):
        assert beside.gaussian.epsilon < alone.gaussian.epsilon or alone.gaussian.epsilon == 0


@pytest.mark.parametrize(
    ("overrides", "options", "words"),
    [
        (TASK, {}, "There is no claim to audit"),
        (RECORD.replace("epsilon=4", "epsilon=inf"), {}, "There is no claim to audit"),
        (SILO, {"sampled": True}, "--sampled cannot be audited under privacy=silo"),
        (RECORD, {"canaries": 99}, "at least 100 canaries"),
        (RECORD, {"canaries": 10**9}, "at most 1,000,000"),
        (RECORD, {"seeds": 0}, "at least one seed and one release, not 0"),
        (RECORD, {"releases": 0}, "one seed and one release, not 1 and 0"),
        (f"{RECORD} training.batch_size=121 privacy.delta=0.0082", {}, "hospital-. cannot take part"),
    ],
)
def test_what_cannot_be_audited_is_refused_in_words(overrides, options, words):
    with pytest.raises(SettingsError, match=words):
        audit(compose(overrides), **options)


def test_an_infinite_bound_is_written_as_a_word():
    bound = LowerBound(math.inf, 100)
    found = Audit(Audited("hospital-1", plan(), 1, 31), 0.95, (Finding("sum", 0, 1, 1.0, 1.0, 4.7, bound, bound),))
    assert found.refuted
    assert "at least infinity" in found.verdict()
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["findings"][0]["one_run"]["epsilon"] == "inf"


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "releases"), [(0.5, 1), (1.0, 1), (4.0, 16)])
@pytest.mark.parametrize("path", ["sum", "silos"])
def test_true_claims_are_refuted_in_at_most_one_seed_of_twenty(path, noise, releases):
    mechanism = plan(noise=noise, releases=releases)
    assert sum(caught(through(path, mechanism, 10_000, seed), mechanism) for seed in range(60)) <= 3
