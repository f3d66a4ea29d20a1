"""The decision is never laxer than the stricter of policy and settings: 100,000 random pairs, each varied once."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from quire.clients.policy.case import Case, State
from quire.clients.policy.cost import epsilon_after
from quire.clients.policy.decide import Allow, Refuse, decide
from quire.clients.policy.model import Policy, Population
from quire.clients.private.plan import Plan
from quire.conf.compose import compose
from quire.conf.schema import NoPrivacy, RecordPrivacy, Settings, SiloPrivacy
from quire.privacy.dp.contract import Unit
from quire.privacy.dp.events import SampledGaussian
from quire.privacy.dp.spending import Spending

PAIRS = 20_000
ALL_PAIRS = 100_000

BASE = compose("task=breast_cancer")
CODES = ("a" * 64, "b" * 64, "c" * 64)
EPSILONS = (0.5, 2.0, 8.0, math.inf)
DELTAS = (1e-7, 1e-5, 1e-4)
# Either every record is in every batch, whose cost has a closed form, or the batch is larger than the population:
# it is the decisions that are many here, and sampled batches have a test of their own.
RECORDS, BATCH = (150, 200), 200
CLIPS = (0.5, 1.0, 2.0, 10.0)
ROUNDS = (5, 60)
SILOS = (2, 3, 4, 6, 10)
NOISES = (0.0, 0.3, 0.5, 1.0, 2.0)
PREPROCESSING = ("public", "per_silo", "federated")
SPENT = tuple(Spending.of(SampledGaussian(z, 0.05, 100)) for z in (4.0, 1.0, 0.6))


class Draw:
    """Random policies, settings and states out of grids, from one seeded generator."""

    def __init__(self, seed: int, count: int) -> None:
        self._numbers = iter(np.random.default_rng(seed).integers(0, 2**31, 50 * count).tolist())

    def one(self, options):
        return options[next(self._numbers) % len(options)]

    def policy(self) -> Policy:
        none = self.one((True, False, False, False))
        return Policy(
            modes=frozenset({"none"}) if none else frozenset(self.one((("record",), ("silo",), ("record", "silo")))),
            aggregation=frozenset({"plain"}),
            code=frozenset(self.one(((), (), (), (), CODES[:1], CODES[:2], CODES[1:]))),
            population=Population("p", self.one((*(RECORDS[1],) * 4, RECORDS[0]))),
            epsilon=math.inf if none else self.one(EPSILONS),
            delta=1.0 if none else self.one(DELTAS),
            period_days=self.one((None, 30)),
            min_cohort=self.one(SILOS),
            colluders=self.one((0, 1, 2)),
            noise=frozenset(self.one((("discrete",), ("discrete", "gaussian")))),
            min_noise=self.one(NOISES),
            max_clip=self.one(CLIPS),
            max_rounds=self.one((5, 20, 100, 100)),
            max_rounds_per_day=self.one((10, 100)),
            trusts_server=self.one((True, True, True, False)),
            test_seed=self.one((True, False, False, False)),
            rehearsal=self.one((True, False)),
            log=self.one((*("optional",) * 7, "required")),
            shipped=self.one((True, False)),
        )

    def settings(self) -> Settings:
        privacy = self.one(("none", "record", "record", "silo"))
        options = {
            "none": lambda: NoPrivacy("none"),
            "record": lambda: RecordPrivacy(
                "record", self.one(EPSILONS), self.one((None, *DELTAS)), self.one(CLIPS),
                self.one(("gaussian", "discrete")), "auto",
            ),
            "silo": lambda: SiloPrivacy(
                "silo", self.one(EPSILONS), self.one(DELTAS), self.one(CLIPS),
                self.one(("fixed", "fixed", "fixed", "adaptive")), 0.5,
                self.one(("uniform", "uniform", "capped", "examples")), 1000,
            ),
        }  # fmt: skip
        strategy = replace(BASE.strategy, rounds=self.one(ROUNDS), min_silos=self.one((*SILOS, 10, 10, 10)))
        return replace(
            BASE,
            privacy=options[privacy](),
            strategy=strategy,
            training=replace(BASE.training, batch_size=BATCH),
            data=replace(BASE.data, preprocessing=self.one((*("public",) * 8, *PREPROCESSING))),
            overrides=self.one(("task=breast_cancer", "task=breast_cancer", "seed=4 task=breast_cancer")),
        )

    def state(self) -> State:
        return State(
            stage=self.one(("query", "train", "train", "evaluate")),
            code=self.one(CODES),
            spent=self.one((*(Spending.zero(),) * 6, *SPENT, None)),
            rounds_run=self.one((0, 0, 3, 5)),
            rounds_today=self.one((0, 0, 0, 0, 9, 10, 99)),
            cohort=self.one((*(None,) * 8, *SILOS)),
            simulated=self.one((*(False,) * 7, True)),
            clip=self.one((*(None,) * 24, *CLIPS)),
        )


def below(options, value):
    return [option for option in options if option < value] or [value]


def above(options, value):
    return [option for option in options if option > value] or [value]


TIGHTER = {
    "modes": lambda p, d: replace(p, modes=frozenset(sorted(p.modes)[:1])),
    "aggregation": lambda p, d: replace(p, aggregation=frozenset()),
    "code": lambda p, d: replace(p, code=frozenset(sorted(p.code)[:1]) or frozenset(CODES[:1])),
    "epsilon": lambda p, d: replace(p, epsilon=d.one(below(EPSILONS, p.epsilon))),
    "delta": lambda p, d: replace(p, delta=d.one(below(DELTAS, p.delta))),
    "period_days": lambda p, d: replace(p, period_days=None),
    "min_cohort": lambda p, d: replace(p, min_cohort=d.one(above(SILOS, p.min_cohort))),
    "colluders": lambda p, d: replace(p, colluders=p.colluders + 1),
    "min_noise": lambda p, d: replace(p, min_noise=d.one(above(NOISES, p.min_noise))),
    "max_clip": lambda p, d: replace(p, max_clip=d.one(below(CLIPS, p.max_clip))),
    "max_rounds": lambda p, d: replace(p, max_rounds=max(1, p.max_rounds // 2)),
    "max_rounds_per_day": lambda p, d: replace(p, max_rounds_per_day=max(1, p.max_rounds_per_day // 2)),
    "noise": lambda p, d: replace(p, noise=frozenset({"discrete"})),
    "trusts_server": lambda p, d: replace(p, trusts_server=False),
    "rehearsal": lambda p, d: replace(p, rehearsal=False),
    "log": lambda p, d: replace(p, log="required" if p.log == "optional" else "ab" * 32),
    # Over somebody's rows a seed that was allowed makes every cap refuse: there it is laxer only without one.
    "test_seed": lambda p, d: replace(p, test_seed=False) if p.shipped or not p.capped else p,
    "shipped": lambda p, d: replace(p, shipped=False),
}


def privacy(s, **changes):
    known = {name: value for name, value in changes.items() if hasattr(s.privacy, name)}
    return replace(s, privacy=replace(s.privacy, **known))


def laxer_delta(s, d):
    delta = getattr(s.privacy, "delta", None)
    return s if delta is None else privacy(s, delta=d.one(above(DELTAS, delta)))


LAXER = {
    "privacy.epsilon": lambda s, d: privacy(s, epsilon=d.one(above(EPSILONS, getattr(s.privacy, "epsilon", 0.0)))),
    "privacy.delta": laxer_delta,
    "privacy.clip": lambda s, d: privacy(s, clip=d.one(above(CLIPS, getattr(s.privacy, "clip", 0.0)))),
    "privacy.noise": lambda s, d: privacy(s, noise="gaussian"),
    "privacy.weights": lambda s, d: privacy(s, weights="examples"),
    "strategy.min_silos": lambda s, d: replace(s, strategy=replace(s.strategy, min_silos=1)),
    "seed": lambda s, d: replace(s, overrides=f"seed=9 {s.overrides.removeprefix('seed=4 ')}"),
    "data.preprocessing": lambda s, d: replace(s, data=replace(s.data, preprocessing=d.one(PREPROCESSING[1:]))),
}

WORSE = {
    "code": lambda t, d: replace(t, code="f" * 64),
    "spent": lambda t, d: replace(t, spent=None if t.spent is None else t.spent + d.one(SPENT)),
    "unknown": lambda t, d: t if t.simulated else replace(t, spent=None),  # a simulation has no books
    "rounds_today": lambda t, d: replace(t, rounds_today=t.rounds_today + 5),
    "cohort": lambda t, d: replace(t, cohort=d.one((1, 2))),
    "clip": lambda t, d: t if t.clip is None else replace(t, clip=100.0),
}


def within(policy: Policy, settings: Settings, state: State) -> bool:
    """Say anew, in the plainest way, that an approval is inside both the policy and the settings."""
    private = settings.privacy.name != "none"
    cohort = min(settings.strategy.min_silos, state.cohort or 10**9)
    plain = (
        settings.privacy.name in policy.modes
        and settings.aggregation.name in policy.aggregation
        and (not policy.code or state.code in policy.code or state.simulated)
        and (policy.test_seed or state.simulated or "seed=" not in settings.overrides)
        and (policy.rehearsal or not state.simulated)
        and (policy.log == "optional" or state.simulated or settings.aggregation.name == "secure")
        and (policy.trusts_server or settings.privacy.name != "silo")
        and getattr(settings.privacy, "noise", min(policy.noise)) in policy.noise
        and (state.clip is None or state.clip <= policy.max_clip)
        and cohort >= max(policy.min_cohort, policy.colluders + 2)
        and settings.strategy.rounds <= policy.max_rounds
        and (state.stage == "evaluate" or state.rounds_today < policy.max_rounds_per_day)
    )
    if not private or not plain:
        return plain and policy.epsilon == math.inf
    if policy.test_seed and not policy.shipped and not state.simulated and policy.epsilon < math.inf:
        return False
    case = Case(policy, settings, state)
    delta = settings.privacy.delta if settings.privacy.delta is not None else min(1e-5, 0.1 / policy.population.records)
    spends = 0.0
    if policy.epsilon < math.inf:
        left = settings.strategy.rounds - min(state.rounds_run, settings.strategy.rounds)
        event = case.plan.charged(left) if left else None
        before = state.spent or (Spending.zero() if state.simulated else None)
        if before is None:
            return False
        spends = (before + (Spending.of(event) if event else Spending.zero())).epsilon(policy.delta)
    return (
        (state.stage != "evaluate" or state.simulated)
        and settings.data.preprocessing == "public"
        and getattr(settings.privacy, "weights", "uniform") != "examples"
        and settings.privacy.clip <= policy.max_clip
        and delta <= policy.delta
        and case.plan.noise_multiplier >= policy.min_noise
        and spends <= policy.epsilon
    )


class Outcome:
    """What came of many pairs; :mod:`benchmarks.silo` counts the same."""

    def __init__(self) -> None:
        self.pairs = self.allowed = self.turned = 0
        self.laxer: list[object] = []
        self.refused_by: set[str] = set()
        self.turned_by: set[str] = set()


def vary(pairs: int, seed: int) -> Outcome:
    """Decide on random pairs, change one thing of each for the stricter, and decide again."""
    draw, outcome = Draw(seed, pairs), Outcome()
    changes = [*(("policy", *item) for item in TIGHTER.items()), *(("settings", *item) for item in LAXER.items())]
    changes += [("state", *item) for item in WORSE.items()]
    for _ in range(pairs):
        policy, settings, state = draw.policy(), draw.settings(), draw.state()
        if settings.overrides.startswith("seed") and draw.one((True, False)):
            policy = replace(policy, test_seed=True)
        kind, name, change = draw.one(changes)
        if name == "privacy.clip":  # a clip that the server tells has to be that of the settings, larger or not
            state = replace(state, clip=None)
        before = decide(policy, settings, state)
        if kind == "policy":
            after = decide(change(policy, draw), settings, state)
        elif kind == "settings":
            after = decide(policy, change(settings, draw), state)
        else:
            after = decide(policy, settings, change(state, draw))
        outcome.pairs += 1
        if isinstance(before, Refuse):
            outcome.refused_by.add(before.check)
            if not isinstance(after, Refuse):
                outcome.laxer.append((kind, name, before, policy, settings.privacy, state))
            continue
        outcome.allowed += 1
        if not within(policy, settings, state):
            outcome.laxer.append(("outside", policy, settings.privacy, state))
        if isinstance(after, Refuse):
            outcome.turned += 1
            outcome.turned_by.add(name)
    return outcome


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pairs", [PAIRS, pytest.param(ALL_PAIRS, marks=pytest.mark.slow)])
def test_no_tightening_and_no_loosening_ever_turns_a_refusal_into_an_approval(pairs):
    outcome = vary(pairs, 20261121)
    assert outcome.pairs == pairs
    assert outcome.laxer == []
    # The test can fail only if both sides are met, and every check has had its say.
    assert outcome.allowed > pairs // 100
    assert outcome.turned > pairs // 400
    assert len(outcome.turned_by) >= 15, outcome.turned_by
    assert outcome.refused_by >= {
        *("code", "test_seed", "modes", "scores", "preprocessing", "weights", "min_cohort", "colluders", "max_clip"),
        *("max_rounds", "max_rounds_per_day", "batch", "delta", "noise", "min_noise", "epsilon"),
        *("rehearsal", "trusts_server", "log"),
    }


@pytest.mark.parametrize(
    "missing",
    ["code", "rehearsal", "test_seed", "trusts_server", "log", "min_cohort", "max_clip", "delta", "noise", "epsilon"],
)
def test_the_pairs_find_a_check_that_is_missing(missing, monkeypatch):
    """Power: leave one check out, and some approval lies outside the limits."""
    from quire.clients.policy import decide as module

    monkeypatch.setattr(module, "CHECKS", tuple(check for check in module.CHECKS if check.name != missing))
    assert vary(PAIRS // 2, 7).laxer


def test_more_rounds_are_never_laxer_with_the_noise_held():
    """Under one epsilon more rounds mean more noise; with the noise held, they only ever cost more."""
    rng = np.random.default_rng(5)
    for _ in range(12):
        z, rate, rounds = float(rng.uniform(0.4, 4)), float(rng.uniform(0.01, 1)), int(rng.integers(1, 200))
        plan = Plan(Unit.RECORD, 1.0, z, rate, int(rng.integers(1, 20)), 16, False, 1e-5)
        spent = SPENT[int(rng.integers(0, 3))]
        costs = [epsilon_after(spent, plan, count, 1e-5) for count in (0, rounds, rounds + 1)]
        assert costs == sorted(costs)
        noisier = replace(plan, noise_multiplier=1.2 * z)
        assert epsilon_after(spent, noisier, rounds, 1e-5) <= costs[1]


def test_with_sampled_batches_a_cap_just_at_the_target_allows_and_just_below_refuses():
    for epsilon, noise in ((1.0, "discrete"), (4.0, "gaussian")):
        settings = compose(
            f"task=breast_cancer privacy=record privacy.epsilon={epsilon} privacy.noise={noise} strategy.min_silos=4"
        )
        policy = Policy(
            *(frozenset({"record"}), frozenset({"plain"}), frozenset(), Population("p", 400)),
            **{"epsilon": epsilon, "delta": 1e-5, "noise": frozenset({noise})},
        )
        state = State(stage="train", spent=Spending.zero())
        assert isinstance(decide(policy, settings, state), Allow)
        refused = decide(replace(policy, epsilon=0.995 * epsilon), settings, state)
        assert (refused.check, refused.code.name) == ("epsilon", "BUDGET_REFUSED")
