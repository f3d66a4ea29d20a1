"""Identities and signatures: what verifies, what does not, and that no secret shows."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import pickle
import traceback
from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.privacy.identity import keys
from quire.privacy.identity.errors import BadEncoding, BadSignature, IdentityError
from quire.privacy.identity.hashing import tagged_hash
from quire.privacy.identity.keys import PrivateIdentity, PublicIdentity, verify, verify_ed25519

PARTS = (b"round", b"\x00" * 4)


@cache
def identity(post_quantum: bool = False, seed: int = 1) -> PrivateIdentity:
    return PrivateIdentity.from_seed(bytes([seed]) * 32, post_quantum)


both = pytest.mark.parametrize("post_quantum", [False, True], ids=["ed25519", "hybrid"])


def test_the_hash_is_the_one_of_the_design() -> None:
    plain = (3).to_bytes(8, "big") + b"tag" + (1).to_bytes(8, "big") + b"a" + (0).to_bytes(8, "big")
    assert tagged_hash("tag", b"a", b"") == hashlib.sha256(plain).digest()


@given(st.lists(st.binary(max_size=8), max_size=4), st.lists(st.binary(max_size=8), max_size=4), st.text(max_size=4))
def test_different_parts_never_hash_alike(first: list[bytes], second: list[bytes], tag: str) -> None:
    assert (tagged_hash(tag, *first) == tagged_hash(tag, *second)) == (first == second)
    assert tagged_hash(tag, *first) != tagged_hash(tag + "x", *first)


@both
def test_a_signature_verifies_for_its_tag_parts_and_party_only(post_quantum: bool) -> None:
    own = identity(post_quantum)
    signature = own.sign("advert", *PARTS)
    verify(own.public, "advert", PARTS, signature)
    for public, tag, parts in [
        (own.public, "survivors", PARTS),
        (own.public, "advert", (PARTS[0] + PARTS[1],)),
        (own.public, "advert", (*PARTS, b"")),
        (own.public, "advert", (PARTS[1], PARTS[0])),
        (identity(post_quantum, 2).public, "advert", PARTS),
    ]:
        with pytest.raises(BadSignature):
            verify(public, tag, parts, signature)


def test_a_hybrid_signature_cannot_be_stripped() -> None:
    own = identity(True)
    signature = own.sign("advert", *PARTS)
    stripped = b"\x01\x01" + signature[2:66]
    with pytest.raises(BadSignature, match="ML-DSA-65"):
        verify(own.public, "advert", PARTS, stripped)
    # Nor does the half verify for an identity that has the same Ed25519 key and no other: it was made for both keys.
    with pytest.raises(BadSignature, match="Ed25519 signature does not verify"):
        verify(PublicIdentity(own.public.ed25519), "advert", PARTS, stripped)
    with pytest.raises(BadSignature, match="not made with Ed25519, which"):
        verify(PublicIdentity(own.public.ed25519), "advert", PARTS, signature)


def test_both_halves_of_a_hybrid_signature_are_needed() -> None:
    own, other = identity(True), identity(True, 2)
    good, foreign = own.sign("advert", *PARTS), other.sign("advert", *PARTS)
    for mixed in (good[:66] + foreign[66:], foreign[:66] + good[66:]):
        with pytest.raises(BadSignature):
            verify(own.public, "advert", PARTS, mixed)


@both
def test_the_short_signature_is_a_kind_of_its_own(post_quantum: bool) -> None:
    own = identity(post_quantum)
    short = own.sign_ed25519("survivors", *PARTS)
    verify_ed25519(own.public, "survivors", PARTS, short)
    for wrong in (short[:-1], own.sign("survivors", *PARTS)[2:66], b""):
        with pytest.raises(BadSignature):
            verify_ed25519(own.public, "survivors", PARTS, wrong)
    with pytest.raises(BadSignature):
        verify(identity(False).public, "survivors", PARTS, b"\x01\x01" + identity(False).sign_ed25519("survivors"))


@both
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_change_of_a_signature_is_noticed(post_quantum: bool, data: st.DataObject) -> None:
    own = identity(post_quantum)
    signature = bytearray(own.sign("advert", *PARTS))
    match data.draw(st.sampled_from(["flip", "cut", "add"])):
        case "flip":
            place = data.draw(st.integers(0, len(signature) - 1))
            signature[place] ^= data.draw(st.integers(1, 255))
        case "cut":
            del signature[data.draw(st.integers(0, len(signature) - 1)) :]
        case _:
            signature += data.draw(st.binary(min_size=1, max_size=4000))
    with pytest.raises(BadSignature):
        verify(own.public, "advert", PARTS, bytes(signature))


@both
def test_an_identity_is_its_seed(post_quantum: bool) -> None:
    again = PrivateIdentity.from_seed(bytes([1]) * 32, post_quantum)
    assert again.public == identity(post_quantum).public
    assert identity(True).public.ed25519 == identity(False).public.ed25519
    assert identity(True).public.fingerprint != identity(False).public.fingerprint
    if not post_quantum:  # Ed25519 is deterministic
        assert identity().sign("x", b"y") == again.sign("x", b"y")
    for length in (0, 31, 33):
        with pytest.raises(ValueError, match="32 bytes"):
            PrivateIdentity.from_seed(bytes(length), post_quantum)


@both
def test_encodings_come_back(post_quantum: bool) -> None:
    own = identity(post_quantum)
    assert PublicIdentity.decode(own.public.encode()) == own.public
    assert PrivateIdentity.decode_secret(own.encode_secret()).public == own.public


@given(st.binary(max_size=2100))
def test_arbitrary_bytes_are_an_identity_or_refused(data: bytes) -> None:
    with contextlib.suppress(BadEncoding):
        assert PublicIdentity.decode(data).encode() == data


def small_order_points() -> list[bytes]:
    """The encodings, canonical or not, of the eight points of order 1, 2, 4 and 8, found by arithmetic."""
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p) % p
    # A point of order 8 doubles to one of order 4, where y = 0: then x^2 = -y^2, and the curve says 2y^2 = 1 - dy^4.
    roots = [y for y in keys._SMALL_ORDER if y not in (0, 1, p - 1)]
    for y in roots:
        assert (d * y**4 + 2 * y * y - 1) % p == 0
    ys = [0, 1, p - 1, *roots]
    return [(y | sign << 255).to_bytes(32, "little") for y in (*ys, p, p + 1) for sign in (0, 1)]


def test_keys_under_which_anything_verifies_are_refused() -> None:
    identity_point = (1).to_bytes(32, "little")
    forged = identity_point + bytes(32)
    Ed25519PublicKey.from_public_bytes(identity_point).verify(forged, b"anything")  # why it is refused
    for point in small_order_points():
        with pytest.raises(BadEncoding, match="prove nothing"):
            PublicIdentity(point)


def test_lengths_of_keys_are_checked() -> None:
    own = identity(True).public
    for first, second in ((own.ed25519[:-1], None), (own.ed25519, b""), (own.ed25519, bytes(1953))):
        with pytest.raises(BadEncoding):
            PublicIdentity(first, second)


@both
def test_a_private_identity_does_not_show_pickle_or_copy_its_secrets(post_quantum: bool) -> None:
    own = identity(post_quantum)
    shown = f"{own} {own!r} {vars(own)} {own.public!r} {[own]} { ({'k': own}) }"
    for refuse in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither pickled nor copied") as caught:
            refuse(own)
        shown += "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    secret = own.encode_secret()
    assert_hidden([secret[2:34], *([secret[34:]] if post_quantum else [])], shown)


@settings(deadline=None, max_examples=30)
@given(seed=st.binary(min_size=32, max_size=32), junk=st.binary(max_size=80))
def test_no_refusal_quotes_a_secret(seed: bytes, junk: bytes) -> None:
    own = PrivateIdentity.from_seed(seed)
    secret = own.encode_secret()
    for data in (secret + junk + b"x", secret[:-1], b"\x02" + secret[1:]):
        with pytest.raises(IdentityError) as caught:
            PrivateIdentity.decode_secret(data)
        assert_hidden([secret[2:34]], str(caught.value))


def assert_hidden(secrets: list[bytes], text: str) -> None:
    for secret in secrets:
        assert secret.hex() not in text
        assert secret.hex()[:16] not in text
        assert repr(secret)[2:-1] not in text
