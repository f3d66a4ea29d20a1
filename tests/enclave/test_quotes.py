"""Quotes as bytes: what is read, what is refused, what the report data bind together."""

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sgx_chain import MEASUREMENT, SIGNER, authority

from quire.enclave.errors import QuoteRefused
from quire.enclave.quotes import MAX_BYTES, Quote, report_data
from quire.privacy.identity.keys import PrivateIdentity

ONE = PrivateIdentity.from_seed(b"1" * 32).public
TWO = PrivateIdentity.from_seed(b"2" * 32).public
DATA = bytes(range(64))


def test_a_quote_is_read_where_intel_says_that_things_are():
    found = Quote.decode(authority().quote(DATA, flags=0x7))
    assert (found.measurement, found.signer) == (MEASUREMENT.hex(), SIGNER.hex())
    assert (found.product, found.version, found.flags, found.debug, found.data) == (1, 3, 7, True, DATA)
    assert not Quote.decode(authority().quote(DATA)).debug


def test_report_data_are_the_hash_of_domain_key_nonce_and_policy():
    parts = (b"quire/enclave/attestation/1", ONE.encode(), b"n" * 32, b"p" * 32)
    expected = hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()
    assert report_data(ONE, b"n" * 32, b"p" * 32) == expected + bytes(32)


def test_report_data_bind_every_part():
    base = (ONE, b"n" * 32, b"p" * 32)
    others = [(TWO, *base[1:]), (ONE, b"m" * 32, b"p" * 32), (ONE, b"n" * 32, b"q" * 32), (ONE, b"p" * 32, b"n" * 32)]
    assert len({report_data(*one) for one in (base, *others)}) == 5


@pytest.mark.parametrize("sizes", [(31, 32), (33, 32), (32, 31), (0, 32), (32, 64)])
def test_report_data_take_whole_nonces_and_hashes_only(sizes):
    with pytest.raises(ValueError, match="32 bytes"):
        report_data(ONE, bytes(sizes[0]), bytes(sizes[1]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda raw: raw[:-1], "was cut"),
        (lambda raw: raw + b"\0", "something was added"),
        (lambda raw: raw[:100], "cut short"),
        (lambda raw: b"", "cut short"),
        (lambda raw: struct.pack("<H", 4) + raw[2:], "version 4"),
        (lambda raw: raw[:2] + struct.pack("<H", 3) + raw[4:], "key type 3"),
        (lambda raw: raw[:4] + struct.pack("<I", 0x81) + raw[8:], "TEE type 129"),
        (lambda raw: raw + bytes(MAX_BYTES), "at most"),
    ],
)
def test_what_is_no_quote_is_refused_with_its_reason(change, words):
    with pytest.raises(QuoteRefused, match=words) as caught:
        Quote.decode(change(authority().quote(DATA)))
    assert caught.value.reason == "malformed"


@given(st.binary(max_size=2000))
def test_garbage_is_refused(raw):
    with pytest.raises(QuoteRefused):
        Quote.decode(raw)


@given(st.data())
def test_every_truncation_is_refused(data):
    raw = authority().quote(DATA)
    with pytest.raises(QuoteRefused):
        Quote.decode(raw[: data.draw(st.integers(0, len(raw) - 1))])
