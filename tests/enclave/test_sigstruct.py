"""Signatures of enclaves, made here byte by byte."""

import pytest
from enclaves import signature, signer_of
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.enclave.errors import EnclaveError
from quire.enclave.sigstruct import SIZE, Sigstruct


def test_a_signature_is_read_where_the_manual_says_that_things_are():
    data = signature()
    assert Sigstruct.decode(data) == Sigstruct("33" * 32, signer_of(data), 7, 9, False, "2026-11-22")


@pytest.mark.parametrize(
    ("flags", "mask", "debug"), [(0x6, 2**64 - 1, True), (0x4, 2**64 - 3, True), (0x4, 0x2, False)]
)
def test_debug_is_told_also_where_the_mask_leaves_it_open(flags, mask, debug):
    assert Sigstruct.decode(signature(flags=flags, mask=mask)).debug is debug


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data[:-1], "1808 bytes"),
        (lambda data: data + b"\0", "1808 bytes"),
        (lambda data: b"\x07" + data[1:], "begin"),
        (lambda data: data[:24] + b"\x02" + data[25:], "begin"),
        (lambda data: data[:512] + b"\x05" + data[513:], "not valid"),
        (lambda data: data[:128] + bytes(384) + data[512:], "not valid"),
        (lambda data: data[:516] + b"\xff" * 384 + data[900:], "not valid"),
    ],
)
def test_what_is_no_signature_is_refused(change, words):
    with pytest.raises(EnclaveError, match=words):
        Sigstruct.decode(change(signature()))


@settings(max_examples=60)
@given(st.sampled_from([*range(128), *range(516, 1028)]), st.integers(0, 7))
def test_no_flipped_bit_of_what_is_signed_is_believed(at, bit):
    data = bytearray(signature())
    data[at] ^= 1 << bit
    with pytest.raises(EnclaveError):
        Sigstruct.decode(bytes(data))


@given(st.one_of(st.binary(max_size=100), st.binary(min_size=SIZE, max_size=SIZE)))
def test_garbage_is_refused(data):
    with pytest.raises(EnclaveError):
        Sigstruct.decode(data)
