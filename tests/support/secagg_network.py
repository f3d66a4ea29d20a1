"""An in-memory network for secure aggregation: silos that keep their state as bytes, and an adversary's hand on it all.

Everything that leaves a silo is in ``Node.sent``, so that a test can say that nothing did.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from quire.privacy.csprng import Csprng
from quire.privacy.dp.wire import centred
from quire.privacy.identity.keys import PrivateIdentity
from quire.privacy.secagg import client, client_round
from quire.privacy.secagg.client import Party, Step
from quire.privacy.secagg.context import GENESIS
from quire.privacy.secagg.errors import SecAggError
from quire.privacy.secagg.messages import Config
from quire.privacy.secagg.params import default_colluders
from quire.privacy.secagg.policy import Policy
from quire.privacy.secagg.server_round import ServerRound
from quire.privacy.secagg.server_session import ServerSession
from quire.privacy.secagg.state import load

ROSTER = hashlib.sha256(b"roster").digest()
MODEL = hashlib.sha256(b"model").digest()


def source(seed: int, *labels: object) -> Csprng:
    return Csprng(hashlib.sha256(repr((seed, *labels)).encode()).digest())


def config(length: int = 5, colluders: int = 0, **changes: object) -> Config:
    """Return a configuration; one without a number of members gets that of the network it is for."""
    basis = Config(bytes(15) + b"\x01", 1, 50, 3, 0, colluders, 0, 32, length)
    return replace(basis, **changes)


def lenient(settings: Config, **changes: object) -> Policy:
    """Return a policy that accepts a configuration, and all that is weaker in what a policy may leave open."""
    basis = Policy(members=settings.members, min_cohort=2, colluders=0, application=settings.application)
    return replace(basis, **changes)


class Node:
    """A silo in its store: state and counter are bytes, read anew for every stage, as by a fresh process."""

    def __init__(self, party: Party, vector: np.ndarray) -> None:
        self.party = party
        self.vector = vector
        self.state: bytes | None = None
        self.counter: bytes | None = None
        self.sent: list[bytes] = []
        self.counters: list[bytes] = []
        self.model = MODEL
        self.log_root = GENESIS
        self.drawn = 0

    def _words(self) -> np.ndarray:
        self.drawn += 1
        return self.vector

    def do(self, stage: str, message: bytes) -> bytes:
        state = load(self.state, self.counter)
        steps: dict[str, Callable[[], Step]] = {
            "open": lambda: client.open_session(self.party, state, message),
            "agree": lambda: client.agree(self.party, state, message),
            "ready": lambda: client.ready(self.party, state, message),
            "start": lambda: client_round.start(self.party, state, message, self.model, self.log_root),
            "mask": lambda: client_round.mask(self.party, state, message, self._words),
            "confirm": lambda: client_round.confirm(self.party, state, message),
            "unmask": lambda: client_round.unmask(self.party, state, message),
        }
        step = steps[stage]()
        if not step.again:  # else there is nothing to write
            self.counter = step.state.counter
            self.counters.append(self.counter)
            self.state = step.state.encode()
        self.sent.append(step.reply)
        return step.reply

    def answer(self, stage: str, message: bytes) -> bytes:
        """Reply, or refuse with a code: what an adapter does."""
        try:
            return self.do(stage, message)
        except SecAggError as error:
            return self.party.refuse(error)


class Network:
    """A roster of silos, a session and rounds, with hooks on every message.

    ``meddle(stage, direction, index, data)`` returns what arrives: other bytes, or None for nothing.
    """

    def __init__(self, n: int, settings: Config | None = None, seed: int = 0, bits: int = 32, **policy: object) -> None:
        settings = settings or config(colluders=default_colluders(n), bits=bits)
        self.config = replace(settings, members=settings.members or n)
        identities = {i: PrivateIdentity.from_seed(source(seed, "identity", i).bytes(32)) for i in range(n)}
        self.members = {i: identity.public for i, identity in identities.items()}
        self.identities = identities
        limits = lenient(self.config, **policy)
        self.nodes = {}
        for i in range(n):
            vector = source(seed, "vector", i).integers(2001, self.config.length) - 1000
            party = Party(i, identities[i], self.members, ROSTER, limits, source(seed, "coins", i).bytes)
            self.nodes[i] = Node(party, vector.astype(np.uint32))
        self.session = ServerSession(source(seed, "sid").bytes(16), self.config, self.members, ROSTER)
        self.meddle: Callable[[str, str, int, bytes], bytes | None] = lambda stage, way, index, data: data

    def exchange(self, collector: ServerSession | ServerRound, stage: str, messages: dict[int, bytes]) -> None:
        """Send messages to silos and hand the replies to the server."""
        for index, message in messages.items():
            arrived = self.meddle(stage, "down", index, message)
            if arrived is None:
                continue
            reply = self.meddle(stage, "up", index, self.nodes[index].answer(stage, arrived))
            if reply is not None:
                collector.receive(index, reply)

    def agree(self) -> ServerSession:
        session = self.session
        self.exchange(session, "open", dict.fromkeys(self.nodes, session.open()))
        adverts = session.adverts()
        self.exchange(session, "agree", dict.fromkeys(session.advertised, adverts))
        self.exchange(session, "ready", {i: session.pair_keys(i) for i in session.close_pairs()})
        session.close()
        return session

    def round(self, number: int = 1, attempt: int = 1, cohort: tuple[int, ...] | None = None) -> ServerRound:
        return ServerRound(self.session, number, attempt, cohort or self.session.members, MODEL, GENESIS)

    def until(self, stage: str, one: ServerRound) -> dict[int, bytes]:
        """Run a round up to a stage and return the messages that open that stage."""
        messages = dict.fromkeys(one.cohort, one.start())
        for name, close in (
            ("start", lambda: {i: one.mask_request(i) for i in one.close_shares()}),
            ("mask", lambda: dict.fromkeys(tuple(one._digests), one.close_masked())),
            ("confirm", lambda: (lambda data: dict.fromkeys(one.confirmed, data))(one.close_survivors())),
        ):
            if name == stage:
                return messages
            self.exchange(one, name, messages)
            messages = close()
        return messages

    def aggregate(self, one: ServerRound) -> np.ndarray:
        self.exchange(one, "unmask", self.until("unmask", one))
        return one.unmask()

    def plain(self, members: tuple[int, ...]) -> np.ndarray:
        """The sum in the clear, as signed numbers."""
        return np.sum([self.nodes[i].vector.view(np.int32).astype(np.int64) for i in members], axis=0)

    def check(self, one: ServerRound, total: np.ndarray) -> None:
        np.testing.assert_array_equal(centred(total, self.config.bits), self.plain(one.u3))


def refuses(node: Node, stage: str, message: bytes, error: type[SecAggError], peer: int | None = None) -> None:
    """The victim raises this error, sends nothing, and remembers what it did."""
    sent, state, counter, drawn = len(node.sent), node.state, node.counter, node.drawn
    with pytest.raises(error) as caught:
        node.do(stage, message)
    assert type(caught.value) is error
    if peer is not None:
        assert caught.value.peer == peer
    assert (len(node.sent), node.state, node.counter, node.drawn) == (sent, state, counter, drawn)
    assert len(node.answer(stage, message)) == 10  # what travels is a number


def made(n: int = 5, **changes: object) -> Network:
    """Return a network whose session is made."""
    network = Network(n, **changes)
    network.agree()
    return network


def at(stage: str, n: int = 5) -> tuple[Network, ServerRound, dict[int, bytes]]:
    """Return a network just before a stage of its first round, with that stage's messages."""
    network = made(n)
    one = network.round()
    return network, one, network.until(stage, one)
