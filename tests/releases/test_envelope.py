"""Envelopes: only who they are for reads them, and not one byte of them can be another one."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from released import NOW, RELEASER, STRANGER, envelope_of, header_of, key_of, parts_of, recipient_of

from quire.privacy.identity.canonical import dumps
from quire.privacy.identity.keys import PrivateIdentity
from quire.releases.envelope import MAGIC, Envelope, seal
from quire.releases.errors import Refused, ReleaseError
from quire.releases.header import CARD, MODEL, RUN, SCHEMA, SETTINGS, Header, Mark, UnderCharter
from quire.releases.recipients import SEALED_SIZE

NAMES = ("berlin", "basel")


@cache
def sealed() -> bytes:
    return envelope_of(*NAMES).encode()


def opened(data: bytes, name: str = "berlin") -> dict[str, bytes]:
    envelope = Envelope.decode(data)
    envelope.check()
    return envelope.open(key_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_recipient_reads_what_was_sealed(name):
    assert opened(sealed(), name) == parts_of()


def test_nobody_else_does():
    with pytest.raises(Refused, match="not for this key"):
        opened(sealed(), "bern")


@settings(max_examples=25, deadline=None)
@given(
    st.fixed_dictionaries(
        {MODEL: st.binary(max_size=300), SETTINGS: st.binary(max_size=20), RUN: st.binary(max_size=20)},
        optional={CARD: st.binary(max_size=100), SCHEMA: st.binary(max_size=100)},
    ),
    st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=40),
)
def test_whatever_the_parts_and_the_purpose(parts, purpose):
    parts = {name: parts[name] for name in (MODEL, CARD, SETTINGS, RUN, SCHEMA) if name in parts}
    try:
        header = header_of(parts, *NAMES, purpose=purpose)
        data = seal(header, parts, [recipient_of(name) for name in NAMES], RELEASER).encode()
        found = Envelope.decode(data)
    except Refused:  # a purpose that is not in Unicode's normal form
        return
    assert found.header == header
    assert found.encode() == data
    assert opened(data) == opened(data, "basel") == parts


def test_post_quantum_signatures_and_every_field_travel():
    identity = PrivateIdentity.from_seed(b"hybrid".ljust(32), post_quantum=True)
    more = {"charter": UnderCharter("01" * 32, 3, True), "watermark": Mark(64, "23" * 32), "previous": "45" * 32}
    envelope = envelope_of("berlin", identity=identity, version=2, **more)
    assert Envelope.decode(envelope.encode()).header == envelope.header
    assert opened(envelope.encode()) == parts_of()


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(sealed()) - 1), st.integers(0, 7))
def test_any_flipped_bit_is_refused(at, bit):
    data = bytearray(sealed())
    data[at] ^= 1 << bit
    with pytest.raises(Refused):
        opened(bytes(data))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, len(sealed())), st.binary(max_size=40))
def test_cut_off_or_continued_it_is_refused(at, more):
    data = sealed()[:at] + more
    if data != sealed():
        with pytest.raises(Refused):
            opened(data)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=400), st.binary(max_size=400).map(MAGIC.__add__)))
def test_no_bytes_are_more_than_refused(data):
    with pytest.raises(Refused):
        opened(data)


def test_parts_of_two_envelopes_do_not_mix():
    one, other = Envelope.decode(sealed()), envelope_of(*NAMES, purpose="Another purpose.")
    for mixed in (
        replace(one, header=other.header),
        replace(one, sealed=other.sealed),
        replace(one, sealed=one.sealed[::-1]),
        replace(one, payload=other.payload),
        replace(one, signature=other.signature),
    ):
        with pytest.raises(Refused, match="signature"):
            mixed.check()


def test_who_knows_the_content_key_cannot_put_something_else_in():
    """A recipient signs the mix anew: it is then the releaser, and the payload still does not fit the header."""
    one, other = envelope_of(*NAMES), envelope_of(*NAMES, purpose="Another purpose.")
    for mixed in (replace(one, sealed=other.sealed), replace(one, payload=other.payload)):
        with pytest.raises(Refused, match="does not open"):
            mixed.open(key_of("berlin"))
    swapped = replace(one, sealed=one.sealed[::-1])
    with pytest.raises(Refused, match="sealed to another key"):
        swapped.open(key_of("berlin"))


def test_another_releaser_cannot_sign_in_its_name():
    envelope = envelope_of("berlin", identity=STRANGER)
    forged = replace(envelope, header=replace(envelope.header, releaser=RELEASER.public))
    with pytest.raises(Refused, match="signature"):
        forged.check()


@pytest.mark.parametrize(
    "change",
    [
        {"format": "quire-envelope-2"},
        {"name": "../up"},
        {"version": 0},
        {"version": True},
        {"previous": "x"},
        {"expires": NOW},
        {"issued": -1},
        {"expires": 10**12},
        {"purpose": ""},
        {"purpose": "a\\u0007"},
        {"purpose": "\\u202e"},
        {"purpose": "\\u005a"},
        {"parts": []},
        {"parts": [{"name": "../x", "sha256": "ab" * 32, "size": 1}]},
        {"parts": [{"name": MODEL, "sha256": "ab" * 32, "size": 2**40}]},
        {"recipients": []},
        {"recipients": ["ab" * 32, "ab" * 32]},
        {"recipients": ["ab"]},
        {"releaser": "0101" + "00" * 32},
        {"run": {"code": None, "model": "ab" * 32, "roster": None, "simulated": None, "verified": "given"}},
        {"run": {"code": None, "model": "ab" * 32, "roster": "ab" * 32, "simulated": 1, "verified": "given"}},
        {"charter": {"checked": 1, "hash": "ab" * 32, "version": 1}},
        {"watermark": {"bits": 0, "commitment": "ab" * 32}},
        {"more": 1},
    ],
)
def test_a_header_says_what_it_can_say_and_nothing_else(change):
    good = json.loads(envelope_of("berlin").header.data)
    assert Header.read(dumps(good)).name == "heart"
    with pytest.raises(Refused):
        Header.read(dumps({**good, **change}))


def test_a_seal_is_for_what_the_header_says():
    parts = parts_of()
    header = header_of(parts, "berlin")
    for wrong in (
        lambda: seal(header, {**parts, RUN: b"other"}, [recipient_of("berlin")], RELEASER),
        lambda: seal(header, parts, [recipient_of("basel")], RELEASER),
        lambda: seal(header, parts, [recipient_of("berlin")], STRANGER),
    ):
        with pytest.raises(ReleaseError):
            wrong()


def test_a_sealed_key_has_the_size_that_is_documented():
    assert {len(one) for one in envelope_of(*NAMES).sealed} == {SEALED_SIZE} == {1168}
