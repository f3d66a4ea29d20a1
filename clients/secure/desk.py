"""A silo at one stage of secure aggregation: who it is, what it remembers, and its books, open for that long."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from flwr.app import ConfigRecord, Context, Message

from quire.clients import contract
from quire.clients.answering import Refusal
from quire.clients.contract import Code
from quire.clients.entropy import Entropy
from quire.clients.member import Member
from quire.clients.policy.attested import hold_to_server
from quire.clients.policy.books import Books, now
from quire.clients.policy.membership import roster_of
from quire.clients.receipts import Stand
from quire.clients.secure.memory import InContext, InStore, Memory
from quire.clients.secure.shown import check_pinned, log_of
from quire.clients.secure.terms import Terms, terms_of
from quire.conf.schema import SecureAggregation, Settings
from quire.privacy.csprng import Csprng
from quire.privacy.identity.keys import PublicIdentity
from quire.privacy.identity.roster import Roster
from quire.privacy.receipts import simulated_identity, simulated_roster
from quire.privacy.secagg.client import Party
from quire.privacy.secagg.groups import group_of
from quire.privacy.secagg.policy import Policy
from quire.privacy.secagg.state import ClientState

_NAMES = "secure-names"
_MOST_NAMES = 2048


@dataclass(frozen=True)
class Desk:
    """Where one message is answered.

    Attributes
    ----------
    party : Party
    memory : Memory
    terms : Terms
        What was agreed, as this silo works it out.
    state : ClientState
        What it remembers of the session.
    """

    party: Party
    memory: Memory
    terms: Terms
    state: ClientState
    _member: Member
    _settings: Settings
    _code: str
    _books: Books | None

    def admit(self, round_number: int, attempt: int) -> Stand | None:
        """Begin to train for a round: hold it against the policy, count it, charge for it; no data is touched before.

        Raises
        ------
        Refusal
            By the policy.
        StoreError
            By the books: the round is over, or the charge does not fit.
        """
        if self._books is None or self._member.policy is None:
            return None  # a simulated silo: nothing leaves this machine, see `desk`
        self._member.hold(self._settings, self._books.state(contract.TRAIN, self._code, round_number))
        return self._books.enter(contract.TRAIN, self._settings, self._code, round_number, attempt - 1)


@contextmanager
def desk(
    settings: Settings,
    secure: SecureAggregation,
    member: Member,
    stage: str,
    message: Message,
    context: Context,
    code: str,
) -> Iterator[Desk]:
    """Open what the silo needs to answer a stage.

    Parameters
    ----------
    settings : Settings
    secure : SecureAggregation
        Of the settings.
    member : Member
    stage : str
        What the handler does, by the contract's name: never by the message's own.
    message : flwr.app.Message
    context : flwr.app.Context
    code : str
        Hash of the code that runs here.

    Raises
    ------
    Refusal
        If the silo does not take part.
    """
    draw = _draws(member.entropy(settings), stage, message, member.name)
    with member.books(settings, stage, code, context.run_id) as books:
        if books is None and not member.simulated:
            raise Refusal(Code.BOOKS_UNUSABLE, "a real silo takes part with books that decide and charge, or not")
        if books is None:
            roster = _simulated_roster(settings.seed, _names(stage, message, context))
            index, members = _place(roster, member.name, None)
            identity = simulated_identity(settings.seed, member.name)
            memory: Memory = InContext(context.state)
        else:
            if member.operator is None or (pinned := roster_of(member.operator)) is None:
                raise Refusal(
                    Code.ROSTER_REFUSED,
                    "secure aggregation is with members that the silo knows: pin a roster in silo.yaml ('roster')",
                )
            roster = pinned
            index, members = _place(roster, member.name, now())
            identity, memory = books.signer, InStore(books.store, context.run_id, books.today)
        state = memory.load()
        log = log_of(stage, protocol_message(message), state)
        if stage == contract.OPEN or state.config:  # who knows no session says that, and is given a new one
            check_pinned(member, log)
            if books is not None:
                hold_to_server(member.bound, roster, None if log is None else log.key)
        group = 0
        if secure.groups is not None:
            group, members = _group(roster, secure.groups, index, members)
        terms = terms_of(settings, secure, len(roster.members), log, group)
        party = Party(index, identity, members, bytes.fromhex(roster.hash), _limits(member, terms), draw)
        yield Desk(party, memory, terms, state, member, settings, code, books)


def _group(
    roster: Roster, groups: int, index: int, members: Mapping[int, PublicIdentity]
) -> tuple[int, Mapping[int, PublicIdentity]]:
    """Return in which group this silo is summed, by the roster alone, and with whom: all others are strangers to it."""
    group = group_of([member.index for member in roster.members], groups, index)
    return group.number, {other: members[other] for other in group.members if other in members}


def _limits(member: Member, terms: Terms) -> Policy:
    """Return the stricter of what was agreed and what the operator lays down."""
    own = member.policy
    return Policy(
        members=terms.members,
        min_cohort=own.min_cohort if own is not None else 2,
        colluders=max(terms.colluders, own.colluders) if own is not None else terms.colluders,
        application=terms.application,
        min_survivors=own.min_cohort if own is not None else 0,
        max_rounds=terms.rekey_every,
        max_attempts=terms.attempts,
    )


def _draws(entropy: Entropy, stage: str, message: Message, name: str) -> Callable[[int], bytes]:
    """Return what the silo draws secrets from: the operating system, or in a simulation a stream for this message."""
    digest = hashlib.sha256(protocol_message(message)).hexdigest()
    return Csprng(entropy.key("secure", stage, digest, name)).bytes


def protocol_message(message: Message) -> bytes:
    """Return what the protocol reads of a message; nothing where there is none."""
    record = message.content.get(contract.PROTOCOL)
    data = record.get(contract.MESSAGE) if isinstance(record, ConfigRecord) else None
    return data if isinstance(data, bytes) else b""


def _names(stage: str, message: Message, context: Context) -> tuple[str, ...]:
    """Return the silos of a simulation, as the server told when the session was opened; a real silo asks nobody."""
    told = message.content.get(contract.CONFIG)
    if stage == contract.OPEN and isinstance(told, ConfigRecord):
        context.state[_NAMES] = ConfigRecord({contract.ROSTER: told.get(contract.ROSTER, [])})
    kept = context.state.get(_NAMES)
    names = kept.get(contract.ROSTER) if isinstance(kept, ConfigRecord) else None
    if not isinstance(names, list) or not 0 < len(names) <= _MOST_NAMES or not all(isinstance(n, str) for n in names):
        raise Refusal(Code.BAD_REQUEST)
    return tuple(str(name) for name in names)


@lru_cache(maxsize=4)
def _simulated_roster(seed: int, names: tuple[str, ...]) -> Roster:
    return simulated_roster(seed, names)


def _place(roster: Roster, name: str, moment: int | None) -> tuple[int, Mapping[int, PublicIdentity]]:
    """Return the silo's own index, and the members whose signatures count now."""
    members = roster.members if moment is None else roster.active(moment)
    own = next((member.index for member in members if member.name == name), None)
    if own is None:
        raise Refusal(Code.ROSTER_REFUSED, f"the roster {roster.roster_id} has no member '{name}'")
    return own, {member.index: member.identity for member in members}
