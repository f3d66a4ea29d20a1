"""Transcripts of the protocol: what is written is what counted, and a replay finds every byte that is another."""

from __future__ import annotations

import dataclasses
import hashlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from secagg_network import GENESIS, MODEL, ROSTER, Network, config, made

from quire.privacy.dp.wire import centred, pack
from quire.privacy.secagg.errors import MalformedMessage, SecAggError
from quire.privacy.secagg.messages import Config, Masked, Shares, Survivors, Unmasked
from quire.privacy.secagg.recording import RecordedRound, TranscriptError, replay, sum_digest
from quire.privacy.secagg.transcript import FIRST_LINE, KINDS, NO_SUM, Head, Outcome, Reader, Writer

STAGES = ("start", "mask", "confirm", "unmask")


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


def again(network: Network, data: bytes):
    return replay(io.BytesIO(data), network.members, ROSTER)


def silent(network: Network, *gone: tuple[str, int]) -> None:
    """Let members not answer at a stage."""
    network.meddle = lambda stage, way, index, data: None if way == "up" and (stage, index) in gone else data


@pytest.fixture(scope="module")
def network() -> Network:
    return made(5)


@pytest.fixture(scope="module")
def data() -> bytes:
    """A transcript with a dropout after U2, whose seeds are opened."""
    network = made(5)
    silent(network, ("mask", 3))
    return transcript(network)


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


# ----------------------------------------------------------------------------- a tamperer who seals anew
def changes(value: object) -> list[object]:
    """Other values of the same form, one for each part of a field."""
    if isinstance(value, bytes):
        flipped = [
            value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
            for at in {0, len(value) // 2, len(value) - 1}
            if value
        ]
        return [*flipped, value[:-1], value + b"\0"]
    if isinstance(value, int):
        return [value + 1]
    if isinstance(value, tuple):
        return [value[:-1], value[1:]] if value else [(0,)]
    if isinstance(value, dict):
        found: list[object] = [{key: row for key, row in value.items() if key != gone} for gone in value]
        for key, row in value.items():
            for place, part in enumerate(row):
                found += [{**value, key: (*row[:place], other, *row[place + 1 :])} for other in changes(part)[:1]]
        if len(value) > 1:
            one, other = list(value)[:2]
            found.append({**value, one: value[other], other: value[one]})
        return found
    raise TypeError(type(value))


def test_every_field_of_every_message_counts(data):
    """Whoever holds the file can change it and seal it anew: without the members' keys nothing of it passes."""
    network, told = made(5), frames(data)
    messages = [message for _, message in told]
    tried = 0
    for place, (kind, message) in enumerate(told):
        decoded = kind.decode(message)
        for field in dataclasses.fields(decoded):
            for other in changes(getattr(decoded, field.name)):
                try:
                    changed = dataclasses.replace(decoded, **{field.name: other}).encode()
                except SecAggError:
                    continue  # not even its form can be written
                if changed == message:
                    continue
                tried += 1
                with pytest.raises(TranscriptError):
                    again(network, rebuilt([*messages[:place], changed, *messages[place + 1 :]]))
    assert tried > 400


def test_every_number_of_the_configuration_counts(data):
    network = made(5)
    (_, head), *rest = frames(data)
    kept = Head.decode(head)
    basis = Config.decode(kept.config)
    for field in dataclasses.fields(basis):
        for other in changes(getattr(basis, field.name)):
            try:
                config = dataclasses.replace(basis, **{field.name: other}).encode()
            except SecAggError:
                continue
            if config == kept.config:
                continue
            changed = dataclasses.replace(kept, config=config).encode()
            with pytest.raises(TranscriptError):
                again(network, rebuilt([changed, *(message for _, message in rest)]))


def of_kind(data: bytes, kind: type) -> list[int]:
    return [place for place, (found, _) in enumerate(frames(data)) if found is kind]


def test_vectors_of_two_members_cannot_be_swapped(data):
    network, messages = made(5), [message for _, message in frames(data)]
    one, other = of_kind(data, Masked)[:2]
    left, right = Masked.decode(messages[one]), Masked.decode(messages[other])
    for names in (("vector",), ("vector", "digest"), ("index",), ("vector", "digest", "signature")):
        swapped = list(messages)
        swapped[one] = dataclasses.replace(left, **{name: getattr(right, name) for name in names}).encode()
        swapped[other] = dataclasses.replace(right, **{name: getattr(left, name) for name in names}).encode()
        with pytest.raises(TranscriptError, match="Masked does not hold"):
            again(network, rebuilt(swapped))
    # In which order they came is no part of the sum.
    messages[one], messages[other] = messages[other], messages[one]
    np.testing.assert_array_equal(again(network, rebuilt(messages)).total, again(network, data).total)


@pytest.mark.parametrize("kind", [Shares, Masked, Survivors, Unmasked])
def test_messages_of_another_round_do_not_hold(kind):
    network = made(5)
    first, second = transcript(network), transcript(network, number=2)
    messages, others = ([message for _, message in frames(data)] for data in (first, second))
    for place in of_kind(first, kind):
        with pytest.raises(TranscriptError, match=f"{kind.__name__} does not hold|is not what follows"):
            again(network, rebuilt([*messages[:place], others[place], *messages[place + 1 :]]))


def test_another_head_before_the_messages_of_a_round_does_not_hold():
    network = made(5)
    first, second = (frames(transcript(network, number=number)) for number in (1, 2))
    with pytest.raises(TranscriptError):
        again(network, rebuilt([second[0][1], *(message for _, message in first[1:])]))


@pytest.mark.parametrize("kind", [Shares, Masked])
def test_a_member_cannot_be_left_out_of_what_it_was_in(data, kind):
    messages = [message for _, message in frames(data)]
    for place in of_kind(data, kind):
        with pytest.raises(TranscriptError):
            again(made(5), rebuilt([*messages[:place], *messages[place + 1 :]]))


def test_shares_beyond_the_threshold_may_be_missing_and_no_others(data):
    """What only the hash of the file tells: which of more shares than are needed were there."""
    network, messages = made(5), [message for _, message in frames(data)]
    places = of_kind(data, Unmasked)
    assert len(places) == 4
    with pytest.raises(TranscriptError, match="UnrecoverableShare"):
        again(network, rebuilt([message for place, message in enumerate(messages) if place not in places[:1]]))


def test_frames_out_of_order_or_twice_are_refused(data):
    network, messages = made(5), [message for _, message in frames(data)]
    for place in range(len(messages) - 1):
        with pytest.raises(TranscriptError):
            again(network, rebuilt([*messages[: place + 1], *messages[place:]]))
    outcome = messages.pop()
    for place in range(len(messages)):
        with pytest.raises(TranscriptError):
            again(network, rebuilt([*messages[:place], outcome, *messages[place:]]))


@pytest.mark.parametrize("error", [b"", b"NoQuorum", b"TooFewSurvivors"])
def test_an_outcome_that_hides_the_sum_is_found(data, error):
    *messages, last = [message for _, message in frames(data)]
    hidden = dataclasses.replace(Outcome.decode(last), total=NO_SUM, error=error).encode()
    if error:
        with pytest.raises(TranscriptError, match="goes on from there"):
            again(made(5), rebuilt([*messages, hidden]))
    else:  # by itself this is a run that was stopped just then; the journal tells that it was not
        assert again(made(5), rebuilt([*messages, hidden])).total is None


def test_another_roster_is_told(data):
    network = made(5)
    with pytest.raises(TranscriptError, match="of the roster"):
        replay(io.BytesIO(data), network.members, bytes(32))
    other = Network(5, config(colluders=1), seed=1)
    with pytest.raises(TranscriptError, match="Advert does not hold"):
        replay(io.BytesIO(data), other.members, ROSTER)
