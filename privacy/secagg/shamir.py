"""Shamir's secret sharing of 32-byte secrets over the prime 2**256 + 297, in plain Python integers.

A share is 33 bytes, the value of the polynomial at the holder's roster index plus one. Not constant in time: shares
are made once, at a moment that depends on no secret, and the time of big-integer arithmetic is not in the threat model.

References
----------
A. Shamir, How to share a secret, CACM 22(11), 1979.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import mul

from quire.privacy.secagg.errors import MalformedShare

#: The field: the first prime above 2**256 (Miller-Rabin in the tests), so that every 32-byte secret is an element.
PRIME = 2**256 + 297

SECRET_SIZE = 32
SHARE_SIZE = 33

# Horner's rule multiplies by small numbers (a holder's point), so the remainder may wait a few steps.
_LAZY = 8


def share(secret: bytes, holders: Sequence[int], threshold: int, random_bytes: Callable[[int], bytes]) -> list[bytes]:
    """Split a secret so that any ``threshold`` of the holders can open it and fewer learn nothing.

    Parameters
    ----------
    secret : bytes
        32 bytes.
    holders : sequence of int
        Distinct roster indices, 0 to 65535.
    threshold : int
        At least 1, at most the number of holders.
    random_bytes : callable
        Returns that many uniformly random bytes.

    Returns
    -------
    list of bytes
        One share of 33 bytes for each holder, in their order.
    """
    if len(secret) != SECRET_SIZE or not 1 <= threshold <= len(holders) or len(set(holders)) != len(holders):
        raise ValueError("A secret has 32 bytes, and a threshold is 1 to the number of distinct holders.")
    # 48 bytes for each coefficient: reduced, they are uniform up to 2**-127.
    pool = random_bytes(48 * (threshold - 1))
    if len(pool) != 48 * (threshold - 1):
        raise ValueError("The source of randomness returned another number of bytes than it was asked for.")
    coefficients = [int.from_bytes(pool[at : at + 48], "big") % PRIME for at in range(0, len(pool), 48)]
    constant = int.from_bytes(secret, "big")
    return [_evaluate(coefficients, constant, holder + 1).to_bytes(SHARE_SIZE, "big") for holder in holders]


def _evaluate(coefficients: list[int], constant: int, point: int) -> int:
    value = 0
    for at, coefficient in enumerate(coefficients):
        value = value * point + coefficient
        if at % _LAZY == _LAZY - 1:
            value %= PRIME
    return (value * point + constant) % PRIME


def lagrange(holders: Sequence[int]) -> list[int]:
    """Return the coefficients with which these holders' shares add up to the secret.

    One set of holders opens many secrets, so the coefficients are computed once.

    Parameters
    ----------
    holders : sequence of int
        Distinct roster indices, as many as the threshold.
    """
    points = [holder + 1 for holder in holders]
    if len(set(points)) != len(points):
        raise ValueError("Holders are distinct.")
    product = 1
    for point in points:
        product = product * point % PRIME
    denominators = []
    for one in points:
        value = one
        for at, other in enumerate(points):
            if other != one:
                value *= other - one
            if at % _LAZY == _LAZY - 1:
                value %= PRIME
        denominators.append(value % PRIME)
    return [product * inverse % PRIME for inverse in _inverses(denominators)]


def _inverses(values: list[int]) -> list[int]:
    """Return the inverses of non-zero elements with one inversion (Montgomery's trick)."""
    prefixes, product = [], 1
    for value in values:
        prefixes.append(product)
        product = product * value % PRIME
    inverse = pow(product, -1, PRIME)
    result = []
    for value, prefix in zip(reversed(values), reversed(prefixes), strict=True):
        result.append(inverse * prefix % PRIME)
        inverse = inverse * value % PRIME
    return result[::-1]


def combine(coefficients: Sequence[int], shares: Sequence[bytes]) -> bytes | None:
    """Open a secret from shares, in the order of the holders that the coefficients were computed for.

    Returns
    -------
    bytes or None
        32 bytes; None if the shares add up to an element that is no 32-byte secret, so that one of them is wrong.
    """
    if len(coefficients) != len(shares):
        raise ValueError("There is one coefficient for each share.")
    secret = sum(map(mul, coefficients, (int.from_bytes(item, "big") for item in shares))) % PRIME
    return secret.to_bytes(SECRET_SIZE, "big") if secret < 2**256 else None


def checked(data: bytes, dealer: int) -> bytes:
    """Return a share if it is one: 33 bytes, an element of the field.

    Raises
    ------
    MalformedShare
        Naming its dealer.
    """
    if len(data) != SHARE_SIZE or int.from_bytes(data, "big") >= PRIME:
        raise MalformedShare(f"What member {dealer} dealt is no share.", dealer)
    return data
