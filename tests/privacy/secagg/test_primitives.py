"""Thresholds, secret sharing, masks: held against brute force and against slower, plainer code."""

import itertools

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from secagg_network import source

from quire.privacy.dp.wire import pack, unpack
from quire.privacy.secagg import masks, shamir
from quire.privacy.secagg.errors import BY_NUMBER, BadVector, CohortTooSmall, MalformedShare, SecAggError
from quire.privacy.secagg.params import default_colluders, thresholds


@pytest.mark.parametrize(
    ("n", "c", "t"), [(2, 0, 2), (3, 0, 2), (4, 1, 3), (5, 1, 4), (6, 1, 4), (9, 2, 6), (10, 3, 7), (100, 33, 67)]
)
def test_the_thresholds_of_the_specification(n, c, t):
    assert default_colluders(n) == c
    limits = thresholds(n, c)
    assert limits.threshold == t
    assert limits.min_survivors == max(t, c + 2)
    assert limits.noise_colluders == c + 1
    assert limits.dropouts == n - limits.min_survivors


def test_thresholds_by_brute_force():
    for n in range(2, 201):
        for c in range(n + 1):
            try:
                limits = thresholds(n, c)
            except CohortTooSmall:
                least = max((n + c) // 2 + 1, c + 2)
                assert least > n
                continue
            t = limits.threshold
            # No split of the honest lets both halves, with all colluders signing both, reach the quorum ...
            honest = n - c
            assert not any(min(a + c, honest - a + c) >= t for a in range(honest + 1))
            # ... which one signature less would allow: t is the least such threshold.
            assert any(min(a + c, honest - a + c) >= t - 1 for a in range(honest + 1)) or t - 1 <= c
            assert limits.min_survivors - c >= 2
            assert t <= limits.min_survivors <= n
            assert limits.min_survivors - limits.noise_colluders >= 1


@pytest.mark.parametrize(
    ("n", "c", "least"), [(1, 0, 0), (0, 0, 0), (3, 2, 0), (4, 3, 0), (5, -1, 0), (4, 1, 5), (5000, 1, 0)]
)
def test_cohorts_that_cannot_keep_the_thresholds_are_refused(n, c, least):
    with pytest.raises(CohortTooSmall):
        thresholds(n, c, least)


def test_every_error_has_its_own_number_and_no_word_of_a_peer():
    assert len(BY_NUMBER) == len(SecAggError.__subclasses__())
    assert all(0 < number < 256 for number in BY_NUMBER)
    assert sorted(BY_NUMBER) == list(range(1, len(BY_NUMBER) + 1))


def test_the_field_is_one():
    p, odd, twos = shamir.PRIME, shamir.PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in range(2, 42):
        x = pow(base, odd, p)
        if x in (1, p - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % p
            if x == p - 1:
                break
        else:
            pytest.fail(f"{base} is a witness")
    assert not any(pow(3, 2**256 + gap - 1, 2**256 + gap) == 1 for gap in range(1, 297, 2))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_threshold_of_holders_opens_a_secret_and_fewer_are_consistent_with_every_other(data):
    holders = sorted(data.draw(st.sets(st.integers(0, 65535), min_size=1, max_size=12)))
    threshold = data.draw(st.integers(1, len(holders)))
    secret = data.draw(st.binary(min_size=32, max_size=32))
    shares = dict(zip(holders, shamir.share(secret, holders, threshold, source(1, secret).bytes), strict=True))
    chosen = data.draw(st.permutations(holders))[:threshold]
    assert shamir.combine(shamir.lagrange(chosen), [shares[i] for i in chosen]) == secret
    if threshold > 1:
        # For t - 1 shares and *any* secret there is exactly one share of a t-th holder that fits: they say nothing.
        other = data.draw(st.binary(min_size=32, max_size=32))
        coefficients = shamir.lagrange(chosen)
        known = sum(c * int.from_bytes(shares[i], "big") for c, i in zip(coefficients[1:], chosen[1:], strict=True))
        fitting = (int.from_bytes(other, "big") - known) * pow(coefficients[0], -1, shamir.PRIME) % shamir.PRIME
        forged = [fitting.to_bytes(33, "big"), *(shares[i] for i in chosen[1:])]
        assert shamir.combine(coefficients, forged) == other


def test_the_polynomial_is_evaluated_as_written_down():
    coins = source(4).bytes(48 * 20)
    secret = bytes(range(32))
    holders = list(range(0, 2000, 97))
    shares = shamir.share(secret, holders, 21, lambda n: coins[:n])
    terms = [int.from_bytes(coins[at : at + 48], "big") for at in range(0, len(coins), 48)]
    for holder, share in zip(holders, shares, strict=True):
        x = holder + 1
        value = int.from_bytes(secret, "big") + sum(a * x ** (20 - at) for at, a in enumerate(terms))
        assert int.from_bytes(share, "big") == value % shamir.PRIME


def test_fewer_than_the_threshold_give_something_else():
    secret = bytes(31) + b"\x07"
    for t, n in itertools.combinations(range(2, 8), 2):
        shares = shamir.share(secret, range(n), t, source(t, n).bytes)
        assert shamir.combine(shamir.lagrange(range(t - 1)), shares[: t - 1]) != secret


def test_a_share_is_an_element_of_the_field():
    top = (shamir.PRIME - 1).to_bytes(33, "big")
    assert shamir.checked(top, 1) == top
    for wrong in (shamir.PRIME.to_bytes(33, "big"), b"\xff" * 33, bytes(32), bytes(34), b""):
        with pytest.raises(MalformedShare) as caught:
            shamir.checked(wrong, 5)
        assert caught.value.peer == 5


def keystream(seed, length):
    stream = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor().update(bytes(4 * length))
    return np.frombuffer(stream, dtype="<u4")


@pytest.mark.parametrize("length", [1, 3, 16384, 16385, 40_001])
@pytest.mark.parametrize("count", [0, 1, 5, 300])
def test_masks_are_the_whole_keystreams_whatever_the_blocks(length, count):
    seeds = [source(1, i).bytes(32) for i in range(count)]
    minus = seeds[: count // 2]
    vector = source(2).uint32(length)
    expected = vector.copy()
    for seed in seeds:
        expected += keystream(seed, length)
    for seed in minus:
        expected -= keystream(seed, length)
    masks.add_masks(vector, seeds, minus)
    np.testing.assert_array_equal(vector, expected)


@pytest.mark.parametrize("bits", [16, 24, 32])
@pytest.mark.parametrize("length", [1, 2, 16384, 16387])
def test_packed_vectors_add_up_as_unpacked_ones_do(bits, length):
    one, other = source(1).uint32(length), source(2).uint32(length)
    total = one.copy()
    masks.add_packed(total, pack(other, bits), bits)
    np.testing.assert_array_equal(total, one + unpack(pack(other, bits), bits, length))
    with pytest.raises(BadVector):
        masks.add_packed(total, pack(other, bits)[:-1], bits)
