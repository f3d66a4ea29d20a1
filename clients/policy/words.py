"""A policy and a run in words, for the operator who reads them side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quire.clients.data.preprocess import PUBLIC, preprocessing_of
from quire.clients.policy.case import Case
from quire.clients.policy.checks import CHECKS, has_seed, noise_kind
from quire.clients.policy.model import OPTIONAL, REQUIRED, Policy
from quire.clients.private.plan import SharedPlan, delta_of, is_adaptive
from quire.conf.schema import (
    DistributedPrivacy,
    PlainAggregation,
    RecordDistributedPrivacy,
    RecordPrivacy,
    SecureAggregation,
    SiloPrivacy,
)
from quire.privacy.dp.contract import PrivacyError, Unit


@dataclass(frozen=True)
class Line:
    """One check in words.

    Attributes
    ----------
    name : str
        Of the check.
    title : str
        What it is about.
    allows : str
        What the policy allows.
    asks : str
        What the run asks for; empty where there is no run.
    objection : str or None
        What there is against it.
    """

    name: str
    title: str
    allows: str
    asks: str = ""
    objection: str | None = None


def cautions(policy: Policy) -> list[str]:
    """Say what a policy leaves to the good faith of others, or to luck: one sentence each."""
    found = []
    if policy.test_seed:
        found.append("Warning: test_seed is true. Whoever knows the seed can undo the noise: never over real records.")
    if policy.rehearsal:
        found.append("Warning: rehearsal is true. A simulation on this machine reads these rows and charges no ledger.")
    if policy.approval:
        found.append(
            "Note: approval is true. Nothing is answered in a run before it is approved here (`quire approve --list`)."
        )
    if policy.trusts_server:
        found.append(
            "Note: trusts_server is true. Under privacy=silo the server sees this silo's clipped update without noise."
        )
    if "gaussian" in policy.noise:
        found.append(
            "Note: noise lists gaussian. Floating-point noise tells more than is accounted for (docs/accounting.md)."
        )
    if "plain" in policy.aggregation:
        found.append(
            "Note: under aggregation=plain the server sees every update by itself. That it merges those of at least "
            f"{policy.min_cohort} silos is its promise, which nothing here can check."
        )
    if not policy.code:
        found.append(
            "Note: no code is pinned here. Behind the gate only approved bundles run (`quire app approve`); without it "
            "what the policy holds back it holds back from an honest-but-curious server."
        )
    return found


def lines(policy: Policy) -> list[Line]:
    """Describe a policy, one line for each check."""
    return [Line(check.name, _TITLES[check.name], _ALLOWS[check.name](policy)) for check in CHECKS]


def lines_of_run(case: Case) -> list[Line]:
    """Describe a policy and what a run asks of it, with every objection."""
    return [
        Line(
            check.name,
            _TITLES[check.name],
            _ALLOWS[check.name](case.policy),
            _asked(case, check.name),
            check.objection(case),
        )
        for check in CHECKS
    ]


def _asked(case: Case, name: str) -> str:
    try:
        return _ASKS[name](case)
    except PrivacyError:  # the objection says why
        return "cannot be reckoned"


def _private(say: Callable[[Case], str]) -> Callable[[Case], str]:
    return lambda case: say(case) if case.private else "no privacy claimed"


def _trust_allowed(policy: Policy) -> str:
    return "it may see updates that have no noise yet" if policy.trusts_server else "it may see no update without noise"


def _trust_asked(case: Case) -> str:
    if isinstance(case.settings.privacy, SiloPrivacy):
        return "it sees updates and adds the noise"
    if isinstance(case.settings.privacy, DistributedPrivacy):
        return "each silo adds a share of the noise, and it sees the noisy sum"
    return "the noise is added in the silo" if case.private else "no privacy claimed"


def _cohort_allowed(policy: Policy) -> str:
    promised = " (under aggregation=plain a promise of the server)" if "plain" in policy.aggregation else ""
    return f"{policy.min_cohort}{promised}"


def _cohort_asked(case: Case) -> str:
    promised = isinstance(case.settings.aggregation, PlainAggregation)
    return f"{case.cohort}, as the server promises" if promised else str(case.cohort)


def _budget_allowed(policy: Policy) -> str:
    if not policy.capped:
        return "anything: noise that can be foretold is none" if policy.seeded else "anything: no privacy is claimed"
    when = f"in {policy.period_days} days" if policy.period_days else "for good"
    return f"at most {policy.epsilon:g} {when}, at delta {policy.delta:g}"


def _budget_asked(case: Case) -> str:
    if case.settings.selftest:
        return "nothing: a self-test of the noise reads no rows"
    from quire.privacy.dp.spending import Spending

    if case.seeded:
        return "everything: its noise can be foretold"
    alone = case.epsilon(case.rounds_left, Spending.zero())
    again = "; an attempt that is repeated costs another round" if isinstance(case.plan, SharedPlan) else ""
    if case.spent is None:
        return f"{alone:.3g}; what is spent is not known{again}"
    before = case.epsilon(0, case.spent)
    if before == 0:
        return f"{alone:.3g}{again}"
    after = case.epsilon(case.rounds_left, case.spent)
    return f"{alone:.3g}, which makes {after:.3g} with the {before:.3g} spent{again}"


def _noise_asked(case: Case) -> str:
    plan = case.plan
    steps = case.settings.strategy.rounds * plan.steps
    if isinstance(plan, SharedPlan):
        noise = plan.noise
        of = f" on the sum, {noise.shares} shares of it, against {plan.colluders} colluders and an observer"
        also = "" if plan.unit is Unit.RECORD else ", half as much for one record"
        return f"{plan.noise_multiplier:.3g}{of}, over {steps} rounds, sampling {plan.rate:.3g}{also}"
    if plan.unit is Unit.SILO:
        return f"{plan.noise_multiplier:.3g} over {steps} rounds, half as much for one record"
    return f"{plan.noise_multiplier:.3g} over {steps} steps, sampling {plan.rate:.3g} of the records"


def _batch_asked(case: Case) -> str:
    privacy = case.settings.privacy
    if isinstance(privacy, RecordDistributedPrivacy):
        return f"{privacy.sampling_rate:g} of the records, at random"
    if isinstance(privacy, RecordPrivacy):
        return str(case.settings.training.batch_size)
    return "no batches are sampled"


def _clip_asked(case: Case) -> str:
    begins = f"{getattr(case.settings.privacy, 'clip', 0.0):g}"
    if not is_adaptive(case.settings.privacy):
        return begins
    return f"{begins} at first; then it follows the updates, and a round beyond the limit is refused"


def _code_allowed(policy: Policy) -> str:
    if not policy.code:
        return "any: the server that ships it is trusted to be honest but curious"
    return "one approved version" if len(policy.code) == 1 else f"{len(policy.code)} approved versions"


def _log_allowed(policy: Policy) -> str:
    if policy.log in (OPTIONAL, REQUIRED):
        return policy.log
    return f"required, with the key {policy.log[:16]}"


def _aggregation_asked(case: Case) -> str:
    secure = case.settings.aggregation
    exact = isinstance(secure, SecureAggregation) and secure.exact
    if exact:
        return "none (aggregation.simulate=exact_sum)"
    if isinstance(secure, SecureAggregation) and secure.groups is not None:
        return f"{secure.name}, in {secure.groups} groups that are summed apart"
    return secure.name if secure.seen == secure.name else f"{secure.name} ({secure.seen} to a policy)"


def _is_secure(case: Case) -> bool:
    return isinstance(case.settings.aggregation, SecureAggregation)


_TITLES = {
    "code": "code",
    "rehearsal": "simulation",
    "test_seed": "seed from the server",
    "modes": "privacy",
    "trusts_server": "trust in the server",
    "aggregation": "aggregation",
    "log": "transparency log",
    "scores": "scores",
    "preprocessing": "preprocessing",
    "weights": "weights",
    "min_cohort": "silos merged, at least",
    "colluders": "honest silos, at least",
    "max_clip": "clip",
    "max_rounds": "rounds of a run",
    "max_rounds_per_day": "rounds in a day",
    "batch": "batch",
    "delta": "delta",
    "noise": "noise",
    "min_noise": "noise over clip",
    "epsilon": "epsilon",
}

_ALLOWS: dict[str, Callable[[Policy], str]] = {
    "code": _code_allowed,
    "rehearsal": lambda policy: "yes, uncharged" if policy.rehearsal else "no: it would charge no ledger",
    "test_seed": lambda policy: "yes: a test, whose privacy counts for nothing" if policy.test_seed else "no",
    "modes": lambda policy: " or ".join(sorted(policy.modes)),
    "trusts_server": _trust_allowed,
    "aggregation": lambda policy: (
        " or ".join(sorted(policy.aggregation)) + (f", also in {policy.groups} groups" if policy.groups else "")
    ),
    "log": _log_allowed,
    "scores": lambda policy: "sent without privacy only",
    "preprocessing": lambda policy: f"{PUBLIC} under privacy",
    "weights": lambda policy: "public numbers under privacy",
    "min_cohort": _cohort_allowed,
    "colluders": lambda policy: f"2, besides {policy.colluders} that may side with the server",
    "max_clip": lambda policy: f"at most {policy.max_clip:g}",
    "max_rounds": lambda policy: f"at most {policy.max_rounds}",
    "max_rounds_per_day": lambda policy: f"at most {policy.max_rounds_per_day} (UTC)",
    "batch": lambda policy: f"at most {policy.population.records}, the public count of records",
    "delta": lambda policy: f"at most {policy.delta:g}",
    "noise": lambda policy: " or ".join(sorted(policy.noise)),
    "min_noise": lambda policy: f"at least {policy.min_noise:g}",
    "epsilon": _budget_allowed,
}

_ASKS: dict[str, Callable[[Case], str]] = {
    "code": lambda case: f"{case.state.code[:12]}..." if case.state.code else "not said",
    "rehearsal": lambda case: "a simulation" if case.state.simulated else "a deployment",
    "test_seed": lambda case: f"seed={case.settings.seed}" if has_seed(case) else "none",
    "modes": lambda case: case.settings.privacy.name,
    "trusts_server": _trust_asked,
    "aggregation": _aggregation_asked,
    "log": lambda case: "shown, if the server has one" if _is_secure(case) else "not shown",
    "scores": lambda case: "wanted" if case.settings.strategy.fraction_evaluate else "not wanted",
    "preprocessing": lambda case: preprocessing_of(case.settings),
    "weights": _private(lambda case: str(getattr(case.settings.privacy, "weights", "public records"))),
    "min_cohort": _cohort_asked,
    "colluders": lambda case: str(max(0, case.cohort - case.policy.colluders)),
    "max_clip": _private(_clip_asked),
    "max_rounds": lambda case: str(case.settings.strategy.rounds),
    "max_rounds_per_day": lambda case: "counted as they are trained",
    "batch": _batch_asked,
    "delta": _private(lambda case: f"{delta_of(case.settings.privacy, case.policy.population.records):g}"),
    "noise": lambda case: noise_kind(case) or "none in the silo",
    "min_noise": _private(_noise_asked),
    "epsilon": lambda case: _budget_asked(case) if case.private else "everything: no privacy is claimed",
}
