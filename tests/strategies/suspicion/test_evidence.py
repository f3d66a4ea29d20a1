"""Evidence and quarantine as a state machine: what the rule promises, whatever scores come."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.strategies.suspicion.evidence import Event, Rule, Standing, grown, log_e, settled

RULE = Rule(allowance=4.0, false_alarms=1e-4, rounds=3)
SCORES = st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=60)


def course(scores, rule=RULE, may_leave=True, harmless=False):
    """Yield standing and event after every round."""
    standing = Standing()
    for number, z in enumerate(scores, 1):
        standing, event = settled(grown(standing, z, rule), number, rule, may_leave, harmless)
        yield standing, event


def test_the_e_value_has_a_mean_of_one_where_the_assumption_is_just_met():
    """p is uniform then, and the mean an integral over p, here over its tenth root, in which it is smooth."""
    v = (np.arange(2000) + 0.5) / 2000
    z = RULE.allowance + math.log(2.0) - 10.0 * np.log(v)
    terms = [math.exp(log_e(float(one), RULE.allowance)) * 10.0 * root**9 for one, root in zip(z, v, strict=True)]
    assert np.mean(terms) == pytest.approx(1.0, abs=1e-6)
    assert math.exp(log_e(RULE.allowance, RULE.allowance)) == pytest.approx(0.1)


@given(st.floats(-1e6, 1e6), st.floats(0, 100))
def test_more_is_never_less_suspicious_and_nothing_is_within_the_allowance(z, more):
    assert log_e(z + more, 4.0) >= log_e(z, 4.0)
    assert log_e(min(z, 4.0), 4.0) == math.log(0.1)


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_false_alarms_of_scores_that_keep_the_assumption_are_as_rare_as_promised(seed):
    """At a bound of 1 in 20 rounds, over 1,000 rounds of scores with exactly the assumed tail: well below it."""
    rule = Rule(4.0, 0.05)
    rng = np.random.default_rng(seed)
    scores = 4.0 + math.log(2.0) - np.log(rng.random(1000))
    alarms, standing = 0, Standing()
    for z in scores:
        standing = grown(standing, float(z), rule)
        if standing.evidence >= rule.bound:
            alarms, standing = alarms + 1, Standing()
    assert alarms <= 0.05 * 1000


@given(SCORES)
def test_evidence_is_never_negative_and_a_quiet_round_never_adds_to_it(scores):
    before = Standing()
    for standing, event in course(scores, Rule(4.0, 1e-4)):
        assert 0.0 <= standing.evidence <= 1e6
        assert standing.since == 0
        assert event in (Event.NONE, Event.SUSPECTED)
        assert (event is Event.SUSPECTED) == (standing.evidence >= RULE.bound)
        before = standing
    assert grown(before, 4.0, RULE).evidence <= before.evidence


@given(SCORES)
def test_a_silo_is_out_exactly_from_its_quarantine_to_its_readmission(scores):
    out, quiet, times = False, 0, 0
    for (standing, event), z in zip(course(scores), scores, strict=True):
        quiet = quiet + 1 if out and z <= 4.0 else 0
        if event is Event.QUARANTINED:
            assert not out
            assert standing.evidence >= RULE.bound
            out, times = True, times + 1
        elif event is Event.READMITTED:
            assert out
            assert quiet == 3 * 2 ** (times - 1)
            assert standing == Standing(times=times)
            out = False
        else:
            assert event is Event.NONE
            assert not out or quiet < 3 * 2 ** (times - 1)
        assert bool(standing.since) == out


def test_overwhelming_evidence_is_enough_in_one_round_and_less_of_it_in_several():
    assert next(iter(course([30.0])))[1] is Event.QUARANTINED
    events = [event for _, event in course([10.0] * 5)]
    assert Event.QUARANTINED in events[1:4]
    assert events[0] is Event.NONE
    assert all(event is Event.NONE for _, event in course([6.0, -1.0] * 50))


@given(SCORES)
def test_who_may_not_leave_is_spared_and_whom_the_others_clear_begins_anew(scores):
    for standing, event in course(scores, may_leave=False):
        assert (event, standing.since) in ((Event.NONE, 0), (Event.SPARED, 0))
        assert (event is Event.SPARED) == (standing.evidence >= RULE.bound)
    for standing, event in course(scores, harmless=True):
        assert event in (Event.NONE, Event.CLEARED)
        assert standing.evidence < RULE.bound
