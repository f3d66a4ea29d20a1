"""The protocol of secure aggregation in the smallest app: for the benchmark with many nodes. Not for anything else.

Identities follow from numbers, so that nobody has to hand keys round; the state of a node lies in Flower's context.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid

from quire.privacy.identity.keys import PrivateIdentity
from quire.privacy.secagg import client, client_round
from quire.privacy.secagg.client import Party
from quire.privacy.secagg.context import GENESIS
from quire.privacy.secagg.messages import Config
from quire.privacy.secagg.params import default_colluders
from quire.privacy.secagg.policy import Policy
from quire.privacy.secagg.server_round import ServerRound
from quire.privacy.secagg.server_session import ServerSession
from quire.privacy.secagg.state import load
from quire.strategies.exchange import exchange

ROSTER, MODEL = hashlib.sha256(b"roster").digest(), hashlib.sha256(b"model").digest()
LENGTH = 10_000
_PATIENCE = 900.0


def settings_of(members: int) -> Config:
    """Return the configuration of a session."""
    return Config(bytes(15) + b"\x01", 1, 50, 3, members, default_colluders(members), 0, 32, LENGTH)


def identity(number: int) -> PrivateIdentity:
    """Return the keys of a node: in a benchmark, those that its number gives."""
    return PrivateIdentity.from_seed(hashlib.sha256(f"node {number}".encode()).digest())


def answer(message: Message, context: Context) -> Message:
    """Answer a stage, at the node."""
    told = message.content["told"]
    number, members, stage, data = (told[name] for name in ("number", "members", "stage", "data"))
    config = settings_of(members)
    policy = Policy(members=members, min_cohort=2, colluders=0, application=config.application)
    everybody = {index: identity(index).public for index in range(members)}
    party = Party(number, identity(number), everybody, ROSTER, policy, os.urandom)
    kept: Mapping[str, Any] = context.state.get("kept", {})
    state = load(kept.get("state"), kept.get("counter"))
    steps = {
        "open": lambda: client.open_session(party, state, data),
        "agree": lambda: client.agree(party, state, data),
        "ready": lambda: client.ready(party, state, data),
        "start": lambda: client_round.start(party, state, data, MODEL, GENESIS),
        "mask": lambda: client_round.mask(party, state, data, lambda: np.full(LENGTH, number + 1, dtype=np.uint32)),
        "confirm": lambda: client_round.confirm(party, state, data),
        "unmask": lambda: client_round.unmask(party, state, data),
    }
    step = steps[stage]()
    context.state["kept"] = ConfigRecord({"state": step.state.encode(), "counter": step.state.counter})
    return Message(RecordDict({"told": ConfigRecord({"data": step.reply})}), reply_to=message)


def rounds(grid: Grid, nodes: list[int]) -> list[Any]:
    """Make a session and go through a round, at the server; return the seconds of each exchange.

    Raises
    ------
    RuntimeError
        If the sum is not that of all nodes.
    """
    members = len(nodes)
    session = ServerSession(b"s" * 16, settings_of(members), {i: identity(i).public for i in range(members)}, ROSTER)
    seconds: dict[str, float] = {}

    def gather(server: ServerSession | ServerRound, stage: str, asked: Mapping[int, bytes]) -> None:
        began = time.perf_counter()
        messages = [
            Message(
                RecordDict(
                    {"told": ConfigRecord({"number": i, "members": members, "stage": stage, "data": data})},
                ),
                nodes[i],
                "query",
            )
            for i, data in asked.items()
        ]
        numbers = {message.metadata.dst_node_id: i for i, message in zip(asked, messages, strict=True)}
        for reply in exchange(grid, messages, _PATIENCE):
            if reply.has_error():
                raise RuntimeError(reply.error.reason)
            server.receive(numbers[reply.metadata.src_node_id], reply.content["told"]["data"])
        seconds[stage] = time.perf_counter() - began

    gather(session, "open", dict.fromkeys(range(members), session.open()))
    adverts = session.adverts()
    gather(session, "agree", dict.fromkeys(session.advertised, adverts))
    gather(session, "ready", {i: session.pair_keys(i) for i in session.close_pairs()})
    session.close()
    one = ServerRound(session, 1, 1, session.members, MODEL, GENESIS)
    gather(one, "start", dict.fromkeys(one.cohort, one.start()))
    gather(one, "mask", {i: one.mask_request(i) for i in one.close_shares()})
    survivors = tuple(one.cohort)
    gather(one, "confirm", dict.fromkeys(survivors, one.close_masked()))
    final = one.close_survivors()
    gather(one, "unmask", dict.fromkeys(one.confirmed, final))
    total = one.unmask()
    if not np.array_equal(total, np.full(LENGTH, sum(range(1, members + 1)), dtype=np.uint32)):
        raise RuntimeError("the sum is not that of all nodes")
    return [seconds]
