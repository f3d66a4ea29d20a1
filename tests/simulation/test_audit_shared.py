"""Audits of noise that silos share: right code passes with the effect that theory says, each broken piece is caught."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from quire.clients.private.gradients import ClippedGradients
from quire.clients.private.plan import SharedPlan, plan_of
from quire.conf.compose import compose
from quire.errors import SettingsError
from quire.privacy.csprng import Csprng
from quire.privacy.dp.discrete_gaussian import sample
from quire.privacy.dp.encoding import Encoding
from quire.privacy.dp.events import SampledDiscreteGaussian
from quire.simulation import audit_shared
from quire.simulation.audit import audit, claim

TASK = "task=breast_cancer partition=iid aggregation=secure strategy.rounds=20"
RECORD = f"{TASK} privacy=record_distributed privacy.epsilon=2"
SILO = f"{TASK} privacy=silo_distributed privacy.epsilon=8 privacy.delta=1e-5"
UNITS = {"record": RECORD, "silo": SILO}
PATHS = {"record": ["sum", "rows", "model"], "silo": ["silos", "update"]}


def tampered(monkeypatch: pytest.MonkeyPatch, bug: Callable[[Encoding, np.ndarray], np.ndarray]) -> None:
    genuine = Encoding.noise
    monkeypatch.setattr(Encoding, "noise", lambda self, source: bug(self, genuine(self, source)).astype(np.int64))


def rootless(own: Encoding, drawn: np.ndarray) -> np.ndarray:
    return sample(math.isqrt(own.noise_variance), len(drawn), Csprng(drawn[:4].tobytes()))


def plan(unit: str) -> SharedPlan:
    found = plan_of(compose(UNITS[unit]), 91)
    assert isinstance(found, SharedPlan)
    return found


@pytest.mark.parametrize("unit", UNITS)
def test_right_code_is_not_refuted_and_bounds_come_close(unit: str) -> None:
    found = audit(compose(UNITS[unit]), 1000)
    assert [finding.path for finding in found.findings] == PATHS[unit]
    assert not found.refuted
    for finding in found.findings:
        assert 0 < finding.claim < 4.5
        assert finding.gaussian is not None
        assert finding.epsilon <= finding.claim
        # The paths of the own model have a hundred canaries here, and show little.
        assert finding.epsilon > 0.4 * finding.claim or finding.path in ("model", "update")


@pytest.mark.parametrize(
    "bug", [lambda own, drawn: 0.1 * drawn, rootless, lambda own, drawn: 0 * drawn], ids=["a tenth", "root", "none"]
)
@pytest.mark.parametrize("unit", UNITS)
def test_each_bug_in_the_noise_is_caught_on_every_path(unit: str, bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tampered(monkeypatch, bug)
    found = audit(compose(UNITS[unit]), 400)
    assert found.refuted
    assert [finding.path for finding in found.findings if finding.refuted] == PATHS[unit]


def test_clipping_that_is_gone_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ClippedGradients.sum
    monkeypatch.setattr(ClippedGradients, "sum", lambda self, x, y, clip: right(self, x, y, math.inf))
    found = audit(compose(RECORD), 400)
    assert {"rows", "model"} <= {finding.path for finding in found.findings if finding.refuted}


def test_an_update_that_nobody_clipped_is_clipped_once_more_where_it_becomes_whole_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit_shared, "clipped_vector", lambda update, names, clip: (update["update"].astype(float), 1))
    found = audit_shared.through_shared_silos(plan("silo"), 1, 200, 0)
    spread = plan("silo").noise_multiplier
    assert found.scores[found.included].mean() == pytest.approx(1.0, abs=5 * spread / math.sqrt(80))


@pytest.mark.parametrize("unit", UNITS)
def test_a_canary_moves_its_score_by_one_clip_under_the_noise_that_nobody_knows(unit: str) -> None:
    """The noise is z, and not that of all survivors: of c + 1 shares an observer may know, or have made others omit."""
    mechanism, releases = plan(unit), 3
    if unit == "record":
        found = audit_shared.through_shared_sum(mechanism, releases, 31, 2000, 1)
    else:
        found = audit_shared.through_shared_silos(mechanism, releases, 2000, 1)
    inside, outside = found.scores[found.included], found.scores[~found.included]
    deviation = mechanism.noise_multiplier * math.sqrt(releases)
    assert inside.mean() - outside.mean() == pytest.approx(releases, abs=5 * deviation / math.sqrt(500))
    assert outside.std() == pytest.approx(deviation, rel=0.1)


def test_the_claim_is_that_of_the_releases_without_sampling() -> None:
    (finding, *_) = audit(compose(RECORD), 100, releases=2).findings
    mechanism = plan("record")
    event = mechanism.noise.released(2)
    assert isinstance(event, SampledDiscreteGaussian)
    assert finding.rate == 1.0
    assert finding.releases == 2
    assert finding.claim > 3 * claim(mechanism, 2)  # with sampling


def test_sampled_audits_take_the_run_s_own_batches() -> None:
    (finding,) = audit(compose(RECORD), 400, sampled=True).findings
    assert (finding.path, finding.releases, finding.rate) == ("rows", 20, 0.05)
    assert finding.claim == pytest.approx(2.0, rel=0.01)
    assert not finding.refuted


def test_a_sampler_that_takes_everybody_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Csprng, "poisson_sample", lambda self, count, rate: np.arange(count))
    assert audit(compose(f"{RECORD} strategy.rounds=100".replace("strategy.rounds=20 ", "")), 400, sampled=True).refuted


@pytest.mark.parametrize(
    ("overrides", "options", "words"),
    [
        (SILO, {"sampled": True}, "--sampled cannot be audited under privacy=silo_distributed"),
        (RECORD.replace("epsilon=2", "epsilon=inf"), {}, "There is no claim to audit"),
        (f"{RECORD} privacy.selftest=2 strategy.fraction_evaluate=0", {}, "There is no claim to audit"),
    ],
)
def test_what_cannot_be_audited_is_refused_in_words(overrides: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        audit(compose(overrides), **options)
