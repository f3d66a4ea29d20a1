"""Whoever holds a transcript can change it and seal it anew: without the members' keys nothing of that passes."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from secagg_network import ROSTER, Network, config, made
from secagg_transcripts import again, frames, rebuilt, silent, transcript

from quire.privacy.secagg.errors import SecAggError
from quire.privacy.secagg.messages import Config, Masked, Shares, Survivors, Unmasked
from quire.privacy.secagg.recording import TranscriptError, replay
from quire.privacy.secagg.transcript import NO_SUM, Head, Outcome


@pytest.fixture(scope="module")
def data() -> bytes:
    """A transcript with a dropout after U2, whose seeds are opened."""
    network = made(5)
    silent(network, ("mask", 3))
    return transcript(network)


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
