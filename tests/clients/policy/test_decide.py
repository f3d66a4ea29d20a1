"""Every check by itself: what it refuses, under which code, and what it tells the operator."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

from quire.clients import contract
from quire.clients.contract import WORDS, Code
from quire.clients.policy.case import Case
from quire.clients.policy.checks import CHECKS
from quire.clients.policy.decide import Allow, Refuse, decide, objections
from quire.clients.policy.model import Policy, Population
from quire.clients.policy.words import lines, lines_of_run
from quire.conf import privacy_rules
from quire.conf.compose import compose
from quire.errors import SettingsError
from quire.privacy.dp import lattice
from quire.privacy.dp.events import NonPrivate, SampledGaussian
from quire.privacy.dp.spending import Spending

# What is changed, the check that then refuses, the code that travels, and what the words must say.
REFUSED = [
    (lambda a: a.know(code="d" * 64), "code", "CODE_REFUSED", "dddddddddddd, is none of them"),
    (lambda a: a.ask("seed=1"), "test_seed", "SEED_REFUSED", "policy.test_seed .*seed=1: leave out 'seed'"),
    (lambda a: a.limit(modes=frozenset({"silo"})), "modes", "POLICY_REFUSED", "choose privacy=silo"),
    (lambda a: a.none(), "modes", "POLICY_REFUSED", "choose privacy=record or silo"),
    (
        lambda a: a.limit(aggregation=frozenset({"secure"})),
        "aggregation",
        "POLICY_REFUSED",
        "choose aggregation=secure",
    ),
    (lambda a: a.limit(log="required"), "log", "POLICY_REFUSED", "no silo is shown one: choose aggregation=secure"),
    (lambda a: a.know(stage="evaluate"), "scores", "SCORES_WITHHELD", "set strategy.fraction_evaluate=0"),
    (lambda a: a.limit(min_cohort=5), "min_cohort", "POLICY_REFUSED", "set strategy.min_silos=5 or more"),
    (lambda a: a.know(cohort=3), "min_cohort", "POLICY_REFUSED", "merged among 3 silos"),
    (lambda a: a.limit(colluders=3), "colluders", "POLICY_REFUSED", "set strategy.min_silos=5 or more"),
    (lambda a: a.ask("privacy.clip=1.5"), "max_clip", "POLICY_REFUSED", "privacy.clip=1.5: set privacy.clip=1 or less"),
    (lambda a: a.ask("strategy.rounds=101"), "max_rounds", "ROUNDS_REFUSED", "set strategy.rounds=100 or fewer"),
    (lambda a: a.know(rounds_run=30), "max_rounds", "ROUNDS_REFUSED", "the server asks for another"),
    (lambda a: a.know(rounds_today=200), "max_rounds_per_day", "ROUNDS_REFUSED", "go on tomorrow"),
    (lambda a: a.limit(population=Population("p", 15)), "batch", "POLICY_REFUSED", "training.batch_size=15 or less"),
    (lambda a: a.limit(delta=1e-6), "delta", "BUDGET_REFUSED", "aims at 1e-05: set privacy.delta=1e-06"),
    (lambda a: a.limit(min_noise=9.0), "min_noise", "POLICY_REFUSED", "lower privacy.epsilon"),
    (lambda a: a.ask("privacy.epsilon=inf"), "min_noise", "POLICY_REFUSED", "noise of 0 times the clip"),
    (
        lambda a: a.ask("privacy.epsilon=1e-4 strategy.rounds=100 training.steps=1000000"),
        "min_noise",
        "POLICY_REFUSED",
        "cannot be calibrated here",
    ),
    (lambda a: a.ask("privacy.noise=gaussian"), "noise", "POLICY_REFUSED", "choose privacy.noise=discrete; floating"),
    (lambda a: a.limit(noise=frozenset({"gaussian"})), "noise", "POLICY_REFUSED", "choose privacy.noise=gaussian"),
    (
        lambda a: (a.limit(trusts_server=False), a.ask("privacy=silo")),
        "trusts_server",
        "POLICY_REFUSED",
        "it sees updates before it adds the noise; choose privacy=record, or set trusts_server to true",
    ),
    (
        lambda a: a.know(simulated=True),
        "rehearsal",
        "POLICY_REFUSED",
        "would read rows that this policy protects, and charge no ledger",
    ),
    (lambda a: a.limit(test_seed=True), "epsilon", "BUDGET_REFUSED", "noise that can be foretold protects no records"),
    (lambda a: a.limit(epsilon=1.9), "epsilon", "BUDGET_REFUSED", r"silo.yaml, line 12\) caps population 'heart-2020'"),
    (lambda a: a.know(spent=Spending.of(NonPrivate())), "epsilon", "BUDGET_REFUSED", "inf is spent"),
    (lambda a: a.know(spent=None), "epsilon", "BUDGET_REFUSED", "the silo needs its ledger"),
]


@pytest.mark.parametrize(
    ("change", "check", "code", "words"), REFUSED, ids=[f"{r[1]}-{i}" for i, r in enumerate(REFUSED)]
)
def test_each_limit_refuses_with_its_code_and_says_what_to_do(asked, change, check, code, words):
    assert isinstance(decide(*asked.args()), Allow)
    change(asked)
    refused = decide(*asked.args())
    assert isinstance(refused, Refuse)
    assert (refused.check, refused.code.name) == (check, code)
    assert re.search(words, refused.words), refused.words
    assert "\n" not in refused.words
    assert not refused.words.endswith(".")


def test_what_composing_refuses_already_is_refused_here_as_well(asked):
    """The silo does not rely on the rules of conf/: settings are built here that cannot be composed."""
    policy, settings, state = asked.args()
    fitted = replace(settings, data=replace(settings.data, preprocessing="per_silo"))
    assert decide(policy, fitted, state).check == "preprocessing"
    silo = compose("task=breast_cancer privacy=silo privacy.delta=1e-5 strategy.min_silos=4")
    weighted = replace(silo, privacy=replace(silo.privacy, weights="examples"))
    assert decide(policy, weighted, state).check == "weights"


def test_a_robust_rule_is_plain_to_a_policy_which_says_so(asked):
    asked.none()
    asked.overrides += " aggregation=median"
    asked.limit(modes=frozenset({"none"}), aggregation=frozenset({"plain", "secure"}), epsilon=math.inf, delta=1.0)
    decided = decide(*asked.args())
    assert isinstance(decided, Allow), decided
    asked.limit(aggregation=frozenset({"secure"}))
    refused = decide(*asked.args())
    assert refused.check == "aggregation"
    assert "aggregation=plain, which aggregation=median is to a policy: choose aggregation=secure" in refused.words


def test_without_privacy_everything_is_spent_so_a_cap_refuses_it(asked):
    asked.overrides = "task=breast_cancer strategy.min_silos=4"
    asked.limit(modes=frozenset({"none", "record"}))
    refused = decide(*asked.args())
    assert (refused.check, refused.code) == ("epsilon", Code.BUDGET_REFUSED)
    assert "privacy=none spends without limit" in refused.words
    asked.limit(modes=frozenset({"none"}), epsilon=math.inf, delta=1.0)
    asked.know(spent=None)
    assert isinstance(decide(*asked.args()), Allow)


def test_a_seed_is_fine_where_the_operator_allows_it_and_in_simulation(asked):
    asked.ask("seed=7")
    assert decide(*asked.args()).check == "test_seed"
    simulated = replace(asked.state, simulated=True, spent=None, code="e" * 64)
    for seeded in (False, True):
        rehearsed = replace(asked.policy, rehearsal=True, test_seed=seeded)
        assert isinstance(decide(rehearsed, compose(asked.overrides), simulated), Allow)
    asked.limit(test_seed=True)
    assert decide(*asked.args()).check == "epsilon"  # somebody's rows, and noise that the server could foretell
    asked.limit(shipped=True)
    assert isinstance(decide(*asked.args()), Allow)


@pytest.mark.parametrize("stage", ["", "train.default", "evaluate.default", "query.default", "TRAIN", "train.x"])
def test_a_stage_that_the_contract_does_not_know_is_not_decided_on(asked, stage):
    asked.know(stage=stage)
    with pytest.raises(ValueError, match="no stage that could be decided on"):
        decide(*asked.args())


@pytest.mark.parametrize("overrides", ["privacy=record", "privacy=record privacy.noise=gaussian", "privacy=silo"])
def test_such_an_epsilon_is_refused_when_composing(overrides):
    task = f"task=breast_cancer {overrides} privacy.delta=1e-5"
    with pytest.raises(SettingsError, match=r"privacy\.epsilon=44\.1 is more than 44, up to which"):
        compose(f"{task} privacy.epsilon=44.1")
    assert privacy_rules.MAX_EPSILON == lattice.MAX_EPSILON
    assert 1 + math.exp(lattice.MAX_EPSILON) <= lattice._DISTANCE_FACTOR
    for epsilon in ("44", "inf"):
        assert compose(f"{task} privacy.epsilon={epsilon}").privacy.epsilon == float(epsilon)


@pytest.mark.parametrize("epsilon", [44.5, 1e9])
def test_an_epsilon_beyond_what_the_accounting_holds_for_is_refused_by_the_silo_too(asked, epsilon):
    policy, settings, state = asked.args()
    settings = replace(settings, privacy=replace(settings.privacy, epsilon=epsilon))
    refused = decide(replace(policy, epsilon=math.inf), settings, state)
    assert refused.check == "min_noise"
    assert "is more than 44, up to which what is accounted for holds" in refused.words


SHARED = (
    "task=breast_cancer privacy=record_distributed privacy.epsilon=4 privacy.delta=1e-5 privacy.sampling_rate=0.2 "
    "privacy.records=1000 privacy.largest=400 aggregation=secure strategy.min_silos=4 strategy.rounds=10"
)


@pytest.mark.parametrize("stage", ["train", *contract.SECURE_STAGES])
def test_under_distributed_noise_a_run_that_has_begun_needs_room_for_what_is_asked_alone(asked, stage):
    """A failed attempt was charged as well: what the whole run was to cost says nothing any more."""
    asked.limit(modes=frozenset({"record_distributed"}), aggregation=frozenset({"secure"}), epsilon=4.0)
    asked.overrides = SHARED
    policy, settings, state = asked.args()
    plan, state = Case(policy, settings, state).plan, replace(state, stage=stage)
    asks = int(stage == "train")
    assert isinstance(decide(policy, settings, state), Allow)
    one = Spending.of(plan.charged(1))
    # Before it begins all of it has to fit.
    assert decide(policy, settings, replace(state, spent=one)).check == "epsilon"
    for charges in range(1, 14):  # of ten rounds: 1 to 3 attempts have failed, and how many rounds went before is free
        spent = Spending.of(plan.charged(charges))
        for done in range(0, min(charges, 9) + 1):
            found = decide(policy, settings, replace(state, spent=spent, rounds_run=done, begun=True))
            fits = Spending.of(plan.charged(charges + asks)).epsilon(1e-5) <= 4.0
            assert isinstance(found, Allow) == fits == (charges + asks <= 10)
            if not fits:
                assert found.check == "epsilon"
                assert "another attempt of this run would make it" in found.words


def test_earlier_rounds_of_the_run_are_not_counted_twice(asked):
    """Half of the run is done and in the books: the other half still fits, one round more does not."""
    asked.limit(epsilon=2.0)
    policy, settings, state = asked.args()
    plan = Case(policy, settings, state).plan
    half = Spending.of(SampledGaussian(plan.noise_multiplier, plan.rate, 15 * plan.steps))
    assert isinstance(decide(policy, settings, replace(state, spent=half, rounds_run=15)), Allow)
    assert decide(policy, settings, replace(state, spent=half, rounds_run=14)).check == "epsilon"
    assert decide(policy, settings, replace(state, spent=half)).check == "epsilon"


def test_a_silo_unit_run_is_charged_at_twice_the_clip(asked):
    """One record can move a clipped update by twice the clip: half the noise, as the record sees it."""
    asked.overrides = "task=breast_cancer privacy=silo privacy.epsilon=4 privacy.delta=1e-5 strategy.min_silos=4"
    refused = decide(*asked.args())
    assert refused.check == "epsilon"
    asked.limit(epsilon=12.0)
    assert isinstance(decide(*asked.args()), Allow)


def test_the_cost_is_reckoned_from_the_declared_records_and_nothing_else(asked):
    policy, settings, state = asked.args()
    plan = Case(policy, settings, state).plan
    assert (plan.rate, plan.steps) == (16 / 400, 25)
    fewer = Case(replace(policy, population=Population("p", 100)), settings, state).plan
    assert fewer.rate == 0.16
    assert fewer.noise_multiplier > plan.noise_multiplier


def test_every_check_has_words_and_all_of_them_are_told(asked):
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    policy, settings, state = asked.args()
    assert [line.name for line in lines(policy)] == names
    told = lines_of_run(Case(policy, settings, state))
    assert [line.name for line in told] == names
    assert all(line.asks and line.allows and line.objection is None for line in told)
    assert {check.code for check in CHECKS} <= set(WORDS)


def test_all_objections_are_listed_even_where_one_makes_another_impossible(asked):
    asked.limit(population=Population("p", 15), max_clip=0.5, modes=frozenset({"silo"}))
    found = {name for name, words in objections(*asked.args()).items() if words}
    assert found == {"modes", "max_clip", "batch", "min_noise", "epsilon"}
    assert "cannot be reckoned" in {line.asks for line in lines_of_run(Case(*asked.args()))}


def test_defaults_are_on_the_strict_side():
    strict = Policy(frozenset({"record"}), frozenset({"plain"}), frozenset(), Population("p", 400))
    assert (strict.epsilon, strict.delta, strict.period_days, strict.test_seed) == (0.0, 0.0, None, False)
    assert (strict.noise, strict.trusts_server, strict.rehearsal, strict.shipped) == ({"discrete"}, False, False, False)
    settings = compose("task=breast_cancer privacy=record strategy.min_silos=4")
    assert isinstance(decide(strict, settings, replace(_state(), spent=Spending.zero())), Refuse)


def _state():
    from quire.clients.policy.case import State

    return State(stage="train")
