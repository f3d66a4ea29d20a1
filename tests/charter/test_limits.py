"""Strictest wins: properties of the engine, over random limits and random runs."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

from charters import BEGINS, ENDS, charter, member
from hypothesis import assume, given
from hypothesis import strategies as some

from quire.charter.limits import ANYTHING, Budget, Limits, Run, accepts, limits_of, objections, strictest
from quire.charter.parts import Release

NAMES = some.none() | some.frozensets(some.sampled_from("abc"))
TIMES = some.none() | some.integers(0, 20)
DELTAS = (1e-7, 1e-5, 1e-3, 1.0)
BUDGETS = some.builds(Budget, some.sampled_from((0.5, 1.0, 4.0)), some.sampled_from(DELTAS), some.none())
LIMITS = some.builds(
    Limits,
    **dict.fromkeys(("tasks", "privacy", "aggregation", "code"), NAMES),
    min_cohort=some.integers(2, 6),
    colluders=some.integers(0, 4),
    budgets=some.frozensets(BUDGETS, max_size=3),
    deltas=some.sampled_from(DELTAS),
    approval=some.booleans(),
    begins=TIMES,
    ends=TIMES,
)


@some.composite
def runs(draw: some.DrawFn) -> Run:
    """A run whose epsilon falls with delta, as every epsilon does."""
    scale = draw(some.sampled_from((0.0, 0.1, 0.3, 1.0, math.inf)))
    return Run(
        **{name: draw(some.sampled_from("abc")) for name in ("task", "privacy", "aggregation")},
        code=draw(some.none() | some.sampled_from("abc")),
        cohort=draw(some.integers(1, 7)),
        colluders=draw(some.none() | some.integers(0, 5)),
        delta=draw(some.none() | some.sampled_from(DELTAS)),
        epsilon=lambda budget: scale * (1.0 - math.log10(budget.delta)) if scale else 0.0,
        approved=draw(some.booleans()),
        now=draw(some.integers(0, 20)),
    )


@given(LIMITS, LIMITS, runs())
def test_accepted_by_the_strictest_is_accepted_by_each_and_the_reverse(one: Limits, other: Limits, run: Run) -> None:
    assert accepts(strictest(one, other), run) == (accepts(one, run) and accepts(other, run))


@given(some.lists(LIMITS, min_size=3, max_size=3))
def test_order_does_not_matter(three: list[Limits]) -> None:
    one, other, third = three
    assert len({strictest(*order) for order in permutations(three)}) == 1
    assert strictest(one, strictest(other, third)) == strictest(strictest(one, other), third) == strictest(*three)


@given(LIMITS)
def test_nothing_and_oneself_change_nothing(one: Limits) -> None:
    assert strictest() == ANYTHING
    assert strictest(one) == strictest(one, ANYTHING) == strictest(ANYTHING, one) == strictest(one, one) == one


@given(LIMITS, LIMITS)
def test_the_strictest_is_never_looser_than_either(one: Limits, other: Limits) -> None:
    both = strictest(one, other)
    for each in (one, other):
        for name in ("tasks", "privacy", "aggregation", "code"):
            allowed = getattr(each, name)
            assert allowed is None or getattr(both, name) <= allowed
        assert both.min_cohort >= each.min_cohort
        assert both.colluders >= each.colluders
        assert both.budgets >= each.budgets
        assert both.deltas <= each.deltas
        assert both.approval >= each.approval
        assert each.begins is None or both.begins >= each.begins
        assert each.ends is None or both.ends <= each.ends


@given(LIMITS, LIMITS, runs())
def test_stricter_limits_never_turn_a_refusal_into_an_acceptance(one: Limits, other: Limits, run: Run) -> None:
    assume(not accepts(one, run))
    assert not accepts(strictest(one, other), run)


ASKS_MORE = (
    lambda run: replace(run, cohort=run.cohort - 1),
    lambda run: replace(run, colluders=max(0, (run.colluders or 1) - 1)),
    lambda run: replace(run, delta=min(1.0, 10.0 * run.delta) if run.delta else run.delta),
    lambda run: replace(run, approved=False),
    lambda run: replace(run, epsilon=lambda budget, before=run.epsilon: 2.0 * before(budget)),
    lambda run: replace(run, now=run.now + 21),
)


@given(LIMITS, runs(), some.sampled_from(ASKS_MORE))
def test_a_run_that_asks_for_more_is_never_accepted_where_less_was_not(limits: Limits, run: Run, more) -> None:
    assume(not accepts(limits, run))
    after = more(run)
    assume(after.now == run.now or limits.begins is None or run.now >= limits.begins)  # else time heals a refusal
    assume(not (run.colluders is None and after.colluders is not None))
    assert not accepts(limits, after)


@given(LIMITS, runs())
def test_every_objection_is_a_sentence_of_the_closed_vocabulary(limits: Limits, run: Run) -> None:
    for one in objections(limits, run):
        assert one.what in {"time", "task", "code", "limits", "budget", "approval"}
        assert one.words
        assert "\n" not in one.words
        assert not one.words.endswith(".")


def run_of(**changes) -> Run:
    told = {
        **{"task": "tabular", "privacy": "record", "aggregation": "plain", "code": "b" * 64, "cohort": 3},
        **{"colluders": None, "delta": 1e-5, "epsilon": lambda budget: 4.0, "approved": False, "now": BEGINS},
    }
    return Run(**{**told, **changes})


def against(found, run: Run) -> list[str]:
    return [one.what for one in objections(limits_of(found, member("bern"), BEGINS), run)]


def test_each_term_of_a_charter_refuses_what_it_says() -> None:
    found = charter(code=frozenset({Release("a" * 64, "b" * 64)}))
    assert against(found, run_of()) == []
    for changes, what in (
        ({"now": BEGINS - 1}, "time"),
        ({"now": ENDS + 1}, "time"),
        ({"task": "images"}, "task"),
        ({"code": "a" * 64}, "code"),
        ({"privacy": "silo"}, "limits"),
        ({"aggregation": "secure"}, "limits"),
        ({"colluders": 0}, "limits"),
        ({"delta": 1e-4}, "budget"),
        ({"epsilon": lambda budget: 4.001}, "budget"),
        ({"epsilon": lambda budget: math.inf}, "budget"),
    ):
        assert against(found, run_of(**changes)) == [what], changes
    assert against(found, run_of(cohort=2)) == ["limits", "limits"]  # too few, and one honest silo among them
    assert against(found, run_of(code=None)) == []  # a simulation: nothing leaves
    assert against(charter(approval="each_run"), run_of()) == ["approval"]
    assert against(charter(approval="each_run"), run_of(approved=True)) == []


def test_a_budget_is_asked_at_its_own_delta_and_since_the_charter_began() -> None:
    asked = []
    against(charter(), run_of(epsilon=lambda budget: asked.append(budget) or 0.0))
    assert asked == [Budget(4.0, 1e-5, BEGINS)]


def test_a_charter_without_privacy_has_no_budget() -> None:
    open_ = charter(
        privacy=frozenset({"none"}),
        members=tuple(member(name, epsilon=None, delta=None) for name in ("basel", "berlin", "bern")),
    )
    limits = limits_of(open_, open_.members[0], BEGINS)
    assert limits.budgets == frozenset()
    assert accepts(limits, run_of(privacy="none", delta=None, epsilon=lambda budget: math.inf))
