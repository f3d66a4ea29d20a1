"""Transcripts of the protocol: what is written is what counted, and a replay finds every byte that is another."""

from __future__ import annotations

import dataclasses
import hashlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from secagg_network import ROSTER, Network, made
from secagg_transcripts import again, frames, rebuilt, recorded, silent, transcript

from quire.privacy.dp.wire import centred, pack
from quire.privacy.secagg.errors import MalformedMessage
from quire.privacy.secagg.messages import Masked, Unmasked
from quire.privacy.secagg.recording import TranscriptError, replay, sum_digest
from quire.privacy.secagg.transcript import FIRST_LINE, KINDS, Reader

STAGES = ("start", "mask", "confirm", "unmask")


@pytest.fixture(scope="module")
def network() -> Network:
    return made(5)


@pytest.fixture(scope="module")
def data() -> bytes:
    """A transcript with a dropout after U2, whose seeds are opened."""
    network = made(5)
    silent(network, ("mask", 3))
    return transcript(network)


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_a_replay_comes_to_the_sum_of_the_plain_vectors(bits):
    network = made(5, bits=bits)
    found = again(network, transcript(network))
    assert (found.u2, found.u3, found.error, found.blame) == (
        network.session.members,
        network.session.members,
        None,
        (),
    )
    np.testing.assert_array_equal(centred(found.total, bits), network.plain(found.u3))
    assert found.digest == sum_digest(network.round().context, found.total, bits).hex()
    assert found.sha256 == hashlib.sha256(transcript(made(5, bits=bits))).hexdigest()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("index", [0, 4])
def test_dropouts_at_every_stage_are_replayed(stage, index):
    network = made(5)
    silent(network, (stage, index))
    found = again(network, transcript(network))
    assert (index in found.u2, index in found.u3) == (stage != "start", stage not in ("start", "mask"))
    np.testing.assert_array_equal(centred(found.total, 32), network.plain(found.u3))


@pytest.mark.parametrize(
    ("stage", "error"),
    [
        ("start", "TooFewClients"),
        ("mask", "TooFewSurvivors"),
        ("confirm", "NoQuorum"),
        ("unmask", "UnrecoverableShare"),
    ],
)
def test_attempts_that_fail_are_replayed_to_their_error(stage, error):
    network = made(5)
    silent(network, (stage, 0), (stage, 1))
    found = again(network, transcript(network))
    assert (found.error, found.total, found.digest) == (error, None, None)


def test_an_attempt_that_was_stopped_is_one_without_an_end():
    network = made(5)
    one, file = recorded(network)
    network.exchange(one, "start", dict.fromkeys(one.cohort, one.start()))
    one.finish(None)
    found = again(network, file.getvalue())
    assert (found.error, found.total, found.u2) == (None, None, ())


def test_several_rounds_and_attempts_of_one_session(network):
    silent(network, ("mask", 0), ("mask", 1))
    assert again(network, transcript(network, number=2, cohort=(0, 1, 2, 3))).error == "TooFewSurvivors"
    silent(network)
    for number, attempt, cohort in ((2, 2, (0, 1, 2, 3, 4)), (3, 1, (1, 2, 3, 4))):
        found = again(network, transcript(network, number=number, attempt=attempt, cohort=cohort))
        assert (found.head.round, found.head.attempt, found.head.cohort) == (number, attempt, cohort)
        np.testing.assert_array_equal(centred(found.total, 32), network.plain(cohort))


def test_what_does_not_count_is_not_kept():
    """A vector that is refused, beside the shares that open its sender's pairs, would be one mask from being read."""
    network = made(5)
    spoilt = []

    def spoil(stage, way, index, data):
        if (stage, way, index) != ("mask", "up", 3):
            return data
        spoilt.append(data[:-1] + bytes([data[-1] ^ 1]))
        return spoilt[-1]

    network.meddle = spoil
    data = transcript(network)
    assert spoilt
    assert spoilt[0] not in data
    assert [Masked.decode(message).index for kind, message in frames(data) if kind is Masked] == [0, 1, 2, 4]
    assert again(network, data).u3 == (0, 1, 2, 4)


def test_blame_with_proof_comes_out_again():
    network = made(5)

    def lie(stage, way, index, data):
        if (stage, way, index) != ("unmask", "up", 2):
            return data
        message = Unmasked.decode(data)
        wrong = {i: (bytes(len(row[0])),) for i, row in message.survivors.items()}
        message = dataclasses.replace(message, survivors=wrong)
        signature = network.nodes[2].party.sign("unmasked", message.signed_part())
        return dataclasses.replace(message, signature=signature).encode()

    network.meddle = lie
    one, file = recorded(network)
    total = network.aggregate(one)
    one.finish(None)
    found = again(network, file.getvalue())
    assert {(note.member, note.code, note.proven) for note in found.blame} == {(2, "MalformedShare", True)}
    np.testing.assert_array_equal(found.total, total)


def test_a_survivor_stays_masked_by_what_is_stored(network, data):
    """Of each member either its self-mask seed can be opened, or the seal key of its pairs' seeds; of none both."""
    found = again(made(5), data)
    for kind, message in frames(data):
        if kind is Unmasked:
            opened = Unmasked.decode(message)
            assert set(opened.survivors) == set(found.u3)
            assert set(opened.dropped) == {3}
    vectors = [Masked.decode(message).vector for kind, message in frames(data) if kind is Masked]
    assert len(vectors) == 4
    plain = {pack(network.nodes[index].vector, 32) for index in found.u3}
    assert not plain & set(vectors)


# ------------------------------------------------------------------------------------------ bytes
def test_every_truncation_is_refused(data):
    network = made(5)
    for size in range(0, len(data), max(1, len(data) // 300)):
        with pytest.raises(TranscriptError):
            again(network, data[:size])
    for size in range(len(data) - 80, len(data)):
        with pytest.raises(TranscriptError):
            again(network, data[:size])
    with pytest.raises(TranscriptError, match="More bytes follow"):
        again(network, data + b"\0")


@given(at=st.integers(0, 10**9), bit=st.integers(0, 7))
@settings(max_examples=150, deadline=None)
def test_every_flipped_bit_is_refused(data, at, bit):
    changed = bytearray(data)
    changed[at % len(data)] ^= 1 << bit
    with pytest.raises(MalformedMessage):
        list(Reader(io.BytesIO(bytes(changed))).frames())


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=300, deadline=None)
def test_whatever_bytes_are_given_only_one_error_comes(garbage, named):
    with pytest.raises(TranscriptError):
        replay(io.BytesIO(FIRST_LINE * named + garbage), {}, ROSTER)


@given(st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.binary(max_size=80)), max_size=6))
@settings(max_examples=300, deadline=None)
def test_whatever_is_in_sealed_frames_only_one_error_comes(parts):
    messages = [b"QSQ" + bytes((1, kind)) + body for kind, body in parts]
    with pytest.raises(TranscriptError):
        replay(io.BytesIO(rebuilt(messages)), {}, ROSTER)


def test_no_length_is_believed():
    """A frame that claims more than there is, or than such a message can have, is refused before it is read."""

    class Counting(io.BytesIO):
        largest = 0

        def read(self, size=-1):
            self.largest = max(self.largest, size)
            return super().read(size)

    for claimed in (0, 4, 2**31, 2**32 - 1):
        file = Counting(FIRST_LINE + claimed.to_bytes(4, "big") + b"QSQ\x01\x0b" + bytes(100))
        with pytest.raises(MalformedMessage):
            list(Reader(file).frames())
        assert file.largest <= 100
