"""The silo's side of a round: deal shares, mask, confirm the survivors, give up shares. Each at most once.

One attempt leads to one of two ends: this silo gives up shares for one signed set of survivors, or it starts another
attempt and has forgotten this one. The same request gets the same reply once more, see ``client.py``; only a masked
vector is too large to be kept for that, and a silo whose vector was lost has dropped out of the attempt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from quire.privacy.dp.wire import pack
from quire.privacy.identity.errors import BadSignature as BadIdentitySignature
from quire.privacy.identity.keys import verify_ed25519
from quire.privacy.secagg import masks, pairs, shamir
from quire.privacy.secagg.client import Party, Step, resending
from quire.privacy.secagg.context import (
    edge_commitment,
    members_hash,
    round_context,
    secret_commitment,
    share_hasher,
    survivor_parts,
    tag,
)
from quire.privacy.secagg.errors import (
    BadCohort,
    BadSurvivorSignature,
    BadU3,
    BadVector,
    MalformedShare,
    NoQuorum,
    NotInU3,
    Replay,
    StageOrder,
    TooFewClients,
    TooFewSurvivors,
    UnknownIdentity,
)
from quire.privacy.secagg.messages import (
    SALT,
    SIGNATURE,
    ConfirmRequest,
    Masked,
    MaskRequest,
    Shares,
    Start,
    Survivors,
    Unmasked,
    UnmaskRequest,
)
from quire.privacy.secagg.params import Thresholds
from quire.privacy.secagg.state import ClientState, Stage, position


@resending
def start(party: Party, state: ClientState, message: bytes, model: bytes, log_root: bytes) -> Step:
    """X1: begin an attempt. Deals shares of two fresh secrets and commits to every mask seed.

    Whatever attempt was under way is erased, and can never be unmasked by this silo.

    Parameters
    ----------
    party : Party
    state : ClientState
    message : bytes
        A ``Start``.
    model : bytes
        32 bytes: the hash, computed here, of the model that this silo trains from.
    log_root : bytes
        32 bytes: the root of the log as this silo knows it.

    Raises
    ------
    MalformedMessage, SessionExpired, BadCohort, CohortTooSmall, PolicyViolation
    StageOrder
        If the session is not ready.
    Replay
        If it is of another session, or this round or attempt is over.
    UnknownIdentity
        If the cohort has a member that this silo shares no key with, or whose signature does not count any more.
    """
    request, here, limits = begun(party, state, message)
    steps = here - state.moved
    keys = {index: pairs.ratchet(key, steps) for index, (key,) in state.keys.items()}
    context = round_context(state.session, request.round, request.attempt, request.cohort, model, log_root)
    others = [index for index in request.cohort if index != party.index]
    seeds = {index: pairs.attempt_seeds(keys[index], context) for index in others}
    self_seed, seal_key, salt = (party.random_bytes(size) for size in (32, 32, SALT))
    dealt_self = shamir.share(self_seed, request.cohort, limits.threshold, party.random_bytes)
    dealt_seal = shamir.share(seal_key, request.cohort, limits.threshold, party.random_bytes)
    dealt = dict(zip(request.cohort, zip(dealt_self, dealt_seal, strict=True), strict=True))
    hash_self, hash_seal = (share_hasher(use, context, party.index) for use in ("self", "seal"))
    reply = Shares(
        index=party.index,
        context=context,
        salt=salt,
        peers={
            index: (
                pairs.seal_shares(seeds[index][1], party.index, index, salt, context, b"".join(dealt[index])),
                edge_commitment(context, party.index, index, seeds[index][0]),
            )
            for index in others
        },
        hashes={index: (hash_self(index, one), hash_seal(index, other)) for index, (one, other) in dealt.items()},
        sealed=pairs.seal_list(seal_key, party.index, context, [seeds[index][0] for index in others]),
        self_commitment=secret_commitment("self", context, party.index, self_seed),
        seal_commitment=secret_commitment("seal", context, party.index, seal_key),
        signature=bytes(SIGNATURE),
    )
    signed = replace(reply, signature=party.sign("shares", reply.signed_part()))
    after = state.without_attempt().advanced(
        replace(state.at, position=here, stage=Stage.SHARED),
        # Moved beyond this attempt at once: what is stored from here on does not open it.
        keys={index: (pairs.ratchet(key, 1),) for index, key in keys.items()},
        moved=here + 1,
        round=request.round,
        context=context,
        cohort=request.cohort,
        self_seed=self_seed,
        seeds=seeds,
        shares={party.index: dealt[party.index]},
    )
    return Step(signed.encode(), after)


def begun(party: Party, state: ClientState, message: bytes) -> tuple[Start, int, Thresholds]:
    """Read what begins an attempt, with its position in the session, and the thresholds that bind it.

    Raises
    ------
    MalformedMessage, SessionExpired, BadCohort, CohortTooSmall, PolicyViolation, StageOrder, Replay, UnknownIdentity
        As :func:`start`.
    """
    counter = state.at
    if counter.stage < Stage.READY:
        raise StageOrder("A round needs a session whose keys are agreed.")
    request = Start.decode(message)
    if request.session != state.session:
        raise Replay("This round is of another session.")
    here = position(state.settings, request.round, request.attempt)
    if here <= counter.position or request.round <= counter.opened:
        raise Replay(f"Attempt {request.attempt} of round {request.round} is over.")
    _check_cohort(party, state, request.cohort)
    limits = party.limits(state, len(request.cohort))
    return request, here, limits


def _check_cohort(party: Party, state: ClientState, cohort: tuple[int, ...]) -> None:
    if party.index not in cohort:
        raise BadCohort("The cohort does not have the silo that it was sent to.", party.index)
    for index in cohort:
        if index not in state.members:
            raise UnknownIdentity(f"The session has no member {index}.", index)
        if index not in party.members:
            raise UnknownIdentity(f"The signature of member {index} does not count any more.", index)


def _limits(party: Party, state: ClientState) -> Thresholds:
    return party.limits(state, len(state.cohort))


def mask(party: Party, state: ClientState, message: bytes, vector: Callable[[], masks.Words]) -> Step:
    """X2: check the shares that this silo was dealt, then mask its vector.

    Parameters
    ----------
    party : Party
    state : ClientState
    message : bytes
        A ``MaskRequest``.
    vector : callable
        Returns the words to be summed, modulo 2**32, with their noise if there is any. It is called once, after all
        checks: the place to charge the ledger and to draw fresh noise. The array is not changed.

    Raises
    ------
    MalformedMessage, StageOrder, Replay, BadCohort, PolicyViolation
    TooFewClients
        If U2 is too small for a sum that may ever be opened.
    BadShareCiphertext, MalformedShare
        Naming the dealer.
    BadVector
        If the vector has not the agreed length.
    """
    request = MaskRequest.decode(message)
    counter = state.expect(Stage.SHARED, request.context)
    members = request.members
    check_dealers(party, state, members)
    others = [index for index in members if index != party.index]
    if list(request.shares) != others:
        raise BadCohort("The shares are not those of the other members of U2.")
    held = {**state.shares, **{dealer: _opened(party, state, dealer, request) for dealer in others}}

    words = vector()
    settings = state.settings
    if words.dtype != np.uint32 or words.shape != (settings.length,):
        raise BadVector(f"The vector to be masked does not have {settings.length} words of 32 bits.")
    masked = words.copy()
    masks.add_masks(
        masked,
        [state.self_seed, *(state.seeds[index][0] for index in others if index > party.index)],
        [state.seeds[index][0] for index in others if index < party.index],
    )
    packed = pack(masked, settings.bits)
    digest = hashlib.sha256(packed).digest()
    reply = Masked(party.index, state.context, members_hash(members), digest, bytes(SIGNATURE), packed)
    signed = replace(reply, signature=party.sign("masked", reply.signed_part()))
    after = state.advanced(
        replace(counter, stage=Stage.MASKED),
        u2=members,
        shares=held,
        self_seed=b"",
        seeds={},
        asked=b"",
        reply=b"",
    )
    return Step(signed.encode(), after)


def check_dealers(party: Party, state: ClientState, members: tuple[int, ...]) -> None:
    """Hold U2 against the cohort and the thresholds.

    Raises
    ------
    BadCohort, TooFewClients, PolicyViolation
    """
    limits = _limits(party, state)
    if not set(members) <= set(state.cohort) or party.index not in members:
        raise BadCohort("U2 is not a part of the cohort that the reader belongs to.")
    if len(members) < limits.min_survivors:
        raise TooFewClients(f"U2 has {len(members)} members, and {limits.min_survivors} have to survive.")


def _opened(party: Party, state: ClientState, dealer: int, request: MaskRequest) -> tuple[bytes, bytes]:
    """Return the two shares of one dealer, held against what it committed to, so that nobody blames the holder."""
    salt, ciphertext, *hashes = request.shares[dealer]
    key = state.seeds[dealer][1]
    opened = pairs.open_shares(key, dealer, party.index, salt, state.context, ciphertext)
    shares = tuple(shamir.checked(item, dealer) for item in (opened[: shamir.SHARE_SIZE], opened[shamir.SHARE_SIZE :]))
    for use, share, expected in zip(("self", "seal"), shares, hashes, strict=True):
        if share_hasher(use, state.context, dealer)(party.index, share) != expected:
            raise MalformedShare(f"Member {dealer} dealt another share than it committed to.", dealer)
    return shares[0], shares[1]


@resending
def confirm(party: Party, state: ClientState, message: bytes) -> Step:
    """X3: sign the set of survivors. Once: a second set of the same attempt gets no answer.

    Raises
    ------
    MalformedMessage, StageOrder, Replay, PolicyViolation
    BadU3
        If the survivors are not distinct members of U2.
    NotInU3
        If this silo is not among them, although it sent its vector.
    TooFewSurvivors
        If there are fewer than the thresholds ask for.
    """
    request = ConfirmRequest.decode(message)
    counter = state.expect(Stage.MASKED, request.context)
    survivors = request.survivors
    check_survivors(party, state, survivors)
    signature = party.identity.sign_ed25519(tag("survivors"), *survivor_parts(state.context, state.u2, survivors))
    after = state.advanced(replace(counter, stage=Stage.CONFIRMED), u3=survivors)
    return Step(Survivors(party.index, state.context, signature).encode(), after)


def check_survivors(party: Party, state: ClientState, survivors: tuple[int, ...]) -> None:
    """Hold U3 against U2 and the thresholds.

    Raises
    ------
    BadU3, NotInU3, TooFewSurvivors, PolicyViolation
    """
    if not set(survivors) <= set(state.u2):
        raise BadU3("The survivors are not members of U2.")
    least = _limits(party, state).min_survivors
    if len(survivors) < least:
        raise TooFewSurvivors(f"There are {len(survivors)} survivors, and {least} are needed.")
    if party.index not in survivors:
        raise NotInU3("The survivors do not include this silo, which sent its vector.", party.index)


@resending
def unmask(party: Party, state: ClientState, message: bytes) -> Step:
    """X4: given a quorum for one set of survivors, give up shares. Ends the round for this silo.

    Raises
    ------
    MalformedMessage, StageOrder, Replay, PolicyViolation
    BadSurvivorSignature
        Naming the first member whose signature is not one over this attempt's U2 and U3.
    UnknownIdentity
        Naming a member whose signature does not count any more.
    NoQuorum
        If fewer than the threshold signed.
    """
    request = UnmaskRequest.decode(message)
    counter = state.expect(Stage.CONFIRMED, request.context)
    check_confirmations(party, state, request.confirmations)
    survivors = {index: (state.shares[index][0],) for index in state.u3}
    dropped = {index: (state.shares[index][1],) for index in state.u2 if index not in survivors}
    reply = Unmasked(party.index, state.context, survivors, dropped, bytes(SIGNATURE))
    signed = replace(reply, signature=party.sign("unmasked", reply.signed_part()))
    after = state.without_attempt().advanced(replace(counter, stage=Stage.UNMASKED, opened=state.round))
    return Step(signed.encode(), after)


def check_confirmations(party: Party, state: ClientState, confirmations: Mapping[int, tuple[bytes]]) -> None:
    """Check that a quorum of survivors signed the set that this silo signed."""
    parts = survivor_parts(state.context, state.u2, state.u3)
    for index, (signature,) in confirmations.items():
        if index not in state.u3:
            raise BadSurvivorSignature(f"Member {index} is not among the survivors.", index)
        if index not in party.members:
            raise UnknownIdentity(f"The signature of member {index} does not count any more.", index)
        try:
            verify_ed25519(party.members[index], tag("survivors"), parts, signature)
        except BadIdentitySignature:
            raise BadSurvivorSignature(f"Member {index} did not sign these survivors.", index) from None
    threshold = _limits(party, state).threshold
    if len(confirmations) < threshold:
        raise NoQuorum(f"{len(confirmations)} members signed these survivors, and {threshold} have to.")
