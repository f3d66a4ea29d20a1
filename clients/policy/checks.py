"""The checks of a decision, in order: each its own small function, with a fixed code for the server.

An objection names the line of the policy, the setting, and what to do. It is logged at the silo and never travels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from quire.clients import contract
from quire.clients.contract import Code
from quire.clients.data.preprocess import PUBLIC, preprocessing_of
from quire.clients.policy.case import Case
from quire.clients.policy.model import OPTIONAL
from quire.clients.private.plan import delta_of, is_adaptive
from quire.conf.numbers import colluders_of
from quire.conf.schema import DistributedPrivacy, RecordPrivacy, SecureAggregation, SiloPrivacy
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.dp.lattice import NoiseKind

Objection = str | None

#: Stages that begin no round: one that has begun is brought to its end.
_UNDER_WAY = (contract.EVALUATE, *contract.SECURE_STAGES)
#: How silos may count under privacy: by numbers that were public before the run.
_PUBLIC_WEIGHTS = ("uniform", "capped")


@dataclass(frozen=True)
class Check:
    """One limit.

    Attributes
    ----------
    name : str
        The policy's key for it, or a word where the limit always holds.
    code : Code
        What travels when it refuses.
    objection : callable
        What there is against a case, in words; None if nothing. A check may rely on those before it.
    """

    name: str
    code: Code
    objection: Callable[[Case], Objection]


def _code(case: Case) -> Objection:
    policy, code = case.policy, case.state.code
    if case.state.simulated or not policy.code or code in policy.code:
        return None
    return (
        f"{policy.place('code')} lists the hashes of approved code, and this, {code[:12]}, is none of them: have it "
        "reviewed, and add its hash (`quire app hash`) if it is to run"
    )


def _seed(case: Case) -> Objection:
    if case.state.simulated or case.policy.test_seed or not has_seed(case):
        return None
    return (
        f"{case.policy.place('test_seed')} allows no seed, and the settings have seed={case.settings.seed}: leave "
        "out 'seed', for whoever knows it can take the noise off"
    )


def _rehearsal(case: Case) -> Objection:
    if not case.state.simulated or case.policy.rehearsal or case.settings.selftest:
        return None
    return (
        f"{case.policy.place('rehearsal')} is false, and a simulation would read rows that this policy protects, and "
        "charge no ledger: set it to true only for rows that may be read so, or run this as a deployment"
    )


def _mode(case: Case) -> Objection:
    return _listed(case, "modes", "privacy", case.settings.privacy.name, case.policy.modes)


def _trusts(case: Case) -> Objection:
    if not isinstance(case.settings.privacy, SiloPrivacy) or case.policy.trusts_server:
        return None
    return (
        f"{case.policy.place('trusts_server')} is false, and under privacy={case.settings.privacy.name} the server is "
        "trusted: it sees updates before it adds the noise; choose privacy=record, or set trusts_server to true"
    )


def _aggregation(case: Case) -> Objection:
    secure = case.settings.aggregation
    if isinstance(secure, SecureAggregation) and secure.exact and not case.state.simulated:  # whatever a policy says
        return (
            "aggregation.simulate=exact_sum is a short cut for simulations, without any secure aggregation, and this "
            "is a deployment: leave out aggregation.simulate"
        )
    also = "" if secure.seen == secure.name else f", which aggregation={secure.name} is to a policy"
    unlisted = _listed(case, "aggregation", "aggregation", secure.seen, case.policy.aggregation, also)
    groups, allowed = getattr(secure, "groups", None), case.policy.groups
    if unlisted or groups is None or groups == allowed:
        return unlisted
    has = "has no 'groups'" if allowed is None else f"says groups: {allowed}"
    return (
        f"{case.policy.place('groups')} {has}, and aggregation.groups={groups} sums silos in that many groups: leave "
        f"it out{'' if allowed is None else f', set aggregation.groups={allowed}'}, or let the policy say so, with one "
        "number for all runs under a roster"
    )


def _listed(case: Case, key: str, group: str, asked: str, allowed: Collection[str], also: str = "") -> Objection:
    if asked in allowed:
        return None
    return (
        f"{case.policy.place(key)} does not list {group}={asked}{also}: choose {group}={' or '.join(sorted(allowed))}"
    )


def _log(case: Case) -> Objection:
    if case.state.simulated or case.policy.log == OPTIONAL or isinstance(case.settings.aggregation, SecureAggregation):
        return None
    return (
        f"{case.policy.place('log')} asks for a transparency log, and under aggregation="
        f"{case.settings.aggregation.name} no silo is shown one: choose aggregation=secure"
    )


def _scores(case: Case) -> Objection:
    if case.state.simulated or case.state.stage != contract.EVALUATE:
        return None
    if not case.private and not isinstance(case.settings.aggregation, SecureAggregation):
        return None
    under = f"privacy={case.settings.privacy.name}" if case.private else "aggregation=secure"
    return f"under {under} scores stay in the silo: set strategy.fraction_evaluate=0"


def _preprocessing(case: Case) -> Objection:
    if not case.private or (how := preprocessing_of(case.settings)) == PUBLIC:
        return None
    return (
        f"data.preprocessing={how} is fitted to private rows, which privacy={case.settings.privacy.name} does not "
        f"account for: choose data.preprocessing={PUBLIC}"
    )


def _weights(case: Case) -> Objection:
    if not case.private or (weights := getattr(case.settings.privacy, "weights", "uniform")) in _PUBLIC_WEIGHTS:
        return None
    return f"privacy.weights={weights} tells how many rows there are: choose one of {', '.join(_PUBLIC_WEIGHTS)}"


def _cohort(case: Case) -> Objection:
    secure = case.settings.aggregation
    if case.cohort >= case.policy.min_cohort:
        return None
    if isinstance(secure, SecureAggregation) and secure.groups:
        return (
            f"{case.policy.place('min_cohort')} is {case.policy.min_cohort}, and an update could be merged among "
            f"{case.cohort} silos, as aggregation.groups={secure.groups} counts strategy.min_silos in each group: set "
            f"strategy.min_silos={case.policy.min_cohort}, with groups that are large enough"
        )
    return (
        f"{case.policy.place('min_cohort')} is {case.policy.min_cohort}, and an update could be merged among "
        f"{case.cohort} silos: set strategy.min_silos={case.policy.min_cohort} or more, with as many silos"
    )


def _colluders(case: Case) -> Objection:
    honest, settings, secure = case.cohort - case.policy.colluders, case.settings, case.settings.aggregation
    if isinstance(secure, SecureAggregation) and secure.groups and (secure.colluders or 0) < case.policy.colluders:
        return (
            f"{case.policy.place('colluders')} is {case.policy.colluders}, and each of aggregation.groups="
            f"{secure.groups} is to be safe from {secure.colluders} that side with the server: set "
            f"aggregation.colluders={case.policy.colluders}"
        )
    if isinstance(secure, SecureAggregation) and isinstance(settings.privacy, DistributedPrivacy):
        members = settings.partition.silos if case.state.members is None else case.state.members
        planned = colluders_of(secure, members)
        if planned < case.policy.colluders:
            return (
                f"{case.policy.place('colluders')} is {case.policy.colluders}, and the noise of this run is planned "
                f"for {planned} that leave theirs out: set aggregation.colluders={case.policy.colluders}"
            )
    if honest >= 2:
        return None
    return (
        f"{case.policy.place('colluders')} is {case.policy.colluders}, which leaves fewer than two honest silos of "
        f"{case.cohort}: set strategy.min_silos={case.policy.colluders + 2} or more"
    )


def _clip(case: Case) -> Objection:
    settings, told, limit = case.settings.privacy, case.state.clip, case.policy.max_clip
    asked = getattr(settings, "clip", 0.0)
    if asked > limit:
        place = case.policy.place("max_clip")
        return f"{place} is {limit:g}, and privacy.clip={asked:g}: set privacy.clip={limit:g} or less"
    adaptive = is_adaptive(settings)
    if adaptive and told is None and case.state.stage == contract.TRAIN:
        return "privacy.clipping=adaptive, and the server does not say where the clip is: it runs other code"
    if told is None:
        return None
    if not adaptive and told != asked:
        return f"the server tells a clip of {told:g}, and the settings have a fixed one, {asked:g}: it runs other code"
    if told > limit:
        return (
            f"{case.policy.place('max_clip')} is {limit:g}, and the server has moved the clip to {told:g}: raise the "
            "limit, or set a lower privacy.quantile or privacy.clipping=fixed"
        )
    return None


def _rounds(case: Case) -> Objection:
    asked, limit, done = case.settings.strategy.rounds, case.policy.max_rounds, case.state.rounds_run
    if asked > limit:
        return (
            f"{case.policy.place('max_rounds')} is {limit}, and strategy.rounds={asked}: "
            f"set strategy.rounds={limit} or fewer"
        )
    if case.state.stage == contract.TRAIN and done >= asked:
        return f"strategy.rounds={asked} have been trained here, and the server asks for another: start another run"
    return None


def _rounds_today(case: Case) -> Objection:
    done, limit = case.state.rounds_today, case.policy.max_rounds_per_day
    if case.state.stage in _UNDER_WAY or done < limit:
        return None
    return (
        f"{case.policy.place('max_rounds_per_day')} is {limit}, and {done} were trained here today (UTC): "
        "go on tomorrow"
    )


def _batch(case: Case) -> Objection:
    batch, records = case.settings.training.batch_size, case.policy.population.records
    if not isinstance(case.settings.privacy, RecordPrivacy) or batch <= records:
        return None
    return (
        f"training.batch_size={batch} is more than the {records} records of population.records, which batches are "
        f"drawn from under privacy=record: set training.batch_size={records} or less"
    )


def _delta(case: Case) -> Objection:
    if not case.private:
        return None
    asked, limit = delta_of(case.settings.privacy, case.policy.population.records), case.policy.delta
    if asked <= limit:
        return None
    return f"{case.policy.place('delta')} is {limit:g}, and the run aims at {asked:g}: set privacy.delta={limit:g}"


def _kind(case: Case) -> Objection:
    asked = noise_kind(case)
    if asked is None or asked in case.policy.noise:
        return None
    return (
        f"{case.policy.place('noise')} does not list privacy.noise={asked}: choose "
        f"privacy.noise={' or '.join(sorted(case.policy.noise))}"
        + ("; floating-point noise tells more than is accounted for" if asked == NoiseKind.GAUSSIAN else "")
    )


def _noise(case: Case) -> Objection:
    if not case.private:
        return None
    try:
        found, limit = case.plan.noise_multiplier, case.policy.min_noise
    except PrivacyError as error:
        return f"the noise of this run cannot be calibrated here: {str(error).rstrip('.')}"
    if found >= limit:
        return None
    return (
        f"{case.policy.place('min_noise')} is {limit:g}, and this run would have noise of {found:.3g} times the clip: "
        "lower privacy.epsilon"
    )


def _epsilon(case: Case) -> Objection:
    policy = case.policy
    if not policy.capped or case.settings.selftest:  # which reads no row, and costs none anything
        return None
    cap = f"{policy.place('epsilon')} caps population '{policy.population.name}' at epsilon {policy.epsilon:g}"
    if not case.private:
        return f"{cap}, and privacy=none spends without limit: choose privacy={' or '.join(sorted(policy.modes))}"
    if case.seeded:
        return (
            f"{cap}, and {policy.place('test_seed')} is true: noise that can be foretold protects no records, so it "
            "costs without limit; leave out test_seed, or test with data that ships with Quire"
        )
    if case.spent is None:
        return f"{cap}, and how much of it is spent is not known here: the silo needs its ledger"
    try:
        after = case.epsilon(case.rounds_due, case.spent)
    except PrivacyError as error:
        return f"{cap}, and the cost of this run cannot be reckoned here: {str(error).rstrip('.')}"
    if after <= policy.epsilon:
        return None
    before = case.epsilon(0, case.spent)
    return (
        f"{cap} (delta {policy.delta:g}): {before:.3g} is spent, and {_what(case)} would make it {after:.3g}; lower "
        "privacy.epsilon or strategy.rounds"
        + (f", or wait, for spending counts for {policy.period_days} days" if policy.period_days else "")
    )


def _what(case: Case) -> str:
    shared = isinstance(case.settings.privacy, DistributedPrivacy)
    return "another attempt of this run" if shared and case.state.begun else "this run"


def noise_kind(case: Case) -> str | None:
    """Return how the silo itself is to draw noise; None where it draws none."""
    if isinstance(case.settings.privacy, DistributedPrivacy):
        return str(NoiseKind.DISCRETE)  # the only noise whose shares can be added up under a mask
    return case.settings.privacy.noise if isinstance(case.settings.privacy, RecordPrivacy) else None


def has_seed(case: Case) -> bool:
    """Tell whether the settings were given a seed, and not only the default one."""
    # Canonical overrides: one item after the other, so that this never misses a seed. Inside a quoted text it may
    # see one that is none, which refuses too much and never too little.
    return " seed=" in f" {case.settings.overrides}"


#: All checks, in the order in which they are made: what is asked of the run before what it would cost.
CHECKS: tuple[Check, ...] = (
    Check("code", Code.CODE_REFUSED, _code),
    Check("rehearsal", Code.POLICY_REFUSED, _rehearsal),
    Check("test_seed", Code.SEED_REFUSED, _seed),
    Check("modes", Code.POLICY_REFUSED, _mode),
    Check("trusts_server", Code.POLICY_REFUSED, _trusts),
    Check("aggregation", Code.POLICY_REFUSED, _aggregation),
    Check("log", Code.POLICY_REFUSED, _log),
    Check("scores", Code.SCORES_WITHHELD, _scores),
    Check("preprocessing", Code.POLICY_REFUSED, _preprocessing),
    Check("weights", Code.POLICY_REFUSED, _weights),
    Check("min_cohort", Code.POLICY_REFUSED, _cohort),
    Check("colluders", Code.POLICY_REFUSED, _colluders),
    Check("max_clip", Code.POLICY_REFUSED, _clip),
    Check("max_rounds", Code.ROUNDS_REFUSED, _rounds),
    Check("max_rounds_per_day", Code.ROUNDS_REFUSED, _rounds_today),
    Check("batch", Code.POLICY_REFUSED, _batch),
    Check("delta", Code.BUDGET_REFUSED, _delta),
    Check("noise", Code.POLICY_REFUSED, _kind),
    Check("min_noise", Code.POLICY_REFUSED, _noise),
    Check("epsilon", Code.BUDGET_REFUSED, _epsilon),
)
