"""A reply that is lost on the way: the same request gets the same bytes, and no other request gets any."""

from dataclasses import replace

import pytest
from secagg_network import MODEL, Network, at, lenient, made, refuses

from quire.privacy.secagg import client_round
from quire.privacy.secagg import errors as e
from quire.privacy.secagg.client import open_session
from quire.privacy.secagg.messages import ConfirmRequest, Open, Refusal, Start, UnmaskRequest
from quire.privacy.secagg.state import KEPT, ClientState, Counter, Stage

SMALL = ("open", "agree", "ready", "start", "confirm", "unmask")


class Deaf(Network):
    """A network in which the first reply of every silo at a stage is lost, and the request sent once more."""

    def __init__(self, stage: str, n: int = 5) -> None:
        super().__init__(n)
        self.stage, self.twice = stage, 0

    def exchange(self, collector, stage, messages):
        if stage == self.stage:
            for index, message in messages.items():
                node = self.nodes[index]
                lost, after = node.do(stage, message), (node.state, node.counter)
                assert node.do(stage, message) == lost
                assert (node.state, node.counter) == after
                self.twice += 1
        super().exchange(collector, stage, messages)


@pytest.mark.parametrize("stage", SMALL)
def test_a_lost_reply_is_sent_once_more_byte_by_byte(stage):
    network = Deaf(stage)
    network.agree()
    one = network.round()
    network.check(one, network.aggregate(one))
    assert network.twice == 5
    assert [note.code for note in one.blame] == []


def test_a_masked_vector_is_not_kept():
    network, _, messages = at("mask")
    node = network.nodes[0]
    node.do("mask", messages[0])
    assert ClientState.decode(node.state).reply == b""
    refuses(node, "mask", messages[0], e.StageOrder)


def test_a_reply_that_is_too_large_is_not_kept():
    """Sealed halves for more than a hundred members: the stage is then answered once."""
    network = Network(116)
    node = network.nodes[0]
    network.exchange(network.session, "open", dict.fromkeys(network.nodes, network.session.open()))
    adverts = network.session.adverts()
    assert len(node.do("agree", adverts)) > KEPT
    assert ClientState.decode(node.state).reply == b""
    refuses(node, "agree", adverts, e.StageOrder)


def test_only_the_last_request_is_answered_again():
    network, one, messages = at("unmask")
    node = network.nodes[0]
    confirm = ConfirmRequest(one.context, one.u3).encode()
    assert node.do("confirm", confirm)  # the last one that it answered
    node.do("unmask", messages[0])
    refuses(node, "confirm", confirm, e.StageOrder)
    refuses(node, "start", one.start(), e.Replay)
    assert node.do("unmask", messages[0]) == node.sent[-2]


def test_another_request_for_the_same_stage_is_refused():
    network, one, messages = at("confirm")
    node = network.nodes[0]
    network.exchange(one, "confirm", messages)
    for fewer in ((0, 1, 2, 3), (0, 1, 2, 4)):
        refuses(node, "confirm", ConfirmRequest(one.context, fewer).encode(), e.StageOrder)
    opening = one.close_survivors()
    node.do("unmask", opening)
    signed = UnmaskRequest.decode(opening).confirmations
    for gone in list(signed)[1:]:  # as good a quorum, of other members
        other = {index: part for index, part in signed.items() if index != gone}
        refuses(node, "unmask", UnmaskRequest(one.context, other).encode(), e.StageOrder)


def test_another_model_makes_it_another_request():
    network = made()
    node, one = network.nodes[0], network.round()
    first = node.do("start", one.start())
    assert node.do("start", one.start()) == first
    node.model = bytes(32)
    refuses(node, "start", one.start(), e.Replay)
    node.model, node.log_root = MODEL, bytes(32)
    refuses(node, "start", one.start(), e.Replay)


def test_the_arguments_of_a_stage_may_be_named():
    network = made()
    node, one = network.nodes[0], network.round()
    state = ClientState.decode(node.state)
    step = client_round.start(node.party, state, one.start(), model=node.model, log_root=node.log_root)
    again = client_round.start(node.party, step.state, one.start(), node.model, node.log_root)
    assert (again.again, again.reply) == (True, step.reply)
    assert again.state is step.state


def test_what_roster_or_policy_no_longer_allow_is_not_sent_again():
    network, _, messages = at("unmask")
    node = network.nodes[0]
    node.do("unmask", messages[0])
    party = node.party
    node.party = replace(party, policy=lenient(network.config, colluders=3))
    refuses(node, "unmask", messages[0], e.PolicyViolation)
    node.party = replace(party, roster=bytes(32))
    refuses(node, "unmask", messages[0], e.StageOrder)
    node.party = party
    assert node.do("unmask", messages[0]) == node.sent[-2]


def test_a_refusal_is_not_kept():
    network, one, _ = at("mask")
    node, wrong = network.nodes[0], Start(bytes(32), 1, 1, tuple(range(5))).encode()
    assert Refusal.decode(node.answer("start", wrong)).number == e.Replay.number
    assert ClientState.decode(node.state).reply == node.sent[-1]
    assert node.do("start", one.start()) == node.sent[-2]


def test_a_state_that_was_lost_answers_nothing_again():
    network, _, messages = at("unmask")
    node = network.nodes[0]
    node.do("unmask", messages[0])
    node.state = None
    refuses(node, "unmask", messages[0], e.StageOrder)


def test_a_session_is_opened_again_only_for_the_same_name_and_configuration():
    network = Network(5)
    party = network.nodes[0].party
    request = Open(bytes(15) + b"\x07", party.roster, network.config.encode())
    first = open_session(party, ClientState(Counter().encode()), request.encode())
    assert open_session(party, first.state, request.encode()).reply == first.reply
    other = open_session(party, first.state, replace(request, sid=bytes(15) + b"\x08").encode())
    assert other.reply != first.reply
    assert (other.state.at.stage, other.state.at.serial) == (Stage.ADVERTISED, 2)
