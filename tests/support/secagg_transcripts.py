"""Rounds of secure aggregation that are recorded, and what can be made of their transcripts."""

from __future__ import annotations

import io

from secagg_network import GENESIS, MODEL, ROSTER, Network

from quire.privacy.secagg.errors import SecAggError
from quire.privacy.secagg.recording import RecordedRound, Replay, replay
from quire.privacy.secagg.transcript import Reader, Writer


def recorded(network: Network, number: int = 1, attempt: int = 1, cohort=None) -> tuple[RecordedRound, io.BytesIO]:
    file = io.BytesIO()
    cohort = cohort or network.session.members
    return RecordedRound(network.session, number, attempt, cohort, MODEL, GENESIS, lambda: Writer(file)), file


def transcript(network: Network, **where: object) -> bytes:
    """Run a round to its end, however it ends, and return its transcript."""
    one, file = recorded(network, **where)
    error = None
    try:
        network.aggregate(one)
    except SecAggError as wrong:
        error = wrong.code
    one.finish(error)
    return file.getvalue()


def again(network: Network, data: bytes) -> Replay:
    return replay(io.BytesIO(data), network.members, ROSTER)


def silent(network: Network, *gone: tuple[str, int]) -> None:
    """Let members not answer at a stage."""
    network.meddle = lambda stage, way, index, data: None if way == "up" and (stage, index) in gone else data


def frames(data: bytes) -> list[tuple[type, bytes]]:
    return list(Reader(io.BytesIO(data)).frames())


def rebuilt(messages: list[bytes]) -> bytes:
    """A transcript of these messages, properly sealed: what whoever holds the file can make of it."""
    file = io.BytesIO()
    writer = Writer(file)
    for message in messages:
        writer.add(message)
    writer.seal()
    return file.getvalue()
