"""Charter, policy and settings: a silo under a charter answers exactly what policy and charter each accept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from charters import NAMES, charter, member
from hypothesis import given, settings
from hypothesis import strategies as some

from quire.charter.chain import Chain
from quire.charter.limits import objections
from quire.charter.signed import SignedCharter
from quire.clients.answering import Refusal
from quire.clients.member import Member
from quire.clients.policy.case import Case, State
from quire.clients.policy.chartered import Bound, effective, run_of
from quire.clients.policy.decide import Allow, decide
from quire.clients.policy.model import Operator, Policy, Population
from quire.conf.compose import compose
from quire.conf.schema import NoPrivacy, RecordPrivacy, Settings
from quire.privacy.dp.events import SampledGaussian
from quire.privacy.dp.spending import Spending

BASE = compose("task=breast_cancer training.batch_size=200")  # every record in every batch: a closed form
EPSILONS, DELTAS = (0.5, 2.0, 8.0), (1e-7, 1e-5, 1e-4)
SPENT = (Spending.zero(), Spending.of(SampledGaussian(4.0, 0.05, 100)), Spending.of(SampledGaussian(0.6, 0.05, 100)))

POLICIES = some.builds(
    Policy,
    modes=some.sampled_from((frozenset({"record"}), frozenset({"record", "silo"}), frozenset({"silo"}))),
    aggregation=some.sampled_from((frozenset({"plain"}), frozenset({"plain", "secure"}))),
    code=some.sampled_from((frozenset(), frozenset({"c" * 64}))),
    population=some.just(Population("p", 200)),
    epsilon=some.sampled_from(EPSILONS),
    delta=some.sampled_from(DELTAS),
    min_cohort=some.sampled_from((2, 3)),
    colluders=some.sampled_from((0, 1)),
    max_clip=some.just(10.0),
    min_noise=some.just(0.0),
    approval=some.booleans(),
)


@some.composite
def charters(draw: some.DrawFn) -> Bound:
    caps = {"epsilon": draw(some.sampled_from(EPSILONS)), "delta": draw(some.sampled_from(DELTAS))}
    cohort = draw(some.sampled_from((2, 3)))
    found = charter(
        members=tuple(member(name, **caps) for name in NAMES),
        tasks=draw(some.sampled_from((frozenset({"breast_cancer"}), frozenset({"digits", "breast_cancer"})))),
        privacy=draw(some.sampled_from((frozenset({"record"}), frozenset({"record", "silo"}), frozenset({"silo"})))),
        aggregation=draw(some.sampled_from((frozenset({"plain"}), frozenset({"secure"})))),
        min_cohort=cohort,
        colluders=draw(some.integers(0, cohort - 2)),
        approval=draw(some.sampled_from(("none", "each_run"))),
        **{"issued": 0, "not_before": 0, "not_after": 200_000_000_000},
    )
    return Bound(Chain((SignedCharter(found),)), found, found.members[0])


@some.composite
def runs(draw: some.DrawFn) -> tuple[Settings, State]:
    epsilon, delta = draw(some.sampled_from(EPSILONS)), draw(some.sampled_from(DELTAS))
    private = RecordPrivacy("record", epsilon, delta, 1.0, "discrete", "auto")
    asked = replace(
        BASE,
        privacy=draw(some.sampled_from((private, private, private, NoPrivacy("none")))),
        strategy=replace(BASE.strategy, rounds=5, min_silos=draw(some.integers(2, 4))),
    )
    state = State(
        stage=draw(some.sampled_from(("query", "train"))),
        code="c" * 64,
        spent=draw(some.sampled_from(SPENT)),
        chartered=draw(some.sampled_from((*SPENT, None))),
    )
    return asked, state


def holds(policy: Policy, bound: Bound | None, asked: Settings, state: State) -> bool:
    operator = Operator(policy.population, Path("store"), None, Path("silo.key"), None, policy)
    try:
        Member("basel", 0, operator, False, bound).hold(asked, state)
    except Refusal:
        return False
    return True


@settings(max_examples=150, deadline=None)
@given(POLICIES, charters(), runs())
def test_what_is_answered_is_what_policy_and_charter_each_accept(policy: Policy, bound: Bound, run) -> None:
    asked, state = run
    asked = replace(asked, charter=bound.charter.hash)
    own = isinstance(decide(policy, asked, state), Allow)
    by_charter = not objections(bound.limits, run_of(Case(policy, asked, state), 1))
    assert holds(effective(policy, bound), bound, asked, state) == (own and by_charter)
    assert holds(policy, None, asked, state) == own  # without a charter the policy is alone
    assert not holds(effective(policy, bound), bound, replace(asked, charter=None), state)


@given(POLICIES, charters())
def test_the_policy_that_a_silo_works_with_is_as_strict_as_either(policy: Policy, bound: Bound) -> None:
    both = effective(policy, bound)
    assert both.min_cohort == max(policy.min_cohort, bound.charter.min_cohort)
    assert both.colluders == max(policy.colluders, bound.charter.colluders)
    assert both.min_cohort - both.colluders >= 2 or policy.min_cohort - policy.colluders < 2
    assert both.approval == (policy.approval or bound.charter.approval == "each_run")
    assert effective(both, bound) == both
    for key in ("min_cohort", "colluders", "approval"):
        said = "the charter heart" in both.place(key)
        assert said == (getattr(both, key) != getattr(policy, key))
