"""The silo's own books behind a decision: which rounds it has trained, and what its population has spent.

Everything is written and on the disk before any data is touched: a silo that is killed has charged for something it
did not send, and never sent something that it did not charge for. A round that ends in an error stays charged.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from quire.clients import contract
from quire.clients.answering import Refusal
from quire.clients.contract import Code
from quire.clients.identity import IdentityFileError, load_identity, load_roster
from quire.clients.identity.passphrase import from_variable
from quire.clients.policy.case import State
from quire.clients.policy.model import NONE, Operator, Policy
from quire.clients.private.plan import plan_of
from quire.clients.receipts import Stand
from quire.clients.store.errors import BudgetExceeded, Replay
from quire.errors import QuireError
from quire.privacy.receipts import NOMINAL_DELTA

if TYPE_CHECKING:
    from quire.clients.store import Charge, Store
    from quire.conf.schema import Settings
    from quire.privacy.dp.spending import Spending
    from quire.privacy.identity.keys import PrivateIdentity, PublicIdentity
    from quire.privacy.identity.roster import Roster

#: In the environment of a SuperNode whose key file is encrypted: its passphrase.
PASSPHRASE_VARIABLE = "QUIRE_PASSPHRASE"


class Books:
    """The books of one run, open and locked while a message is decided on.

    Parameters
    ----------
    store : Store
        The silo's.
    policy : Policy
    run : int
        Flower's number of the run.
    signer : PrivateIdentity
        The silo's own.
    """

    def __init__(self, store: Store, policy: Policy, run: int, signer: PrivateIdentity) -> None:
        self._store, self._policy, self._session, self._signer = store, policy, f"run-{run}", signer
        self._today = today()

    def state(self, stage: str, code: str) -> State:
        """Return what the silo knows when it decides."""
        counters = self._store.counters
        return State(
            stage=stage,
            code=code,
            spent=self.spent(),
            rounds_run=counters.rounds(self._session),
            rounds_today=counters.rounds_on(self._today),
        )

    def spent(self) -> Spending:
        """Return what the records of the population have spent in the current period."""
        from quire.clients.store import Unit

        ledger = self._store.ledger(self._policy.population.name)
        return ledger.spent(Unit.RECORD, since(self._policy, self._today))

    def enter(self, stage: str, settings: Settings, code: str, round_number: int) -> Stand | None:
        """Count a round and charge for what is about to leave, before any data is touched.

        Without privacy, the first thing of a population that leaves in the clear charges everything, and nothing
        that follows could add to it.

        Returns
        -------
        Stand or None
            Where the books stand now; None if nothing was charged.

        Raises
        ------
        Replay
            If the silo has answered this round before.
        BudgetExceeded
            If the charge does not fit; then nothing leaves.
        StoreError
            If it cannot be written.
        """
        from quire.clients.store import Position

        training = stage == contract.TRAIN
        charges = self._charges(settings, training)
        if not training and not charges:
            return None
        position = Position(self._session if training else f"{self._session}.{stage}", round_number)
        self._store.advance(position, self._today)
        if not charges:
            return None
        from quire.clients.store import Budget, Unit

        policy = self._policy
        ledger = self._store.ledger(policy.population.name)
        charged = ledger.charge(
            charges,
            Budget(policy.epsilon, policy.delta) if policy.capped else None,
            position,
            code=code,
            settings=hashlib.sha256(settings.overrides.encode()).hexdigest(),
            since=since(policy, self._today),
        )
        delta = policy.delta if 0.0 < policy.delta < 1.0 else NOMINAL_DELTA
        spent = ledger.spent(Unit.RECORD).epsilon(delta)
        return Stand(self._signer, policy.population.name, charged.count, charged.head, spent, delta)

    def _charges(self, settings: Settings, training: bool) -> list[Charge]:
        from quire.clients.store import Charge, Unit
        from quire.privacy.dp.events import NonPrivate

        if settings.privacy.name == NONE:
            return [] if np.isinf(self.spent().rdp).all() else [Charge(Unit.RECORD, NonPrivate())]
        if not training:
            return []  # under privacy nothing else leaves: see the checks on scores and preprocessing
        plan = plan_of(settings, self._policy.population.records)
        charges = [Charge(Unit.RECORD, plan.charged(1))]
        return charges if plan.unit is Unit.RECORD else [*charges, Charge(plan.unit, plan.released(1))]


@contextmanager
def opened(operator: Operator, policy: Policy, run: int, name: str) -> Iterator[Books]:
    """Open the silo's books, or make them on first use.

    Parameters
    ----------
    operator : Operator
    policy : Policy
    run : int
        Flower's number of the run.
    name : str
        The silo's, under which it has to be a member of the pinned roster.

    Raises
    ------
    Refusal
        If they cannot be used, or refuse themselves; the words are for the silo's own log.
    """
    from quire.clients.store import Store

    roster = _roster(operator)
    try:
        words = from_variable(PASSPHRASE_VARIABLE) if PASSPHRASE_VARIABLE in os.environ else None
        signer = load_identity(operator.identity, words)
        if roster is not None and (words := not_a_member(roster, name, signer.public, now())):
            raise Refusal(Code.ROSTER_REFUSED, words)
        with Store.open(operator.store, signer, witness=operator.witness) as store:
            yield Books(store, policy, run, signer)
    except BudgetExceeded as error:
        raise Refusal(Code.BUDGET_REFUSED, _words(error)) from None
    except Replay as error:
        raise Refusal(Code.REPLAY_REFUSED, _words(error)) from None
    except QuireError as error:  # of the store, or of the key that its ledger is signed with
        raise Refusal(Code.BOOKS_UNUSABLE, _words(error)) from None


def _roster(operator: Operator) -> Roster | None:
    if operator.roster is None:
        return None
    try:
        return load_roster(operator.roster.file, operator.roster.sha256)
    except IdentityFileError as error:
        raise Refusal(Code.ROSTER_REFUSED, _words(error)) from None


def not_a_member(roster: Roster, name: str, public: PublicIdentity, moment: int) -> str | None:
    """Say, in words, why a silo is no member of a roster: under that name, with that key, at that moment.

    Parameters
    ----------
    roster : Roster
        The pinned one.
    name : str
        The silo's.
    public : PublicIdentity
        The silo's own key: what it signs would verify for nobody if the roster had another one.
    moment : int
        Seconds since 1970, UTC.

    Returns
    -------
    str or None
        None if it is one.
    """
    which = f"the pinned roster {roster.roster_id} (version {roster.version})"
    member = next((one for one in roster.members if one.name == name), None)
    if member is None:
        return f"{which} has no member '{name}': have the silo added, or set 'name' in silo.yaml to the name it has there"
    if member.identity != public:
        return (
            f"{which} has {name} under the key {member.identity.fingerprint[:16]}, and this silo has "
            f"{public.fingerprint[:16]}: name the key file that is in the roster, or have the roster changed"
        )
    if not member.active(moment):
        return f"{which} has {name} as a member at other times than now: pin a version in which it is one"
    return None


def look(operator: Operator, policy: Policy) -> Spending:
    """Return what the population has spent, from the books as they lie there: for a person who asks beforehand.

    Raises
    ------
    StoreError
        If the ledger is damaged.
    """
    from quire.clients.store import Spending, Unit
    from quire.clients.store.heads import NO_HEAD
    from quire.clients.store.scan import read_ledger
    from quire.clients.store.store import ledger_place, read_about

    about = read_about(operator.store) if operator.store.is_dir() else None
    if about is None:  # no run has come this far
        return Spending.zero()
    place = ledger_place(operator.store, about, policy.population.name)
    return read_ledger(place, NO_HEAD).sums.spent(Unit.RECORD, since(policy, today()))


def now() -> int:
    """Return the time in whole seconds since 1970, UTC: the one by which memberships count."""
    return int(datetime.now(UTC).timestamp())


def today() -> date:
    """Return the day, in UTC: the one by which rounds and periods count."""
    return datetime.now(UTC).date()


def since(policy: Policy, day: date) -> date | None:
    """Return the first day of the period that ends on a day, or None if spending counts for good."""
    return None if policy.period_days is None else day - timedelta(days=policy.period_days - 1)


def _words(error: QuireError) -> str:
    return str(error).rstrip(".")
