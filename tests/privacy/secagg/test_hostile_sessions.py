"""A server that lies while a session is made: every attack ends in the error that names it, and nothing leaves."""

from dataclasses import replace

import pytest
from secagg_network import ROSTER, Network, made, refuses

from quire.privacy.secagg import errors as e
from quire.privacy.secagg import pairs
from quire.privacy.secagg.messages import (
    Advert,
    Adverts,
    Open,
    PairKeys,
    Start,
)
from quire.privacy.secagg.state import ClientState, Counter, load


def opened(n=4):
    network = Network(n)
    network.exchange(network.session, "open", dict.fromkeys(network.nodes, network.session.open()))
    return network, Adverts.decode(network.session.adverts())


def test_a_substituted_key():
    network, adverts = opened()
    forged = {**adverts.adverts, 2: (adverts.adverts[3][0][::-1], adverts.adverts[2][1])}
    refuses(network.nodes[0], "agree", replace(adverts, adverts=forged).encode(), e.BadSignature, 2)


def test_a_key_of_another_session_or_under_another_configuration():
    network, adverts = opened()
    other = Network(4, replace(network.config, min_survivors=4))
    other.session._open = Open(network.session.sid, ROSTER, other.config.encode())
    other.exchange(other.session, "open", dict.fromkeys(other.nodes, other.session.open()))
    foreign = network.nodes[0]
    for node in (1, 2, 3):  # everyone but the victim was shown another configuration
        key, signature = network_advert(other.nodes[node])
        forged = {**adverts.adverts, node: (key, signature)}
        refuses(foreign, "agree", replace(adverts, adverts=forged).encode(), e.BadSignature, node)


def network_advert(node):
    advert = Advert.decode(node.sent[0])
    return advert.key, advert.signature


def test_an_unknown_member():
    network, adverts = opened()
    forged = {**adverts.adverts, 77: adverts.adverts[1]}
    refuses(network.nodes[0], "agree", replace(adverts, adverts=forged).encode(), e.UnknownIdentity, 77)


def test_a_member_listed_twice():
    network, adverts = opened()
    data = bytearray(adverts.encode())
    row = 2 + 1216 + 4 + len(adverts.adverts[0][1])
    first = 5 + 16 + 2
    data[first + row : first + row + 2] = data[first : first + 2]
    refuses(network.nodes[3], "agree", bytes(data), e.DuplicateIdentity, 0)


def test_one_key_for_two_members():
    network, adverts = opened()
    forged = {**adverts.adverts, 1: adverts.adverts[0]}
    refuses(network.nodes[3], "agree", replace(adverts, adverts=forged).encode(), e.DuplicateKey, 1)


def test_the_own_key_missing_or_exchanged():
    network, adverts = opened()
    without = {i: row for i, row in adverts.adverts.items() if i != 2}
    refuses(network.nodes[2], "agree", replace(adverts, adverts=without).encode(), e.OwnKeyMissing)
    swapped = {**adverts.adverts, 2: (adverts.adverts[1][0], adverts.adverts[2][1])}
    refuses(network.nodes[2], "agree", replace(adverts, adverts=swapped).encode(), e.OwnKeyMissing)


def test_a_cohort_too_small_for_the_policy():
    network = Network(4, min_cohort=4)
    network.exchange(network.session, "open", dict.fromkeys(network.nodes, network.session.open()))
    adverts = Adverts.decode(network.session.adverts())
    three = {i: row for i, row in adverts.adverts.items() if i != 3}
    refuses(network.nodes[0], "agree", replace(adverts, adverts=three).encode(), e.CohortTooSmall)


@pytest.mark.parametrize("cohort", [(0,), (0, 1), (0, 1, 2), (0, 1, 2, 3)])
def test_a_cohort_below_the_threshold_of_the_roster(cohort):
    network = made(6)  # c = 1, t = 4
    message = Start(network.session.session, 1, 1, cohort).encode()
    if len(cohort) < 4:
        refuses(network.nodes[0], "start", message, e.CohortTooSmall)
    else:
        network.nodes[0].do("start", message)


def test_another_session_for_one_member():
    network = Network(4)
    other = Network(4, replace(network.config, run=bytes(16)))
    network.exchange(network.session, "open", dict.fromkeys(network.nodes, network.session.open()))
    other.exchange(other.session, "open", dict.fromkeys(other.nodes, other.session.open()))
    other_adverts = replace(Adverts.decode(other.session.adverts()), sid=bytes(16))
    refuses(network.nodes[0], "agree", other_adverts.encode(), e.Replay)


def test_tampered_and_swapped_halves():
    network, adverts = opened()
    network.exchange(network.session, "agree", dict.fromkeys(network.nodes, adverts.encode()))
    network.session.close_pairs()
    keys = PairKeys.decode(network.session.pair_keys(0))
    flipped = bytearray(keys.ciphertexts[2][0])
    flipped[-1] ^= 1
    tampered = {**keys.ciphertexts, 2: (bytes(flipped),)}
    refuses(network.nodes[0], "ready", replace(keys, ciphertexts=tampered).encode(), e.PairKeyFailure, 2)
    swapped = {**keys.ciphertexts, 1: keys.ciphertexts[2], 2: keys.ciphertexts[1]}
    refuses(network.nodes[0], "ready", replace(keys, ciphertexts=swapped).encode(), e.PairKeyFailure, 1)
    stranger = {**keys.ciphertexts, 9: keys.ciphertexts[2]}
    refuses(network.nodes[0], "ready", replace(keys, ciphertexts=stranger).encode(), e.UnknownIdentity, 9)
    refuses(network.nodes[0], "ready", replace(keys, session=bytes(32)).encode(), e.Replay)


def test_a_half_that_the_server_made_itself_gives_it_no_key():
    """HPKE does not say who sealed: the pair's ends then differ, and neither key is known to the server."""
    network, adverts = opened(7)
    network.exchange(network.session, "agree", dict.fromkeys(network.nodes, adverts.encode()))
    session = network.session.session
    network.session.close_pairs()
    own = bytes(32)
    forged = pairs.seal(own, adverts.adverts[0][0], pairs.pair_info(session, 2, 0))
    keys = PairKeys.decode(network.session.pair_keys(0))
    keys = replace(keys, ciphertexts={**keys.ciphertexts, 2: (forged,)})
    replies = {0: network.nodes[0].do("ready", keys.encode())}
    replies |= {i: network.nodes[i].do("ready", network.session.pair_keys(i)) for i in range(1, 7)}
    for index, reply in replies.items():
        network.session.receive(index, reply)
    # An honest server sees it ...
    assert network.session.close() == (1, 3, 4, 5, 6)
    notes = {(note.member, note.peer, note.code) for note in network.session.blame}
    assert notes == {(0, 2, "PairKeyFailure"), (2, 0, "PairKeyFailure")}
    # ... and a lying one that goes on cannot make the two believe each other's shares.
    assert (
        load(network.nodes[0].state, network.nodes[0].counter).keys[2]
        != ClientState.decode(network.nodes[2].state).keys[0]
    )
    network.session.members = tuple(range(7))
    one = network.round()
    network.exchange(one, "start", dict.fromkeys(range(7), one.start()))
    one.u2 = tuple(range(7))
    refuses(network.nodes[0], "mask", one.mask_request(0), e.BadShareCiphertext, 2)
    refuses(network.nodes[2], "mask", one.mask_request(2), e.BadShareCiphertext, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"colluders": 0},
        {"bits": 8},
        {"bits": 33},
        {"length": 0},
        {"length": 2**29},
        {"rounds": 0},
        {"rounds": 51},
        {"attempts": 0},
        {"attempts": 9},
        {"application": b"weaker"},
    ],
)
def test_a_configuration_outside_of_the_policy(change):
    network = Network(4, colluders=1)
    message = Open(bytes(16), ROSTER, replace(network.config, **change).encode()).encode()
    refuses(network.nodes[0], "open", message, e.PolicyViolation)
    assert network.nodes[0].sent == []


def test_another_roster_than_the_pinned_one():
    network = Network(4)
    refuses(network.nodes[0], "open", Open(bytes(16), bytes(32), network.config.encode()).encode(), e.UnknownIdentity)


def test_a_new_session_for_a_round_that_has_been_opened():
    network = made()
    network.aggregate(network.round(1))
    again = Open(bytes(16), ROSTER, network.config.encode())
    refuses(network.nodes[0], "open", again.encode(), e.Replay)
    later = replace(again, config=replace(network.config, first_round=2).encode())
    network.nodes[0].do("open", later.encode())
    assert Counter.decode(network.nodes[0].counter).opened == 1
