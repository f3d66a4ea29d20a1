"""Silos that lie: they are named, and the others' sum stays exact."""

import hashlib
from dataclasses import replace

import pytest
from secagg_network import Network, made

from quire.privacy.secagg import errors as e
from quire.privacy.secagg.context import tag
from quire.privacy.secagg.messages import Advert, Masked, Pairs, Ready, Refusal, Shares, Unmasked

USES = {Shares: "shares", Masked: "masked", Unmasked: "unmasked", Pairs: "pairs", Ready: "ready"}


def lying(network, who, stage, change):
    """Let a member send something else at one stage, signed with its own key."""

    def meddle(at, way, index, data):
        if (at, way, index) != (stage, "up", who):
            return data
        kind = {"start": Shares, "mask": Masked, "unmask": Unmasked, "agree": Pairs, "ready": Ready}[stage]
        message = change(kind.decode(data))
        signature = network.identities[who].sign_ed25519(tag(USES[kind]), message.signed_part())
        return replace(message, signature=signature).encode()

    network.meddle = meddle


def notes(one):
    return {(note.member, note.code, note.peer) for note in one.blame}


def flip(data):
    return bytes([data[0] ^ 1]) + data[1:]


@pytest.mark.parametrize("index", [0, 3, 6])
def test_a_wrong_share_at_unmask_is_found_and_the_sum_is_exact(index):
    network = made(7)
    network.meddle = lambda at, way, i, data: None if at == "mask" and i == 2 else data
    one = network.round()
    messages = network.until("unmask", one)
    lying(
        network,
        index,
        "unmask",
        lambda m: replace(m, survivors={**m.survivors, 1: (bytes(33),)}, dropped={2: (bytes(33),)}),
    )
    network.exchange(one, "unmask", messages)
    network.check(one, one.unmask())
    assert notes(one) == {(index, "MalformedShare", 1), (index, "MalformedShare", 2)}
    assert all(note.proven for note in one.blame)


def test_too_many_wrong_shares_release_nothing():
    network = made(7)  # t = 5
    one = network.round()
    messages = network.until("unmask", one)
    for who in (0, 1, 2):
        lying(network, who, "unmask", lambda m: replace(m, survivors={**m.survivors, 4: (bytes(33),)}))
        network.exchange(one, "unmask", {who: messages[who]})
    network.exchange(one, "unmask", {i: messages[i] for i in range(3, 7)})
    with pytest.raises(e.UnrecoverableShare) as caught:
        one.unmask()
    assert caught.value.peer == 4
    assert notes(one) == {(i, "MalformedShare", 4) for i in (0, 1, 2)}


def test_too_few_replies_may_be_waited_for():
    network = made(7)
    one = network.round()
    messages = network.until("unmask", one)
    network.exchange(one, "unmask", {i: messages[i] for i in range(4)})
    with pytest.raises(e.UnrecoverableShare):
        one.unmask()
    network.exchange(one, "unmask", {6: messages[6]})
    network.check(one, one.unmask())


def test_a_dealer_whose_shares_are_of_no_one_secret_is_named():
    network = made(7)
    one = network.round()
    lying(network, 3, "start", lambda m: replace(m, self_commitment=bytes(32)))
    messages = network.until("unmask", one)
    network.exchange(one, "unmask", messages)
    with pytest.raises(e.UnrecoverableShare) as caught:
        one.unmask()
    assert caught.value.peer == 3
    assert notes(one) == {(3, "UnrecoverableShare", None)}


def test_seeds_that_disagree_are_found_before_anything_is_masked():
    network = made(7)
    one = network.round()
    lying(network, 3, "start", lambda m: replace(m, peers={i: (c, flip(x)) for i, (c, x) in m.peers.items()}))
    network.check(one, network.aggregate(one))
    assert one.u3 == (0, 1, 2, 4, 5, 6)  # who quarrels with everybody goes alone
    assert {(3, "EdgeMismatch", i) for i in one.u3} <= notes(one)
    assert network.nodes[3].drawn == 0


def test_of_a_pair_that_disagrees_both_go():
    network = made(7)
    one = network.round()
    lying(
        network,
        3,
        "start",
        lambda m: replace(m, peers={**m.peers, 5: (m.peers[5][0], flip(m.peers[5][1]))}),
    )
    network.check(one, network.aggregate(one))
    assert one.u3 == (0, 1, 2, 4, 6)
    assert notes(one) == {(3, "EdgeMismatch", 5), (5, "EdgeMismatch", 3)}


def test_a_sealed_list_that_lies_is_found_when_it_is_needed():
    network = made(7)
    one = network.round()
    lying(network, 3, "start", lambda m: replace(m, sealed=flip(m.sealed)))
    lie = network.meddle
    network.meddle = lambda at, way, i, data: None if at == "mask" and i == 3 else lie(at, way, i, data)
    network.exchange(one, "unmask", network.until("unmask", one))
    with pytest.raises(e.SealedListMismatch) as caught:
        one.unmask()
    assert caught.value.peer == 3
    assert {(note.member, note.code) for note in one.blame} == {(3, "SealedListMismatch")}


def test_a_dealer_that_seals_rubbish_is_accused_by_those_it_was_sealed_to():
    network = made(7)
    one = network.round()
    lying(network, 3, "start", lambda m: replace(m, peers={**m.peers, 0: (flip(m.peers[0][0]), m.peers[0][1])}))
    network.check(one, network.aggregate(one))
    assert one.u3 == (1, 2, 3, 4, 5, 6)
    assert notes(one) == {(0, "BadShareCiphertext", 3)}


@pytest.mark.parametrize(
    ("stage", "change", "code"),
    [
        ("start", lambda m: replace(m, index=5), "BadSignature"),
        ("start", lambda m: replace(m, context=bytes(32)), "ContextMismatch"),
        ("start", lambda m: replace(m, peers={}), "MalformedMessage"),
        ("start", lambda m: replace(m, hashes={}), "MalformedMessage"),
        ("start", lambda m: replace(m, sealed=b""), "MalformedMessage"),
        ("mask", lambda m: replace(m, vector=flip(m.vector)), "BadVector"),
        ("mask", lambda m: replace(m, vector=m.vector[:-4]), "BadVector"),
        ("mask", lambda m: replace(m, members=bytes(32)), "ContextMismatch"),
        ("mask", lambda m: replace(m, context=bytes(32)), "ContextMismatch"),
    ],
)
def test_what_is_wrong_is_dropped_and_blamed(stage, change, code):
    network = made(7)
    lying(network, 3, stage, change)
    one = network.round()
    network.check(one, network.aggregate(one))
    assert 3 not in one.u3
    assert [(note.member, note.code) for note in one.blame] == [(3, code)]


@pytest.mark.parametrize("stage", ["start", "mask", "confirm", "unmask"])
def test_tampering_on_the_way_is_found_by_the_signature(stage):
    network = made(7)
    network.meddle = lambda at, way, i, data: data[:40] + flip(data[40:]) if (at, way, i) == (stage, "up", 3) else data
    one = network.round()
    network.check(one, network.aggregate(one))
    assert {note.member for note in one.blame} == {3}
    assert {note.code for note in one.blame} <= {"BadSignature", "BadSurvivorSignature", "MalformedMessage"}


def test_a_second_vector_does_not_replace_the_first():
    network = made(7)
    one = network.round()
    messages = network.until("mask", one)
    network.exchange(one, "mask", messages)
    again = Masked.decode(network.nodes[3].sent[-1])
    vector = flip(again.vector)
    again = replace(again, vector=vector, digest=hashlib.sha256(vector).digest())
    signature = network.identities[3].sign_ed25519(tag("masked"), again.signed_part())
    assert not one.receive(3, replace(again, signature=signature).encode())
    network.exchange(one, "confirm", dict.fromkeys(range(7), one.close_masked()))
    network.exchange(one, "unmask", dict.fromkeys(range(7), one.close_survivors()))
    network.check(one, one.unmask())
    assert notes(one) == {(3, "DuplicateMessage", 3)}


def test_one_member_cannot_speak_for_another():
    network = made(7)
    one = network.round()
    network.exchange(one, "start", dict.fromkeys(range(6), one.start()))
    assert not one.receive(6, network.nodes[5].sent[-1])
    assert not one.receive(99, network.nodes[5].sent[-1])
    assert [(note.member, note.code) for note in one.blame] == [(6, "BadSignature"), (99, "UnknownIdentity")]


@pytest.mark.parametrize("number", [0, 200])
def test_a_refusal_without_a_known_reason_is_malformed(number):
    network = made(7)
    one = network.round()
    assert not one.receive(2, Refusal(2, number).encode())
    assert not one.receive(2, Refusal(3, 1).encode())
    assert [note.code for note in one.blame] == ["MalformedMessage", "MalformedMessage"]


# --- sessions -------------------------------------------------------------------------------------------------------


def test_adverts_that_do_not_count():
    network = Network(5)
    session = network.session
    adverts = {i: Advert.decode(node.do("open", session.open())) for i, node in network.nodes.items()}

    def signed(who, **changes):
        advert = replace(adverts[who], **changes)
        return replace(advert, signature=network.identities[who].sign(tag("advert"), advert.signed_part())).encode()

    assert session.receive(0, adverts[0].encode())
    assert not session.receive(1, replace(adverts[1], key=adverts[2].key).encode())
    assert not session.receive(1, signed(1, key=adverts[0].key))
    assert not session.receive(1, signed(1, config=bytes(32)))
    assert not session.receive(1, signed(1, roster=bytes(32)))
    assert not session.receive(2, signed(1))
    assert not session.receive(0, signed(0, key=adverts[1].key))
    codes = [note.code for note in session.blame]
    expected = [
        "BadSignature",
        "DuplicateKey",
        "ContextMismatch",
        "ContextMismatch",
        "BadSignature",
        "DuplicateMessage",
    ]
    assert codes == expected
    for i in (1, 2, 3):
        assert session.receive(i, adverts[i].encode())
    session.adverts()
    assert session.advertised == (0, 1, 2, 3)


def test_check_values_that_disagree_break_the_pair_up():
    network = Network(7)
    lying(network, 3, "ready", lambda m: replace(m, checks={i: (flip(c),) for i, (c,) in m.checks.items()}))
    assert network.agree().members == (0, 1, 2, 4, 5, 6)
    assert {(3, i, "PairKeyFailure") for i in network.session.members} <= {
        (note.member, note.peer, note.code) for note in network.session.blame
    }


def test_halves_that_do_not_open_are_reported_by_name():
    network = Network(7)
    lying(network, 3, "agree", lambda m: replace(m, ciphertexts={**m.ciphertexts, 0: (flip(m.ciphertexts[0][0]),)}))
    network.agree()
    note = network.session.blame[0]
    assert (note.member, note.code, note.peer, note.proven) == (0, "PairKeyFailure", 3, False)
    assert network.session.members == (1, 2, 3, 4, 5, 6)
