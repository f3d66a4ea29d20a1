"""A human's say about each run: where the policy has ``approval: true``, nothing is answered before it.

What the policy refuses is never put before a person: a run is noted once it has passed every other check. A decision is
bound to the run's number, the code, the settings and the pinned roster (:class:`quire.privacy.approval.Binding`); with
any other of these it is another run, which waits for a decision of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flwr.app import ConfigRecord, Message, RecordDict

from quire.clients import contract
from quire.clients.answering import LOG, Refusal
from quire.clients.contract import Code
from quire.clients.policy.case import Case, State
from quire.clients.policy.model import Policy
from quire.clients.private.plan import delta_of
from quire.conf.schema import NoPrivacy, SecureAggregation, Settings
from quire.privacy.approval import APPROVED, Binding, Statement
from quire.privacy.receipts import UNBOUND, settings_hash

if TYPE_CHECKING:
    from quire.clients.policy.books import Books


class NotApproved(Refusal):
    """The operator has not approved this run, or has rejected it.

    Parameters
    ----------
    code : Code
    words : str
        For the silo's own log.
    silo : str
    statement : Statement or None
        Of the rejection; None while there is no decision.
    """

    def __init__(self, code: Code, words: str, silo: str, statement: Statement | None = None) -> None:
        super().__init__(code, words)
        self.silo, self.statement = silo, statement


def require_approval(books: Books, policy: Policy, settings: Settings, state: State, run: int, silo: str) -> Statement:
    """Return the operator's approval of a run; note that it was asked for, durably, if it is new.

    Parameters
    ----------
    books : Books
        Open and locked.
    policy : Policy
    settings : Settings
    state : State
        What the silo knows, on which the policy has decided.
    run : int
        Flower's number of the run.
    silo : str
        The silo's name.

    Raises
    ------
    NotApproved
        If there is no decision, or a rejection.
    StoreError
        If the book of decisions cannot be used.
    """
    from quire.clients.store.decision_book import Request
    from quire.clients.store.decisions import Decisions, TooManyPending

    binding = Binding(str(run), state.code, settings_hash(settings.as_dict()), books.roster)
    request = Request(silo, binding, settings.overrides, ())
    place = policy.place("approval")
    try:
        matter = Decisions(books.store, books.signer).ask(request, lambda: terms(policy, settings, state))
    except TooManyPending as error:
        raise NotApproved(Code.AWAITING_APPROVAL, f"{place} is true, and {str(error).rstrip('.')}", silo) from None
    if matter.last is None:
        words = (
            f"{place} is true, and run {run} ({request.what[:12]}) has not been approved: see `quire approve --list`"
        )
        raise NotApproved(Code.AWAITING_APPROVAL, words, silo)
    if matter.last.decision != APPROVED:
        words = f"{matter.last.by} rejected run {run} ({request.what[:12]}) on {matter.last.at:%Y-%m-%d %H:%M} UTC"
        raise NotApproved(Code.REJECTED, words, silo, matter.last.statement)
    return matter.last.statement


def withheld(message: Message, why: NotApproved, code_hash: str) -> Message:
    """Answer the question who the silo is, so that the server can say by name whom it waits for; and nothing else."""
    LOG.error("%s answered with %s: %s.", message.metadata.message_type, why.code.name, why.words)
    told = ConfigRecord({contract.SILO: why.silo, contract.CODE_HASH: code_hash})
    told[contract.CONTRACT], told[contract.WITHHELD] = contract.VERSION, int(why.code)
    if why.statement is not None:
        told[contract.APPROVAL] = why.statement.encode()
    return Message(RecordDict({contract.IDENTITY: told}), reply_to=message)


def terms(policy: Policy, settings: Settings, state: State) -> list[tuple[str, str]]:
    """Say what a run would do, in words for who has to decide: title and text."""
    from quire.clients.policy.words import lines_of_run

    asks = {line.name: line.asks for line in lines_of_run(Case(policy, settings, state))}
    strategy, task = settings.strategy, settings.task
    merged = "the server sees this silo's update by itself"
    if isinstance(settings.aggregation, SecureAggregation):
        groups = settings.aggregation.groups
        merged = f"the server learns the sums of {groups} groups alone" if groups else "the server learns the sum alone"
    return [
        ("learns", f"task {task.name}, model {task.model}, from {policy.population.name}"),
        ("privacy", _promise(policy, settings)),
        ("costs", f"epsilon {asks['epsilon']}"),
        ("aggregation", f"{settings.aggregation.name}: {merged}"),
        ("rounds", f"{strategy.rounds}, by strategy {strategy.name}"),
        ("cohort", f"at least {asks['min_cohort']}, of {settings.partition.silos}"),
        ("preprocessing", asks["preprocessing"]),
        ("scores", asks["scores"]),
    ]


def is_bound(key: str) -> bool:
    """Tell whether an approval binds the setting of this name."""
    return key.split(".")[0] not in UNBOUND


def _promise(policy: Policy, settings: Settings) -> str:
    if isinstance(settings.privacy, NoPrivacy):
        return "none: nothing bounds what updates tell of single records"
    delta = delta_of(settings.privacy, policy.population.records)
    return f"{settings.privacy.name}: epsilon {settings.privacy.epsilon:g} at delta {delta:g} over the whole run"
