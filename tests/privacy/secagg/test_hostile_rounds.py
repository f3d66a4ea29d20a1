"""A server that lies in a round: every attack ends in the error that names it, and nothing leaves the victim."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from secagg_network import MODEL, ROSTER, Network, at, config, lenient, made, refuses, source

from quire.privacy.secagg import errors as e
from quire.privacy.secagg.client import Party
from quire.privacy.secagg.context import GENESIS, indices, tag
from quire.privacy.secagg.masks import add_masks
from quire.privacy.secagg.messages import (
    Adverts,
    Config,
    ConfirmRequest,
    MaskRequest,
    Shares,
    Start,
    Survivors,
    UnmaskRequest,
)
from quire.privacy.secagg.server_round import ServerRound
from quire.privacy.secagg.server_session import ServerSession
from quire.privacy.secagg.state import load


def test_replayed_rounds_and_attempts():
    network = made()
    network.aggregate(network.round(2))
    victim, session = network.nodes[0], network.session.session
    for number, attempt in ((2, 1), (1, 1), (1, 3), (2, 2), (2, 3)):
        refuses(victim, "start", Start(session, number, attempt, tuple(range(5))).encode(), e.Replay)
    refuses(victim, "start", Start(bytes(32), 3, 1, tuple(range(5))).encode(), e.Replay)
    for number, attempt in ((51, 1), (3, 4), (0, 1), (3, 0)):
        refuses(victim, "start", Start(session, number, attempt, tuple(range(5))).encode(), e.SessionExpired)


@pytest.mark.parametrize(
    ("cohort", "error"),
    [
        ((1, 2, 3, 4), e.BadCohort),
        ((0, 1, 2, 3, 9), e.UnknownIdentity),
        ((0, 2, 1, 3), e.BadCohort),
        ((0, 1, 1, 2), e.BadCohort),
    ],
)
def test_cohorts_that_are_none(cohort, error):
    network = made()
    message = Start(network.session.session, 1, 1, cohort).encode()
    refuses(network.nodes[0], "start", message, error)


def test_stages_out_of_order():
    network = made()
    victim = network.nodes[0]
    one = network.round()
    context = one.context
    mask_now = MaskRequest(context, (), {}).encode()
    confirm_now = ConfirmRequest(context, (0, 1, 2, 3, 4)).encode()
    unmask_now = UnmaskRequest(context, {}).encode()
    for stage, message in (("mask", mask_now), ("confirm", confirm_now), ("unmask", unmask_now)):
        refuses(victim, stage, message, e.StageOrder)
    masks = network.until("mask", one)
    for stage, message in (("confirm", confirm_now), ("unmask", unmask_now)):
        refuses(victim, stage, message, e.StageOrder)
    network.exchange(one, "mask", masks)
    refuses(victim, "mask", masks[0], e.StageOrder)  # a second mask request
    confirms = dict.fromkeys(range(5), one.close_masked())
    network.exchange(one, "confirm", confirms)
    refuses(victim, "confirm", ConfirmRequest(context, (0, 1, 2, 3)).encode(), e.StageOrder)  # a second U3
    unmask = one.close_survivors()
    network.exchange(one, "unmask", dict.fromkeys(range(5), unmask))
    refuses(victim, "unmask", unmask_now, e.StageOrder)  # another one: the same is answered alike, see test_resending
    fresh = Network(5).nodes[0]
    refuses(fresh, "start", one.start(), e.StageOrder)
    refuses(fresh, "agree", Adverts(bytes(16), {}).encode(), e.StageOrder)


def test_messages_of_another_attempt():
    network, old, messages = at("mask")
    one = network.round(1, 2)
    network.exchange(one, "start", dict.fromkeys(one.cohort, one.start()))
    refuses(network.nodes[0], "mask", messages[0], e.Replay)
    confirm = ConfirmRequest(old.context, old.u2).encode()
    network.exchange(one, "mask", {i: one.mask_request(i) for i in one.close_shares()})
    refuses(network.nodes[0], "confirm", confirm, e.Replay)
    network.exchange(one, "confirm", dict.fromkeys(one.u2, one.close_masked()))
    refuses(network.nodes[0], "unmask", UnmaskRequest(old.context, {}).encode(), e.Replay)


def test_bad_sets_u2():
    network, _, messages = at("mask")
    victim = network.nodes[0]
    request = MaskRequest.decode(messages[0])
    few = {i: row for i, row in request.shares.items() if i in (1, 2)}
    refuses(victim, "mask", replace(request, members=(0, 1, 2), shares=few).encode(), e.TooFewClients)
    refuses(victim, "mask", replace(request, members=(1, 2, 3, 4)).encode(), e.BadCohort)
    refuses(victim, "mask", replace(request, members=(0, 1, 2, 3, 9)).encode(), e.BadCohort)
    refuses(victim, "mask", replace(request, members=(0, 1, 2, 3)).encode(), e.BadCohort)
    refuses(victim, "mask", replace(request, members=(0, 1, 2, 3, 3)).encode(), e.BadCohort)
    refuses(victim, "mask", replace(request, shares=few).encode(), e.BadCohort)


@pytest.mark.parametrize("column", [0, 1])
def test_a_tampered_share(column):
    network, _, messages = at("mask")
    request = MaskRequest.decode(messages[0])
    row = list(request.shares[3])
    row[column] = bytes([row[column][0] ^ 1]) + row[column][1:]
    tampered = replace(request, shares={**request.shares, 3: tuple(row)})
    refuses(network.nodes[0], "mask", tampered.encode(), e.BadShareCiphertext, 3)


def test_shares_of_two_dealers_exchanged():
    network, _, messages = at("mask")
    request = MaskRequest.decode(messages[0])
    swapped = {**request.shares, 1: request.shares[2], 2: request.shares[1]}
    refuses(network.nodes[0], "mask", replace(request, shares=swapped).encode(), e.BadShareCiphertext, 1)


def test_a_share_that_is_not_the_one_committed_to():
    network, _, messages = at("mask")
    request = MaskRequest.decode(messages[0])
    row = (*request.shares[3][:3], bytes(16))
    refuses(network.nodes[0], "mask", replace(request, shares={**request.shares, 3: row}).encode(), e.MalformedShare, 3)


@pytest.mark.parametrize(
    ("survivors", "error"),
    [
        ((0,), e.TooFewSurvivors),
        ((0, 1, 2), e.TooFewSurvivors),
        ((0, 0, 0, 0, 1), e.BadU3),
        ((1, 0, 2, 3), e.BadU3),
        ((0, 1, 2, 3, 9), e.BadU3),
        ((1, 2, 3, 4), e.NotInU3),
        ((), e.TooFewSurvivors),
    ],
)
def test_sets_of_survivors_that_are_none(survivors, error):
    network, one, messages = at("confirm")
    refuses(network.nodes[0], "confirm", ConfirmRequest(one.context, survivors).encode(), error)
    network.exchange(one, "confirm", messages)


def test_survivors_outside_of_u2():
    network = made(6)
    one = network.round()
    network.meddle = lambda stage, way, i, data: None if stage == "start" and i == 5 else data
    network.until("confirm", one)
    refuses(network.nodes[0], "confirm", ConfirmRequest(one.context, (0, 1, 2, 3, 4, 5)).encode(), e.BadU3)


def confirmations(network, one, split):
    """Have some members confirm one set of survivors and some another; return the signatures of both."""
    found = []
    for who, survivors in split:
        message = ConfirmRequest(one.context, survivors).encode()
        found.append({i: (Survivors.decode(network.nodes[i].do("confirm", message)).confirmation,) for i in who})
    return found


def test_two_sets_of_survivors_for_two_halves():
    network, one, _ = at("confirm", 10)  # c = 3, t = 7
    network.exchange(one, "mask", {})
    everyone, without = tuple(range(10)), tuple(range(9))
    first, second = confirmations(network, one, [(range(5), everyone), (range(5, 9), without)])
    victim = network.nodes[0]
    refuses(victim, "unmask", UnmaskRequest(one.context, first).encode(), e.NoQuorum)
    mixed = UnmaskRequest(one.context, {**first, **second}).encode()
    refuses(victim, "unmask", mixed, e.BadSurvivorSignature, 5)
    refuses(network.nodes[5], "unmask", mixed, e.BadSurvivorSignature, 0)
    refuses(network.nodes[5], "unmask", UnmaskRequest(one.context, second).encode(), e.NoQuorum)


@pytest.mark.parametrize("split", range(1, 7))
def test_colluders_who_sign_both_sets_help_one_half_at_most(split):
    """n = 10 with c = 3 colluders who sign whatever is asked: never do both halves of the honest find a quorum."""
    network, one, _ = at("confirm", 10)
    honest = range(7)
    sets = (tuple(range(10)), tuple(i for i in range(10) if i != 9))
    halves = (honest[:split], honest[split:])
    signed = confirmations(network, one, list(zip(halves, sets, strict=True)))
    opened = 0
    for half, survivors, signatures in zip(halves, sets, signed, strict=True):
        parts = (one.context, indices(one.u2), indices(survivors))
        forged = {
            i: (network.identities[i].sign_ed25519(tag("survivors"), *parts),) for i in (7, 8, 9) if i in survivors
        }
        message = UnmaskRequest(one.context, {**signatures, **forged}).encode()
        for index in half:
            if len(signatures) + len(forged) >= 7:
                network.nodes[index].do("unmask", message)
                opened += 1
            else:
                refuses(network.nodes[index], "unmask", message, e.NoQuorum)
    assert opened in (0, split, 7 - split)


def test_signatures_of_an_earlier_attempt_or_of_nobody():
    network, old, messages = at("unmask")
    stale = UnmaskRequest.decode(messages[0]).confirmations
    one = network.round(1, 2)
    network.until("unmask", one)
    victim = network.nodes[0]
    refuses(victim, "unmask", UnmaskRequest(one.context, stale).encode(), e.BadSurvivorSignature, 0)
    good = UnmaskRequest.decode(one_message(one)).confirmations
    refuses(victim, "unmask", UnmaskRequest(one.context, {**good, 9: good[1]}).encode(), e.BadSurvivorSignature, 9)
    swapped = {**good, 1: good[2]}
    refuses(victim, "unmask", UnmaskRequest(one.context, swapped).encode(), e.BadSurvivorSignature, 1)
    few = {i: good[i] for i in (0, 1, 2)}
    refuses(victim, "unmask", UnmaskRequest(one.context, few).encode(), e.NoQuorum)
    assert old.context != one.context


def one_message(one):
    return UnmaskRequest(one.context, {i: (s,) for i, s in one._confirmations.items()}).encode()


@pytest.mark.parametrize("what", ["model", "log", "round", "attempt", "cohort"])
def test_one_silo_in_another_context_opens_nothing_when_the_server_goes_on_all_the_same(what):
    """A server that hides the difference from its own checks fails at the peers: shares do not open."""
    network = made()
    victim = network.nodes[2]
    if what == "model":
        victim.model = hashlib.sha256(b"crafted").digest()
    if what == "log":
        victim.log_root = hashlib.sha256(b"a view of its own").digest()
    one = network.round()
    start = Start.decode(one.start())
    wrong = {
        "round": replace(start, round=2),
        "attempt": replace(start, attempt=2),
        "cohort": replace(start, cohort=(0, 1, 2, 3)),
    }
    network.exchange(one, "start", dict.fromkeys((0, 1, 3, 4), one.start()))
    reply = Shares.decode(victim.do("start", wrong.get(what, start).encode()))
    one._shares[2] = reply  # past the checks of an honest server
    one.u2 = (0, 1, 2, 3, 4)
    for peer in (0, 1, 3):
        refuses(network.nodes[peer], "mask", one.mask_request(peer), e.BadShareCiphertext, 2)
    if what == "cohort":
        refuses(victim, "mask", replace_context(one.mask_request(2), reply.context), e.BadCohort)
    else:
        refuses(victim, "mask", replace_context(one.mask_request(2), reply.context), e.BadShareCiphertext, 0)


def replace_context(data, context):
    return replace(MaskRequest.decode(data), context=context).encode()


def test_a_sum_over_different_models_is_noise_even_if_every_check_is_switched_off():
    """The victim's masks cancel with nobody's: what comes out is uniform, and independent of every input."""
    length = 40_000
    network = Network(4, config(length, 1))
    network.agree()
    network.nodes[3].model = hashlib.sha256(b"crafted").digest()
    states = {}
    one = network.round()
    for i, node in network.nodes.items():
        node.do("start", one.start())
        states[i] = load(node.state, node.counter)
    total = np.zeros(length, dtype=np.uint32)
    for i, node in network.nodes.items():
        seeds = states[i].seeds
        vector = node.vector.copy()
        add_masks(vector, [seeds[j][0] for j in seeds if j > i], [seeds[j][0] for j in seeds if j < i])
        total += vector  # self masks taken off already: the most a lying server can have
    counts = np.bincount(total >> np.uint32(24), minlength=256)
    chi = ((counts - length / 256) ** 2 / (length / 256)).sum()
    assert 150 < chi < 380  # 255 degrees of freedom, about 5 standard deviations


def test_a_server_of_two_minds_about_the_cohort():
    network = made()
    whole, part = network.round(), network.round(cohort=(0, 1, 2, 3))
    for i in range(4):
        network.nodes[i].do("start", (whole if i < 2 else part).start())
    assert whole.context != part.context


def test_rounds_of_two_sessions_do_not_mix():
    network = made()
    stale = network.round()
    network.until("mask", stale)
    again = Network(5, network.config)
    again.session = ServerSession(bytes(16), again.config, again.members, ROSTER)
    for i, node in again.nodes.items():
        node.state, node.counter = network.nodes[i].state, network.nodes[i].counter
    again.agree()
    one = again.round()
    again.until("mask", one)
    for i, node in again.nodes.items():
        if i in stale._shares:
            refuses(node, "mask", MaskRequest(stale.context, (), {}).encode(), e.Replay)


def test_the_context_depends_on_everything():
    network = made()

    def context(number=1, attempt=1, cohort=(0, 1, 2, 3, 4), model=MODEL, log=GENESIS):
        return ServerRound(network.session, number, attempt, cohort, model, log).context

    contexts = [
        context(),
        context(number=2),
        context(attempt=2),
        context(cohort=(0, 1, 2, 3)),
        context(model=bytes(32)),
        context(log=bytes(32)),
    ]
    other = Network(5, replace(network.config, application=b"x"))
    other.agree()
    contexts.append(other.round().context)
    again = Network(5)  # the same identities and configuration, fresh keys
    for node in again.nodes.values():
        object.__setattr__(node.party, "random_bytes", source(99, node.party.index).bytes)
    again.agree()
    contexts.append(again.round().context)
    assert len(set(contexts)) == len(contexts)


def test_a_silo_that_is_not_in_its_own_roster_takes_no_part():
    network = Network(3)
    node = network.nodes[0]
    node.party = Party(9, node.party.identity, network.members, ROSTER, lenient(network.config), source(1).bytes)
    refuses(node, "open", network.session.open(), e.UnknownIdentity)


def test_malformed_bytes_are_refused_at_every_stage():
    network = made()
    for stage in ("open", "agree", "ready", "start", "mask", "confirm", "unmask"):
        node = network.nodes[0]
        sent = len(node.sent)
        for data in (b"", b"QSQ", bytes(100), Config.decode(network.config.encode()).encode()):
            with pytest.raises((e.MalformedMessage, e.StageOrder)):
                node.do(stage, data)
        assert len(node.sent) == sent
