"""A key that is none, signed by its owner: the server sees it at once, and a silo names whose it is."""

from dataclasses import replace

import pytest
from secagg_network import Network

from quire.privacy.secagg.context import tag
from quire.privacy.secagg.errors import PairKeyFailure
from quire.privacy.secagg.messages import Advert, Adverts

KINDS = {
    "bytes": lambda key: b"\xff" * len(key),
    "zeros": lambda key: bytes(len(key)),
    "point": lambda key: key[:-32] + bytes(32),
    "order": lambda key: key[:-32] + b"\x01" + bytes(31),
}


def resigned(network, index, data, key):
    bad = replace(Advert.decode(data), key=key)
    return replace(bad, signature=network.identities[index].sign(tag("advert"), bad.signed_part())).encode()


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_that_is_none_costs_its_owner_its_place_and_nobody_else(kind):
    network = Network(5)

    def meddle(stage, way, index, data):
        if (stage, way, index) == ("open", "up", 4):
            return resigned(network, index, data, KINDS[kind](Advert.decode(data).key))
        return data

    network.meddle = meddle
    network.agree()
    assert network.session.members == (0, 1, 2, 3)
    assert [(note.member, note.code, note.peer, note.proven) for note in network.session.blame] == [
        (4, "PairKeyFailure", None, True)
    ]
    assert network.session.blame[0].convicts


@pytest.mark.parametrize("kind", KINDS)
def test_a_silo_that_is_shown_such_a_key_names_its_owner(kind):
    """A server that lies may pass it on."""
    network = Network(4)
    session = network.session
    opened = {index: node.do("open", session.open()) for index, node in network.nodes.items()}
    rows = {}
    for index, data in opened.items():
        advert = Advert.decode(data)
        if index == 2:
            advert = Advert.decode(resigned(network, 2, data, KINDS[kind](advert.key)))
        rows[index] = (advert.key, advert.signature)
    with pytest.raises(PairKeyFailure, match="member 2") as caught:
        network.nodes[0].do("agree", Adverts(session.sid, rows).encode())
    assert caught.value.peer == 2
