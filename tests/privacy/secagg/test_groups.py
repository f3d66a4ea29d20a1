"""Who is in which group: a partition that everybody works out alike, and that to the protocol is a roster each."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from secagg_network import Network, config, refuses

from quire.privacy.secagg.errors import PolicyViolation, UnknownIdentity
from quire.privacy.secagg.groups import dealt, group_of, needed, size_of
from quire.privacy.secagg.server_session import ServerSession

ROSTERS = st.sets(st.integers(0, 2**31 - 1), min_size=1, max_size=60)


@given(ROSTERS, st.integers(1, 20), st.randoms())
def test_every_member_is_in_one_group_whatever_the_order_it_is_listed_in(members, groups, shuffled) -> None:
    listed = sorted(members)
    shuffled.shuffle(listed)
    found = dealt(listed, groups)
    assert [one.number for one in found] == list(range(groups))
    assert sorted(index for one in found for index in one.members) == sorted(members)
    assert max(sizes := [len(one.members) for one in found]) - min(sizes) <= 1
    assert [size_of(len(members), groups, number) for number in range(groups)] == sizes
    for one in found:
        assert all(group_of(listed, groups, index) == one for index in one.members)


def test_nobody_is_in_a_group_of_a_roster_that_does_not_list_it() -> None:
    with pytest.raises(ValueError, match="not in list"):
        group_of([1, 2, 3], 3, 4)


@given(st.integers(0, 50), st.integers(0, 50))
def test_a_majority_is_good_after_every_alarm(byzantine, alarmed) -> None:
    """Each alarm takes one bad group out: 2f + 1 groups suffice, however many of f are found out."""
    found = min(alarmed, byzantine)
    assert needed(byzantine, found) > 2 * (byzantine - found)
    assert 2 * byzantine + 1 - found >= needed(byzantine, found)


def in_groups() -> Network:
    """Nine silos that each know who is in their group of three, and a server that has yet to ask somebody."""
    network = Network(9, config(members=9, colluders=0))
    for node, silo in network.nodes.items():
        group = group_of(list(network.members), 3, node).members
        policy = replace(silo.party.policy, members=len(group))
        known = {index: network.members[index] for index in group}
        silo.party = replace(silo.party, members=known, policy=policy)
    return network


def asking(network: Network, members: tuple[int, ...], counted: int) -> None:
    """Let the server ask these, with thresholds that are counted from so many."""
    told = replace(network.config, members=counted)
    known = {index: network.members[index] for index in members}
    network.session = ServerSession(network.session.sid, told, known, network.session.roster)
    network.nodes = {index: network.nodes[index] for index in members}


def test_to_a_silo_the_members_of_other_groups_are_strangers() -> None:
    """A server that mixes groups gets no key of it, and none for thresholds that are counted from the roster."""
    network = in_groups()
    asking(network, (0, 1, 3), 3)
    network.exchange(network.session, "open", dict.fromkeys(network.nodes, network.session.open()))
    assert network.session.advertised == (0, 1, 3)
    refuses(network.nodes[0], "agree", network.session.adverts(), UnknownIdentity, 1)

    asking(whole := in_groups(), tuple(range(9)), 9)
    refuses(whole.nodes[0], "open", whole.session.open(), PolicyViolation)


def test_a_group_comes_to_its_own_sum() -> None:
    network = in_groups()
    asking(network, (1, 4, 7), 3)
    network.agree()
    one = network.round()
    network.check(one, network.aggregate(one))
    assert one.u3 == (1, 4, 7)
