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

from quire.clients import contract
from quire.clients.answering import Refusal
from quire.clients.contract import Code
from quire.clients.identity import load_identity, read_key_file
from quire.clients.identity.passphrase import from_variable
from quire.clients.policy.case import State
from quire.clients.policy.membership import not_a_member, roster_of
from quire.clients.policy.model import NONE, Operator, Policy
from quire.clients.private.plan import delta_of, plan_of
from quire.clients.receipts import Stand
from quire.clients.store.errors import BudgetExceeded, Replay, RolledBack
from quire.clients.store.files import is_unused
from quire.errors import QuireError
from quire.privacy.receipts import NOMINAL_DELTA, settings_hash

if TYPE_CHECKING:
    from quire.clients.store import Charge, Store
    from quire.conf.schema import Settings
    from quire.privacy.approval import Statement
    from quire.privacy.dp.spending import Spending
    from quire.privacy.identity.keys import PrivateIdentity

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
    members : int or None
        How many the pinned roster lists; None where none is pinned.
    roster : str or None
        The hash (hex) of the pinned roster; None where none is pinned.

    Attributes
    ----------
    store, signer, roster
    approval : Statement or None
        Of the operator's approval of the run, where the policy demands one.
    charter_began : datetime.date or None
        When the charter took force that caps what the records spend (UTC).
    today : datetime.date
        UTC.
    """

    def __init__(
        self,
        store: Store,
        policy: Policy,
        run: int,
        signer: PrivateIdentity,
        members: int | None = None,
        roster: str | None = None,
    ) -> None:
        self.store, self.signer, self.today, self.roster = store, signer, today(), roster
        self.approval: Statement | None = None
        self.charter_began: date | None = None
        self._policy, self._session, self._members = policy, f"run-{run}", members

    def bind(self, settings: Settings) -> None:
        """Hold a run to the settings under which it was first answered, whatever the stage.

        A server could otherwise ask for an update in clear, or under other privacy, in the middle of a run that began
        under masks.

        Raises
        ------
        Refusal
            If the run began with others.
        StoreError
            If it cannot be written.
        """
        told, name = settings_hash(settings.as_dict()).encode(), f"runs/{self._session}"
        known = self.store.state.get(name)
        if known is None:
            self.store.state.put(name, told)
        elif known != told:
            raise Refusal(Code.SETTINGS_REFUSED, "the run began with other settings; with these it is a new run")

    def state(self, stage: str, code: str, again: int = 0) -> State:
        """Return what the silo knows when it decides.

        Parameters
        ----------
        stage : str
        code : str
        again : int
            The round that is to be trained, which may be under way already: then it does not count as another.
        """
        counters = self.store.counters
        last = counters.last(self._session)
        under_way = int(last is not None and last.round == again > 0)
        return State(
            stage=stage,
            code=code,
            spent=self.spent(),
            rounds_run=counters.rounds(self._session) - under_way,
            rounds_today=max(0, counters.rounds_on(self.today) - under_way),
            members=self._members,
            begun=counters.rounds(self._session) > 0,
            chartered=None if self.charter_began is None else self.spent(self.charter_began),
        )

    def spent(self, first: date | None = None) -> Spending:
        """Return what the records of the population have spent since a day; without one, in the current period."""
        from quire.clients.store import Unit

        ledger = self.store.ledger(self._policy.population.name)
        return ledger.spent(Unit.RECORD, since(self._policy, self.today) if first is None else first)

    def enter(self, stage: str, settings: Settings, code: str, round_number: int, again: int = 0) -> Stand | None:
        """Count a round and charge for what is about to leave, before any data is touched.

        Without privacy, the first thing of a population that leaves on a day (UTC) charges everything. Nothing that
        follows could add to that; a day later it is charged again, so that the ledger names every such day and the
        operator's period counts from the last one. So is noise that a seed decides, over somebody's records.

        Parameters
        ----------
        stage : str
        settings : Settings
        code : str
        round_number : int
        again : int
            Tells attempts of a round apart that each train anew; one that was entered is not entered again.

        Returns
        -------
        Stand or None
            Where the books stand now; None if nothing was charged.

        Raises
        ------
        ValueError
            If the stage is none of the contract's.
        Replay
            If the silo has answered this round before.
        BudgetExceeded
            If the charge does not fit; then nothing leaves.
        StoreError
            If it cannot be written.
        """
        from quire.clients.store import Position

        if stage not in contract.STAGES:
            raise ValueError(f"'{stage}' is no stage that could be charged for")
        training = stage == contract.TRAIN
        charges = self._charges(settings, training)
        if not training and not charges:
            return None
        if training:
            position = Position(self._session, round_number, stage=again)
        else:  # charged once a day, and no round of its own: another day is another attempt
            position = Position(f"{self._session}.{stage}", round_number, self.today.toordinal())
        self.store.advance(position, self.today)
        if not charges:
            return None
        from quire.clients.store import Budget, Unit

        policy = self._policy
        ledger = self.store.ledger(policy.population.name)
        charged = ledger.charge(
            charges,
            Budget(policy.epsilon, policy.delta) if policy.capped else None,
            position,
            code=code,
            settings=hashlib.sha256(settings.overrides.encode()).hexdigest(),
            since=since(policy, self.today),
        )
        # Of this run alone: what the silo's records spent elsewhere is nobody else's business.
        delta = delta_of(settings.privacy, policy.population.records) or NOMINAL_DELTA
        spent = ledger.spent_in(self._session, Unit.RECORD).epsilon(delta)
        return Stand(self.signer, policy.population.name, charged.count, charged.head, spent, delta)

    def _charges(self, settings: Settings, training: bool) -> list[Charge]:
        from quire.clients.store import Charge, Unit
        from quire.privacy.dp.events import NonPrivate

        if settings.privacy.name == NONE:
            known = self.store.ledger(self._policy.population.name).unprotected(Unit.RECORD, self.today)
            return [] if known else [Charge(Unit.RECORD, NonPrivate())]
        if not training:
            return []  # under privacy nothing else leaves: see the checks on scores and preprocessing
        if settings.selftest:
            return []  # no row is read: see `quire.clients.client_app`
        if self._policy.seeded:
            return [Charge(Unit.RECORD, NonPrivate())]
        policy = self._policy
        plan = plan_of(settings, policy.population.records, members=self._members, colluders=policy.colluders)
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

    roster = roster_of(operator)
    try:
        words = from_variable(PASSPHRASE_VARIABLE) if PASSPHRASE_VARIABLE in os.environ else None
        signer = load_identity(operator.identity, words)
        if roster is not None and (why := not_a_member(roster, name, signer.public.fingerprint, now())):
            raise Refusal(Code.ROSTER_REFUSED, why)
        with Store.open(operator.store, signer, witness=operator.witness) as store:
            pinned = (None, None) if roster is None else (len(roster.members), roster.hash)
            yield Books(store, policy, run, signer, *pinned)
    except BudgetExceeded as error:
        raise Refusal(Code.BUDGET_REFUSED, _words(error)) from None
    except Replay as error:
        raise Refusal(Code.REPLAY_REFUSED, _words(error)) from None
    except QuireError as error:  # of the store, or of the key that its ledger is signed with
        raise Refusal(Code.BOOKS_UNUSABLE, _words(error)) from None


def look(operator: Operator, policy: Policy, first: date | None = None) -> Spending:
    """Return what the population has spent, from the books as they lie there: for a person who asks beforehand.

    Parameters
    ----------
    operator : Operator
    policy : Policy
    first : datetime.date, optional
        Since which day; without one, in the policy's current period.

    Raises
    ------
    StoreError
        If they are not such as a run would go on with: damaged, missing, older than the witness has seen, or another
        identity's.
    QuireError
        If the silo's key file is no such file.
    """
    from quire.clients.store import Spending, Unit
    from quire.clients.store.inspection import Inspection

    if is_unused(operator.store):
        if operator.witness is not None and operator.witness.exists():
            raise RolledBack(
                f"The witness {operator.witness} has seen a store, and {operator.store} holds none: put back the "
                "newest copy, or override with `quire ledger reset`."
            )
        return Spending.zero()  # no run has come so far
    own = read_key_file(operator.identity).fingerprint if operator.identity.exists() else None
    inspection, population = Inspection(operator.store, operator.witness, own), policy.population.name
    if population not in inspection.populations():
        return Spending.zero()
    return inspection.books(population).spent(Unit.RECORD, since(policy, today()) if first is None else first)


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
