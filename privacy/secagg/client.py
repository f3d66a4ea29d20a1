"""The silo's side of a session: policy, adverts, pair keys. Its side of a round is in ``client_round.py``.

Every stage is a pure function of what the silo remembers and of one message. It returns the reply and the new state;
write down the new counter and the new state, sync, then send. A stage that raises changed nothing.

A reply can be lost on the way, and the silo killed before it sends. The very same request, byte by byte, gets the very
same reply once more, as long as nothing else was answered since and roster and policy still allow the session. That
tells the server nothing that it could not have: any other request is for the next stage, or refused.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Concatenate, ParamSpec, cast

from quire.privacy.identity.errors import BadSignature as BadIdentitySignature
from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.identity.keys import PrivateIdentity, PublicIdentity, verify
from quire.privacy.secagg import pairs
from quire.privacy.secagg.context import config_hash, session_hash, tag
from quire.privacy.secagg.errors import (
    BadSignature,
    DuplicateKey,
    OwnKeyMissing,
    PairKeyFailure,
    PolicyViolation,
    Replay,
    SecAggError,
    UnknownIdentity,
)
from quire.privacy.secagg.messages import (
    HASH,
    NO_PEER,
    SESSION_ID,
    SIGNATURE,
    Advert,
    Adverts,
    Config,
    Open,
    PairKeys,
    Pairs,
    Ready,
    Refusal,
)
from quire.privacy.secagg.params import Thresholds
from quire.privacy.secagg.policy import Policy
from quire.privacy.secagg.state import KEPT, ClientState, Counter, Stage

_Bound = ParamSpec("_Bound")


@dataclass(frozen=True)
class Step:
    """What a stage leads to.

    Attributes
    ----------
    reply : bytes
        To be sent, once the state is safe.
    state : ClientState
        The state afterwards. ``state.counter`` is what goes into the ledger.
    again : bool
        Whether the same request was answered before: reply and state are those of then, and there is nothing to write.
    """

    reply: bytes
    state: ClientState
    again: bool = False


@dataclass(frozen=True)
class Party:
    """What a silo is, whatever session it is in.

    Attributes
    ----------
    index : int
        Its own roster index.
    identity : PrivateIdentity
    members : mapping of int to PublicIdentity
        Who may take part, by index: the members of the roster whose keys count now.
    roster : bytes
        The 32 bytes of the pinned roster's hash.
    policy : Policy
        With the number of *all* members of that roster.
    random_bytes : callable
        Returns that many uniformly random bytes: ``os.urandom`` in a deployment.
    sealer : callable
        Seals halves of pair keys. HPKE draws its own randomness, so that a test with recorded messages has to put
        recorded ciphertexts in its place.
    """

    index: int
    identity: PrivateIdentity
    members: Mapping[int, PublicIdentity]
    roster: bytes
    policy: Policy
    random_bytes: Callable[[int], bytes] = field(repr=False)
    sealer: pairs.Sealer = field(default=pairs.seal, repr=False)

    def __post_init__(self) -> None:
        """Refuse a policy that counts fewer members than there are, as its thresholds would protect nobody."""
        if len(self.members) > self.policy.members:
            raise ValueError(f"The policy counts {self.policy.members} members of a roster of {len(self.members)}.")

    def limits(self, state: ClientState, cohort: int) -> Thresholds:
        """Return the thresholds that bind a session or cohort of so many members.

        Every stage after the first asks for them, so that a session stops once the silo has another roster, or a
        policy that the session's configuration is not within.

        Raises
        ------
        UnknownIdentity
            If the session is under another roster than the pinned one.
        PolicyViolation, CohortTooSmall
            See :meth:`quire.privacy.secagg.policy.Policy.thresholds`.
        """
        if state.at.roster != self.roster:
            raise UnknownIdentity("The session is under another roster than the one that this silo has pinned.")
        return self.policy.thresholds(state.settings, cohort)

    def sign(self, use: str, part: bytes) -> bytes:
        """Sign with the Ed25519 key, for a use of this protocol."""
        return self.identity.sign_ed25519(tag(use), part)

    def refuse(self, error: SecAggError) -> bytes:
        """Return the message that says why there is no reply: a number, and never a word."""
        return Refusal(self.index, error.number, NO_PEER if error.peer is None else error.peer).encode()


def resending(
    stage: Callable[Concatenate[Party, ClientState, bytes, _Bound], Step],
) -> Callable[Concatenate[Party, ClientState, bytes, _Bound], Step]:
    """Let a stage answer the request that was answered last once more, with the same bytes.

    What makes a request the same is all that the reply is made from: the message, and whatever else the stage is given.
    """

    @functools.wraps(stage)
    def answer(
        party: Party, state: ClientState, message: bytes, /, *bound: _Bound.args, **named: _Bound.kwargs
    ) -> Step:
        parts = cast(tuple[bytes, ...], (*bound, *named.values()))
        asked = tagged_hash(tag("asked"), stage.__name__.encode(), message, *parts)
        if state.reply and state.asked == asked and state.at.roster == party.roster:
            party.policy.check(state.settings)
            return Step(state.reply, state, again=True)
        step = stage(party, state, message, *bound, **named)
        kept = (asked, step.reply) if len(step.reply) <= KEPT else (b"", b"")
        return replace(step, state=replace(step.state, asked=kept[0], reply=kept[1]))

    return answer


@resending
def open_session(party: Party, state: ClientState, message: bytes) -> Step:
    """S0: check the configuration against the policy and advertise a fresh key. What was before is erased.

    Raises
    ------
    MalformedMessage
    PolicyViolation
        If the configuration is outside of the policy, or not the one that the run began with.
    UnknownIdentity
        If the session is for another roster than the pinned one, or the run began under another one.
    Replay
        If the session begins with a round that this silo has opened already, or what it remembers is of another run.
    """
    request = Open.decode(message)
    counter = admitted(party, state, request)
    seed = party.random_bytes(pairs.KEY_SEED)
    advert = Advert(party.index, request.sid, party.roster, config_hash(request.config), pairs.public_key(seed), b"")
    signed = replace(advert, signature=party.identity.sign(tag("advert"), advert.signed_part()))
    return Step(signed.encode(), ClientState(counter.encode(), request.config, key_seed=seed))


def admitted(party: Party, state: ClientState, request: Open) -> Counter:
    """Hold a session that is opened against roster, policy and run; return the counter that it begins with.

    Raises
    ------
    MalformedMessage, PolicyViolation, UnknownIdentity, Replay
        As :func:`open_session`.
    """
    config = Config.decode(request.config)
    if request.roster != party.roster or party.index not in party.members:
        raise UnknownIdentity("The session is for another roster than the one that this silo has pinned.")
    party.policy.check(config)
    before = state.at
    if before.run not in (bytes(SESSION_ID), config.run):
        # To forget the rounds of one run for those of another would open them again once the first comes back.
        raise Replay("The session is of another run than those before it: a silo keeps a counter for each run.")
    if before.roster not in (bytes(HASH), party.roster):
        raise UnknownIdentity("The run began under another roster; with a new one it is a new run.")
    terms = config_hash(replace(config, first_round=0).encode())
    if before.terms not in (bytes(HASH), terms):
        raise PolicyViolation("The run began with another configuration; with a new one it is a new run.")
    if config.first_round <= before.opened:
        raise Replay(f"The session begins with round {config.first_round}, and round {before.opened} has been opened.")
    return Counter(request.sid, before.serial + 1, 0, Stage.ADVERTISED, config.run, before.opened, party.roster, terms)


@resending
def agree(party: Party, state: ClientState, message: bytes) -> Step:
    """S1: check everybody's advert, and seal a half of a key to each.

    Raises
    ------
    StageOrder, Replay, MalformedMessage, DuplicateIdentity
    OwnKeyMissing, UnknownIdentity, BadSignature, DuplicateKey, PolicyViolation, CohortTooSmall
        Whatever is wrong with the adverts, before anything is sealed.
    PairKeyFailure
        Naming the member whose key is none.
    """
    counter = state.expect(Stage.ADVERTISED)
    request = Adverts.decode(message)
    if request.sid != counter.sid:
        raise Replay("These adverts are of another session.")
    config = config_hash(state.config)
    own = request.adverts.get(party.index)
    if own is None or own[0] != pairs.public_key(state.key_seed):
        raise OwnKeyMissing("The adverts do not have this silo's own key.", party.index)
    owners: dict[bytes, int] = {}
    for index, (key, signature) in request.adverts.items():
        if index not in party.members:
            raise UnknownIdentity(f"The roster has no member {index}.", index)
        if key in owners:
            raise DuplicateKey(f"Members {owners[key]} and {index} advertise one key.", index)
        owners[key] = index
        check_advert(party.members[index], Advert(index, counter.sid, party.roster, config, key, signature))
    party.limits(state, len(request.adverts))
    session = session_hash(counter.sid, party.roster, config, {i: key for i, (key, _) in request.adverts.items()})
    halves, ciphertexts = {}, {}
    for index, (key, _) in request.adverts.items():
        if index != party.index:
            half = party.random_bytes(pairs.HALF_SIZE)
            halves[index] = (half,)
            try:
                sealed = party.sealer(half, key, pairs.pair_info(session, party.index, index))
            except PairKeyFailure:
                raise PairKeyFailure(f"What member {index} advertised is no public key.", index) from None
            ciphertexts[index] = (sealed,)
    reply = Pairs(party.index, session, ciphertexts, bytes(SIGNATURE))
    signed = replace(reply, signature=party.sign("pairs", reply.signed_part()))
    after = replace(counter, stage=Stage.PAIRED)
    return Step(signed.encode(), state.advanced(after, session=session, halves=halves))


def check_advert(identity: PublicIdentity, advert: Advert) -> None:
    """Check an advert's signature, with every key that the roster lists for its member.

    Raises
    ------
    BadSignature
    """
    try:
        verify(identity, tag("advert"), (advert.signed_part(),), advert.signature)
    except BadIdentitySignature:
        raise BadSignature(f"The advert of member {advert.index} is not signed by it.", advert.index) from None


@resending
def ready(party: Party, state: ClientState, message: bytes) -> Step:
    """S2: derive the pairs' keys; erase the halves and the private key.

    Raises
    ------
    StageOrder, Replay, MalformedMessage, DuplicateIdentity
    UnknownIdentity
        If there is a ciphertext of someone who did not advertise, or the silo has another roster by now.
    PairKeyFailure
        Naming the member whose half does not open.
    PolicyViolation
        If the configuration is no longer within the policy. This, and the roster, are looked at in every stage.
    CohortTooSmall
        If too few members are left.
    """
    counter = state.expect(Stage.PAIRED)
    request = PairKeys.decode(message)
    if request.session != state.session:
        raise Replay("These ciphertexts are of another session.")
    stranger = next((index for index in request.ciphertexts if index not in state.halves), None)
    if stranger is not None:
        raise UnknownIdentity(f"Member {stranger} did not advertise a key in this session.", stranger)
    party.limits(state, len(request.ciphertexts) + 1)
    sealed = {index: ciphertext for index, (ciphertext,) in request.ciphertexts.items()}
    received = pairs.unseal(sealed, state.key_seed, state.session, party.index)
    keys = {
        index: pairs.root(state.session, (party.index, state.halves[index][0]), (index, half))
        for index, half in received.items()
    }
    checks = {index: (pairs.check_value(state.session, key),) for index, key in keys.items()}
    reply = Ready(party.index, state.session, checks, bytes(SIGNATURE))
    signed = replace(reply, signature=party.sign("ready", reply.signed_part()))
    after = state.advanced(
        replace(counter, stage=Stage.READY),
        members=tuple(sorted([party.index, *keys])),
        keys={index: (key,) for index, key in keys.items()},
        key_seed=b"",
        halves={},
    )
    return Step(signed.encode(), after)
