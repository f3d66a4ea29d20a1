"""A silo under a charter: which is in force, what it makes of the policy, and what it has against a run.

The silo checks every signature itself, from the hash of version 1 that its operator has pinned, and remembers the
newest version that it has seen, and the newest that it was under: an older one, or another one, is not accepted after
that, were its clock set back. The stricter of charter and policy holds, by :func:`quire.charter.limits.strictest`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from quire.charter.chain import Chain, charter_files, expired, read_chain
from quire.charter.document import Charter
from quire.charter.errors import CharterError
from quire.charter.limits import Budget, Limits, Run, limits_of, objections, strictest
from quire.charter.parts import Member
from quire.clients.answering import Refusal
from quire.clients.contract import Code
from quire.clients.policy.case import Case
from quire.clients.policy.model import OPTIONAL, REQUIRED, CharterPin, Operator, Policy
from quire.clients.private.plan import delta_of
from quire.conf.numbers import colluders_of
from quire.conf.schema import DistributedPrivacy, SecureAggregation
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.identity.canonical import dumps, loads
from quire.privacy.identity.errors import BadEncoding

if TYPE_CHECKING:
    from quire.clients.policy.books import Books
    from quire.clients.store import Position

#: What travels for each thing that a charter has against a run.
CODES = {
    "time": Code.CHARTER_EXPIRED,
    "task": Code.CHARTER_TASK,
    "code": Code.CHARTER_CODE,
    "limits": Code.CHARTER_TERMS,
    "budget": Code.BUDGET_REFUSED,
    "approval": Code.AWAITING_APPROVAL,
}
_MAX_SEEN = 1024


@dataclass(frozen=True)
class Bound:
    """A charter that binds a silo.

    Attributes
    ----------
    chain : Chain
        All versions, checked.
    charter : Charter
        The one in force.
    member : Member
        The silo, as that one has it.
    """

    chain: Chain
    charter: Charter
    member: Member

    @property
    def began(self) -> date:
        """The day (UTC) on which version 1 took force: what was spent since counts."""
        return datetime.fromtimestamp(self.chain.first.not_before, UTC).date()

    @property
    def limits(self) -> Limits:
        """What the charter accepts at this silo."""
        return limits_of(self.charter, self.member, self.chain.first.not_before)


def moment() -> int:
    """Return the time in whole seconds since 1970, UTC: the one by which a charter is in force."""
    return int(time.time())


def bound_by(pin: CharterPin, name: str, now: Callable[[], int] = moment) -> Bound:
    """Return the charter that binds a silo now.

    Parameters
    ----------
    pin : CharterPin
    name : str
        The silo's.
    now : callable
        The clock.

    Raises
    ------
    Refusal
        If it does not hold, is not in force, or has no place for the silo; the words are for its own log.
    """
    seconds = now()
    try:
        chain = _chain(pin.file, _stamps(pin.file), pin.sha256)
    except (CharterError, OSError) as error:
        raise Refusal(Code.CHARTER_REFUSED, _words(error)) from None
    try:
        charter = chain.in_force(seconds)
    except CharterError as error:
        raise Refusal(Code.CHARTER_EXPIRED, _words(error)) from None
    if expired(charter, seconds):
        raise Refusal(Code.CHARTER_EXPIRED, f"{charter.label}, has expired: have the members sign an amendment")
    member = charter.member(name)
    if member is None:
        raise Refusal(Code.CHARTER_REFUSED, f"{charter.label}, has no member '{name}'")
    if member.residency != pin.residency:
        raise Refusal(
            Code.CHARTER_REFUSED,
            f"{charter.label}, has the records of {name} in {member.residency or 'no place'}, and silo.yaml in "
            f"{pin.residency or 'no place'}: one of the two is wrong (charter: residency)",
        )
    return Bound(chain, charter, member)


def under_charter(operator: Operator, name: str) -> tuple[Operator, Bound | None]:
    """Return what an operator lays down, as strict as the charter has it, and the charter; as it is without one.

    Raises
    ------
    Refusal
        As :func:`bound_by`.
    """
    if operator.charter is None or operator.policy is None:
        return operator, None
    bound = bound_by(operator.charter, name)
    return replace(operator, policy=effective(operator.policy, bound)), bound


def limits_of_policy(policy: Policy) -> Limits:
    """Return what of a policy a charter may speak of too. Its own budget stays with the ledger."""
    return Limits(
        privacy=policy.modes,
        aggregation=policy.aggregation,
        code=policy.code or None,
        min_cohort=policy.min_cohort,
        colluders=policy.colluders,
        deltas=policy.delta,
        approval=policy.approval,
    )


def effective(policy: Policy, bound: Bound) -> Policy:
    """Return a policy made as strict as a charter, in what the silo works with: cohort, colluders, approval, log.

    Modes and budgets are held against each of the two by itself, so that a refusal says whose it is.
    """
    both = strictest(limits_of_policy(policy), bound.limits)
    demand = bound.charter.attestation
    log = REQUIRED if demand is not None and demand.server and policy.log == OPTIONAL else policy.log
    stricter = {"min_cohort": both.min_cohort, "colluders": both.colluders, "approval": both.approval, "log": log}
    changed = {key: value for key, value in stricter.items() if value != getattr(policy, key)}
    return replace(policy, **changed, charter=tuple((key, bound.charter.label) for key in changed))  # type: ignore[arg-type]


def run_of(case: Case, now: int) -> Run:
    """Return what a run asks for and promises, as this silo reckons it."""
    settings, state = case.settings, case.state
    colluders = None
    if isinstance(settings.aggregation, SecureAggregation) and isinstance(settings.privacy, DistributedPrivacy):
        members = settings.partition.silos if state.members is None else state.members
        colluders = colluders_of(settings.aggregation, members)
    return Run(
        task=settings.task.name,
        privacy=settings.privacy.name,
        aggregation=settings.aggregation.seen,
        code=None if state.simulated else state.code,
        cohort=case.cohort,
        colluders=colluders,
        delta=delta_of(settings.privacy, case.policy.population.records) if case.private else None,
        epsilon=lambda budget: _epsilon(case, budget),
        approved=True,  # that is asked for when all else is in order, see `quire.clients.policy.approval`
        now=now,
    )


def hold_to_charter(bound: Bound, case: Case, now: Callable[[], int] = moment) -> None:
    """Hold a run against a charter.

    Raises
    ------
    Refusal
        If the run is under another one, or the charter does not admit it; the words are for the silo's own log.
    """
    charter, told = bound.charter, case.settings.charter
    if told != charter.hash:
        raise Refusal(
            Code.ANOTHER_CHARTER,
            f"{charter.label}, is in force here ({charter.hash[:16]}), and the run is under "
            f"{'none' if told is None else told[:16]}: submit it with charter={charter.hash}",
        )
    against = objections(bound.limits, run_of(case, now()))
    if against:
        raise Refusal(CODES[against[0].what], f"{charter.label}: {against[0].words}")


def hold_to_memory(bound: Bound, books: Books) -> None:
    """See to it that the charter is no older one than the silo has seen or was under, nor another; remember both.

    The books reckon from then on what was spent since the charter took force.

    Both versions are counted where the rounds are (the newest seen as the round, the one in force as the attempt), so
    that a memory that was taken away is missed; see :mod:`quire.clients.store.counters`.

    Raises
    ------
    Refusal
        If it is, or the silo's own key is not the one that the charter has for it.
    StoreError
        If the memory cannot be read or written.
    """
    from quire.clients.store import Position

    chain, name = bound.chain, bound.chain.first.hash[:32]
    if why := another_key(bound, books.signer.public.fingerprint):
        raise Refusal(Code.CHARTER_REFUSED, why)
    books.charter_began = bound.began
    session, place = session_of(chain), f"charter/{name}"
    counted, kept = books.store.counters.last(session), books.store.state.get(place)
    version, digest = _seen(kept)
    if counted is not None and counted.round > version:
        raise Refusal(Code.CHARTER_REFUSED, f"the store has lost which version {counted.round} of the charter it saw")
    if version and not chain.holds(version, digest):
        raise Refusal(
            Code.CHARTER_REFUSED,
            f"this silo has seen version {version} of the charter {chain.first.charter_id} ({digest[:16]}), and what "
            f"it finds now, up to version {chain.last.version}, lacks it: an older one was put back, or another",
        )
    if why := replaced(chain, bound.charter, counted):
        raise Refusal(Code.CHARTER_REFUSED, why)
    if chain.last.version > version:
        books.store.state.put(place, dumps({"version": chain.last.version, "hash": chain.last.hash}))
    reached = Position(session, chain.last.version, bound.charter.version)
    if counted is None or counted < reached:
        books.store.advance(reached, books.today)


def session_of(chain: Chain) -> str:
    """Return under which name a store's counters have the versions of a charter."""
    return f"charter.{chain.first.hash[:32]}"


def replaced(chain: Chain, charter: Charter, counted: Position | None) -> str | None:
    """Say what a store's counter has against a charter's being in force; None if nothing.

    Parameters
    ----------
    chain : Chain
    charter : Charter
        The version that is in force by the clock.
    counted : Position or None
        Where the counter of :func:`session_of` stands.
    """
    if counted is None:
        return None
    if counted.round > chain.last.version:
        return f"this silo has seen version {counted.round} of the charter, and finds none after {chain.last.version}"
    if counted.attempt > charter.version:
        return (
            f"this silo has been under version {counted.attempt} of the charter, and by its clock version "
            f"{charter.version} is in force: the clock was set back"
        )
    return None


def another_key(bound: Bound, own: str) -> str | None:
    """Say so if a silo's own key, by its fingerprint, is not the one that the charter has for it; None if it is."""
    if own == bound.member.identity.fingerprint:
        return None
    return (
        f"{bound.charter.label}, has {bound.member.name} under the key {bound.member.identity.fingerprint[:16]}, "
        f"and this silo's is {own[:16]}"
    )


def look_back(store: Path, chain: Chain, charter: Charter) -> str | None:
    """Say what the store as it lies there has against a charter's being in force, without opening or changing it.

    Only the numbers of versions are compared; that a version is the very one that was seen, and that the store itself
    is not an old copy, :func:`hold_to_memory` and the store check when a message comes.

    Raises
    ------
    StoreError
        If the counters cannot be read.
    """
    from quire.clients.store.counters import Counters

    file = store / "counters.jsonl"
    return replaced(chain, charter, Counters(file).last(session_of(chain))) if file.exists() else None


def _seen(kept: bytes | None) -> tuple[int, str]:
    if kept is None:
        return 0, ""
    try:
        found = loads(kept, _MAX_SEEN)
        return int(found["version"]), str(found["hash"])
    except (BadEncoding, KeyError, TypeError, ValueError):
        raise Refusal(Code.CHARTER_REFUSED, "what the store says of the charter is not what was written") from None


def _epsilon(case: Case, budget: Budget) -> float:
    """Return what the records will have spent under the charter after the run, at the delta of a budget."""
    from quire.clients.policy.cost import epsilon_after
    from quire.privacy.dp.spending import Spending

    if case.settings.selftest:  # which reads no row
        return 0.0
    spent = Spending.zero() if case.state.simulated else case.state.chartered
    if not case.private or case.seeded or spent is None:
        return float("inf")
    try:
        return epsilon_after(spent, case.plan, case.rounds_due, budget.delta)
    except PrivacyError:
        return float("inf")


def _stamps(path: Path) -> tuple[tuple[str, int, int], ...]:
    found = [(file, file.stat()) for file in charter_files(path)]
    return tuple((file.name, status.st_size, status.st_mtime_ns) for file, status in found)


@lru_cache(maxsize=64)
def _chain(path: Path, stamps: tuple[tuple[str, int, int], ...], root: str) -> Chain:
    """Read and check a charter; neither again unless a file has changed."""
    return read_chain(path, root)


def _words(error: Exception) -> str:
    return str(error).rstrip(".")
