"""``quire audit``: can anybody tell from what a run would release which canaries were in it, better than it claims?

The mechanism is audited without its sampling (rate 1), where an audit has power, and the claim that is held against it
is that of the same releases at rate 1, by the same accounting; what sampling adds is mathematics, not code that noise
could hide in. ``sampled`` audits the sampling too, and has little power.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from quire.clients.data.silo import Rows
from quire.clients.data.silo_file import SiloFile
from quire.clients.private.plan import Plan, SharedPlan, is_adaptive, plan_of
from quire.clients.tasks import Task
from quire.conf.schema import (
    InlineRuntime,
    NoPrivacy,
    RecordDistributedPrivacy,
    RecordPrivacy,
    Settings,
    SiloDistributedPrivacy,
    SiloPrivacy,
)
from quire.errors import SettingsError
from quire.privacy.dp.audit import gaussian, one_run
from quire.privacy.dp.contract import PrivacyError, Unit
from quire.privacy.dp.spending import Spending
from quire.privacy.randomness import derive_seed
from quire.simulation.audit_findings import Audit, Audited, Finding
from quire.simulation.audit_paths import (
    Canaries,
    through_model,
    through_rows,
    through_silos,
    through_sum,
    through_update,
)
from quire.simulation.audit_shared import (
    through_shared_model,
    through_shared_rows,
    through_shared_silos,
    through_shared_sum,
    through_shared_update,
)
from quire.simulation.silos import local_silos

CONFIDENCE = 0.95
CANARIES = 10_000
FEWEST_CANARIES = 100
MOST_CANARIES = 1_000_000
MOST_RELEASES = 64

_MOST_TRIALS = 1000
_TRIAL_NUMBERS = 20_000_000  # numbers noised in all trials of the run's own model


def audit(
    settings: Settings,
    canaries: int = CANARIES,
    seeds: int = 1,
    releases: int | None = None,
    sampled: bool = False,
    tell: Callable[[str], None] = lambda words: None,
) -> Audit:
    """Put canaries through the code that the settings' run would use, and bound epsilon from below.

    Parameters
    ----------
    settings : Settings
        With privacy and a finite epsilon. Silos of ``data=files`` are those that
        ``QUIRE_SILOS`` names.
    canaries : int
        On each path; 100 to 1,000,000. A tenth of them, and fewer for large models, go through the run's own model.
    seeds : int
        Repetitions with other coins and noise.
    releases : int, optional
        How often the canaries' sum is released. By default half the square of the noise multiplier, which leaves a
        claim of about 3 that both bounds can exceed; at most as often as in the run, and 64 times.
    sampled : bool
        Audit one path only, the rows', over all steps of the run with the run's own sampling rate. Record unit only.
    tell : callable
        Is told in words what is done next.

    Returns
    -------
    Audit

    Raises
    ------
    SettingsError
        If the settings claim nothing that could be audited, or an argument is out of range.
    """
    privacy = settings.privacy
    if isinstance(privacy, NoPrivacy) or math.isinf(privacy.epsilon) or settings.selftest:
        raise SettingsError("There is no claim to audit: take privacy=record or privacy=silo with a finite epsilon.")
    whole = isinstance(privacy, SiloPrivacy | SiloDistributedPrivacy)
    if whole and (sampled or is_adaptive(privacy)):
        what = "--sampled" if sampled else "privacy.clipping=adaptive"
        raise SettingsError(
            f"{what} cannot be audited under privacy={privacy.name}: leave it out to audit a round's noisy sum."
        )
    if not FEWEST_CANARIES <= canaries <= MOST_CANARIES:
        raise SettingsError(
            f"An audit takes at least {FEWEST_CANARIES} canaries and at most {MOST_CANARIES:,}, not {canaries:,}."
        )
    if seeds < 1 or (releases is not None and releases < 1):
        given = f"{seeds}" if releases is None else f"{seeds} and {releases}"
        raise SettingsError(f"An audit takes at least one seed and one release, not {given}.")
    torch.set_num_threads(settings.runtime.threads if isinstance(settings.runtime, InlineRuntime) else 1)
    audited, task, rows = _audited(settings)
    plan, rounds = audited.plan, audited.rounds
    if sampled:
        paths = _sampled(audited, settings, canaries)
    else:
        count = releases or max(1, min(round(plan.noise_multiplier**2 / 2), MOST_RELEASES, rounds * plan.steps))
        trials = max(FEWEST_CANARIES, min(canaries // 10, _MOST_TRIALS, _TRIAL_NUMBERS // audited.dimension))
        paths = _paths(audited, settings, task, rows, canaries, count, trials)
    bounds = seeds * sum(2 if path.normal else 1 for path in paths)
    findings = []
    for seed in range(seeds):
        for path in paths:
            tell(f"{path.name}, seed {seed}")
            findings.append(path.finding(seed, derive_seed(settings.seed, "audit", seed), 1 - _error(bounds)))
    return Audit(audited, CONFIDENCE, tuple(findings))


@dataclass(frozen=True)
class _Path:
    name: str
    plan: Plan
    rounds: int
    scores: Callable[[int], Canaries]
    normal: bool = True

    def finding(self, number: int, seed: int, confidence: float) -> Finding:
        found, delta = self.scores(seed), self.plan.delta
        return Finding(
            self.name,
            number,
            self.rounds * self.plan.steps,
            self.plan.rate,
            found.strength,
            claim(self.plan, self.rounds),
            one_run(found.scores, found.included, delta, confidence),
            gaussian(found.scores, found.included, delta, confidence) if self.normal else None,
        )


def claim(plan: Plan, rounds: int = 1) -> float:
    """Return the epsilon that the accounting gives so many rounds of a plan, at the plan's delta."""
    return Spending.of(plan.released(rounds)).epsilon(plan.delta)


def _paths(
    audited: Audited, settings: Settings, task: Task, rows: Rows, canaries: int, releases: int, trials: int
) -> Sequence[_Path]:
    dimension = audited.dimension
    if isinstance(audited.plan, SharedPlan):
        return _shared_paths(audited.plan, dimension, settings, task, rows, canaries, releases, trials)
    if audited.plan.unit is Unit.SILO:
        plan = audited.plan
        several = replace(plan, steps=releases)
        return (
            _Path("sum", plan, releases, lambda seed: through_sum(several, dimension, canaries, seed)),
            _Path("silos", plan, releases, lambda seed: through_silos(plan, releases, canaries, seed)),
            _Path("update", plan, 1, lambda seed: through_update(settings, task, rows, plan, trials, seed)),
        )
    several = replace(audited.plan, rate=1.0, steps=releases)
    single, method = replace(several, steps=1), _method(settings)
    return (
        _Path("sum", several, 1, lambda seed: through_sum(several, dimension, canaries, seed)),
        _Path("rows", several, 1, lambda seed: through_rows(several, method, canaries, seed)),
        _Path("model", single, 1, lambda seed: through_model(settings, task, rows, single, trials, seed)),
    )


def _shared_paths(
    plan: SharedPlan,
    dimension: int,
    settings: Settings,
    task: Task,
    rows: Rows,
    canaries: int,
    releases: int,
    trials: int,
) -> Sequence[_Path]:
    if plan.unit is Unit.SILO:
        return (
            _Path("silos", plan, releases, lambda seed: through_shared_silos(plan, releases, canaries, seed)),
            _Path("update", plan, 1, lambda seed: through_shared_update(settings, task, rows, plan, trials, seed)),
        )
    certain, method = replace(plan, rate=1.0, noise=replace(plan.noise, sampling_rate=1.0)), _method(settings)
    return (
        _Path("sum", certain, releases, lambda seed: through_shared_sum(certain, releases, dimension, canaries, seed)),
        _Path("rows", certain, releases, lambda seed: through_shared_rows(certain, releases, method, canaries, seed)),
        _Path("model", certain, 1, lambda seed: through_shared_model(settings, task, rows, certain, trials, seed)),
    )


def _sampled(audited: Audited, settings: Settings, canaries: int) -> Sequence[_Path]:
    plan, rounds, method = audited.plan, audited.rounds, _method(settings)
    if isinstance(plan, SharedPlan):
        shared = plan
        return (
            _Path(
                "rows",
                shared,
                rounds,
                lambda seed: through_shared_rows(shared, rounds, method, canaries, seed),
                normal=False,
            ),
        )
    whole = replace(audited.plan, steps=audited.rounds * audited.plan.steps)
    return (_Path("rows", whole, 1, lambda seed: through_rows(whole, _method(settings), canaries, seed), normal=False),)


def _method(settings: Settings) -> str:
    privacy = settings.privacy
    return privacy.gradients if isinstance(privacy, RecordPrivacy | RecordDistributedPrivacy) else "auto"


def _audited(settings: Settings) -> tuple[Audited, Task, Rows]:
    """Return what is audited, the task, and the rows of the silo with the least noise."""
    silos = local_silos(settings)
    task, held = silos.task(settings), silos.data(settings)
    plans = []
    for name, where, silo in zip(silos.names, silos.where, held, strict=True):
        declared = where.operator.population if isinstance(where, SiloFile) else None
        try:
            plans.append(plan_of(settings, declared.records if declared is not None else len(silo.train)))
        except PrivacyError as error:
            raise SettingsError(f"{name} cannot take part: {error}") from error
    place = min(range(len(plans)), key=lambda index: plans[index].noise_multiplier)
    dimension = sum(parameter.numel() for parameter in task.build_model().parameters())
    about = Audited(silos.names[place], plans[place], settings.strategy.rounds, dimension)
    return about, task, held[place].train


def _error(bounds: int) -> float:
    return (1 - CONFIDENCE) / bounds
