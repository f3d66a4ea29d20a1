"""The strictest of several limits, and what there is against a run: pure functions over what parties lay down.

Limits are a meet-semilattice. :func:`strictest` is its meet: commutative, associative, idempotent, with
:data:`ANYTHING` as the neutral element, so that no order in which charter and policy are taken matters, and an absent
charter changes nothing. A run that is accepted under the strictest of two is accepted under each, and the reverse:
every limit is a set to be in or a bound to keep, and those of both are kept. Budgets are not merged into one, for the
smaller epsilon at the smaller delta would refuse what both parties accept: each of them has to hold.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import reduce

from quire.charter.document import Charter
from quire.charter.parts import Member

#: None: no limit.
Names = frozenset[str] | None


@dataclass(frozen=True)
class Budget:
    """The most that records may spend.

    Attributes
    ----------
    epsilon, delta : float
    since : int or None
        What was spent from this time on counts, in seconds since 1970 UTC; None: as whoever reckons has it.
    """

    epsilon: float
    delta: float
    since: int | None = None


@dataclass(frozen=True)
class Limits:
    """What one party, or several together, accept.

    Attributes
    ----------
    tasks, privacy, aggregation, code : frozenset of str or None
        Which are accepted; None: any.
    min_cohort : int
        Fewest silos whose updates are merged.
    colluders : int
        How many of them may side with the server.
    budgets : frozenset of Budget
        All of which have to hold.
    deltas : float
        The largest delta that a run may aim at.
    approval : bool
        Whether each run needs the silo's approval.
    begins, ends : int or None
        The first and the last second in which anything is accepted; None: always.
    """

    tasks: Names = None
    privacy: Names = None
    aggregation: Names = None
    code: Names = None
    min_cohort: int = 2
    colluders: int = 0
    budgets: frozenset[Budget] = frozenset()
    deltas: float = 1.0
    approval: bool = False
    begins: int | None = None
    ends: int | None = None


#: What accepts every run in which anything could be merged at all.
ANYTHING = Limits()


@dataclass(frozen=True)
class Run:
    """What a run asks for and promises.

    Attributes
    ----------
    task, privacy, aggregation : str
    code : str or None
        Hash of its sources; None: nothing leaves this machine, and whose code it is does not matter.
    cohort : int
        Fewest silos that an update may be merged with.
    colluders : int or None
        How many that leave out theirs its noise is planned for; None where the silos share no noise.
    delta : float or None
        What it aims at; None without privacy.
    epsilon : callable
        What the records will have spent after it, at the delta of a budget and since its beginning: infinite without
        privacy, and never less for a smaller delta.
    approved : bool
    now : int
        Seconds since 1970 UTC.
    """

    task: str
    privacy: str
    aggregation: str
    code: str | None
    cohort: int
    colluders: int | None
    delta: float | None
    epsilon: Callable[[Budget], float]
    approved: bool
    now: int


@dataclass(frozen=True)
class Against:
    """One thing against a run.

    Attributes
    ----------
    what : {"time", "task", "code", "limits", "budget", "approval"}
    words : str
        For the operator.
    """

    what: str
    words: str


def strictest(*every: Limits) -> Limits:
    """Return the strictest of several limits; of none, :data:`ANYTHING`."""
    return reduce(_meet, every, ANYTHING)


def _meet(one: Limits, other: Limits) -> Limits:
    return Limits(
        tasks=_both(one.tasks, other.tasks),
        privacy=_both(one.privacy, other.privacy),
        aggregation=_both(one.aggregation, other.aggregation),
        code=_both(one.code, other.code),
        min_cohort=max(one.min_cohort, other.min_cohort),
        colluders=max(one.colluders, other.colluders),
        budgets=one.budgets | other.budgets,
        deltas=min(one.deltas, other.deltas),
        approval=one.approval or other.approval,
        begins=max((time for time in (one.begins, other.begins) if time is not None), default=None),
        ends=min((time for time in (one.ends, other.ends) if time is not None), default=None),
    )


def _both(one: Names, other: Names) -> Names:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def limits_of(charter: Charter, member: Member, begun: int) -> Limits:
    """Return what a charter accepts at the silo of one of its members.

    Parameters
    ----------
    charter : Charter
    member : Member
    begun : int
        When version 1 took force: what was spent since counts, whatever version is in force now.
    """
    capped = member.epsilon is not None and member.delta is not None
    return Limits(
        tasks=charter.tasks,
        privacy=charter.privacy,
        aggregation=charter.aggregation,
        code=None if charter.code is None else frozenset(release.sources for release in charter.code),
        min_cohort=charter.min_cohort,
        colluders=charter.colluders,
        budgets=frozenset({Budget(member.epsilon, member.delta, begun)})  # type: ignore[arg-type]
        if capped
        else frozenset(),
        deltas=1.0 if member.delta is None else member.delta,
        approval=charter.approval == "each_run",
        begins=charter.not_before,
        ends=charter.not_after,
    )


def objections(limits: Limits, run: Run) -> tuple[Against, ...]:
    """Return all there is against a run; nothing if it is accepted.

    Parameters
    ----------
    limits : Limits
    run : Run

    Returns
    -------
    tuple of Against
        In the order in which they are asked: time, what is run, how it is protected, what it costs.

    Notes
    -----
    Monotone: stricter limits, and a run that asks for more, never make one of them disappear.
    """
    found = [
        _time(limits, run),
        _named("task", "task", limits.tasks, run.task),
        None if run.code is None else _code(limits.code, run.code),
        _named("limits", "privacy", limits.privacy, run.privacy),
        _named("limits", "aggregation", limits.aggregation, run.aggregation),
        _cohort(limits, run),
        _colluders(limits, run),
        _delta(limits, run),
        *(_budget(budget, run) for budget in sorted(limits.budgets, key=_by_size)),
        Against("approval", "this run needs the approval of the silo first") if _unapproved(limits, run) else None,
    ]
    return tuple(one for one in found if one is not None)


def accepts(limits: Limits, run: Run) -> bool:
    """Tell whether there is nothing against a run."""
    return not objections(limits, run)


def _time(limits: Limits, run: Run) -> Against | None:
    if limits.begins is not None and run.now < limits.begins:
        return Against("time", "it is not in force yet")
    if limits.ends is not None and run.now > limits.ends:
        return Against("time", "it has expired")
    return None


def _named(what: str, group: str, allowed: Collection[str] | None, asked: str) -> Against | None:
    if allowed is None or asked in allowed:
        return None
    choice = f"choose {group}={' or '.join(sorted(allowed))}" if allowed else "nothing else is accepted by all either"
    return Against(what, f"{group}={asked} is not admitted: {choice}")


def _code(allowed: Collection[str] | None, asked: str) -> Against | None:
    if allowed is None or asked in allowed:
        return None
    return Against("code", f"the code {asked[:12] or 'that runs'} is none that is admitted")


def _cohort(limits: Limits, run: Run) -> Against | None:
    if run.cohort >= limits.min_cohort:
        return None
    return Against(
        "limits",
        f"an update could be merged among {run.cohort} silos, and at least {limits.min_cohort} are asked for: set "
        f"strategy.min_silos={limits.min_cohort} or more",
    )


def _colluders(limits: Limits, run: Run) -> Against | None:
    if run.colluders is not None and run.colluders < limits.colluders:
        return Against(
            "limits",
            f"the noise is planned for {run.colluders} that leave theirs out, and {limits.colluders} are to be "
            f"tolerated: set aggregation.colluders={limits.colluders}",
        )
    if run.cohort - limits.colluders < 2:
        return Against(
            "limits", f"{limits.colluders} colluders among {run.cohort} silos would leave fewer than two honest ones"
        )
    return None


def _delta(limits: Limits, run: Run) -> Against | None:
    if run.delta is None or run.delta <= limits.deltas:
        return None
    return Against("budget", f"the run aims at delta {run.delta:g}, and at most {limits.deltas:g} is admitted")


def _budget(budget: Budget, run: Run) -> Against | None:
    after = run.epsilon(budget)
    if after <= budget.epsilon:
        return None
    return Against(
        "budget",
        f"the records may spend epsilon {budget.epsilon:g} at delta {budget.delta:g}, and this run would make it "
        f"{after:.3g}",
    )


def _unapproved(limits: Limits, run: Run) -> bool:
    return limits.approval and not run.approved


def _by_size(budget: Budget) -> tuple[float, float, int]:
    return budget.epsilon, budget.delta, -1 if budget.since is None else budget.since
