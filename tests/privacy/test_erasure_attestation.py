"""The bytes of an attestation of an erasure: one spelling, every field checked, nothing but it raised for any bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quire.privacy.erasure import ErasureAttestation, ErasureAttestationError, TouchedRun
from quire.privacy.identity.keys import PrivateIdentity
from quire.privacy.signed_body import canonical

IDENTITY = PrivateIdentity.from_seed(b"s" * 32)
TIMES = ("2026-11-22T04:30:00+00:00", "2026-11-23T04:30:00+00:00")
RUN = TouchedRun("5", False, 3, 4, 2, "ab" * 32)


def made(**change: Any) -> ErasureAttestation:
    good = {
        "silo": "clinic-1",
        "request": "0" * 16,
        "times": TIMES,
        "rounds": 3,
        "runs": ([RUN], ["8"], ["9"]),
        "said": None,
    }
    return ErasureAttestation.sign(**{**good, **change}, identity=IDENTITY)


def test_what_is_signed_comes_back_and_verifies() -> None:
    found = ErasureAttestation.decode(made(said="rows deleted").encode())
    found.check(IDENTITY.public)
    assert found.body["said"] == "rows deleted"
    assert found == made(said="rows deleted")


@pytest.mark.parametrize(
    "change",
    [
        {"silo": ""},
        {"silo": "a\nb"},
        {"request": "0" * 15},
        {"request": "G" * 16},
        {"times": ("2026-11-22", TIMES[1])},
        {"rounds": -1},
        {"rounds": True},
        {"said": "two\nlines"},
        {"said": "x" * 501},
        {"runs": ([TouchedRun("x", False, 3, 4, 2, "ab" * 32)], [], [])},
        {"runs": ([TouchedRun("5", False, 3, 2, 2, "ab" * 32)], [], [])},
        {"runs": ([TouchedRun("5", False, 3, 4, 3, "ab" * 32)], [], [])},
        {"runs": ([TouchedRun("5", False, 1, 4, 0, "ab" * 32)], [], [])},
        {"runs": ([TouchedRun("5", False, 3, 4, 2, "ab")], [], [])},
        {"runs": ([], ["eight"], [])},
        {"runs": ([], [], ["eight"])},
    ],
)
def test_what_cannot_be_said_is_not_signed_and_not_read(change: dict[str, Any]) -> None:
    with pytest.raises(ErasureAttestationError):
        made(**change)


@pytest.mark.parametrize("key", sorted(made().body))
def test_a_field_that_is_missing_or_something_else_is_refused(key: str) -> None:
    whole = json.loads(made().encode())
    for value in (None if key != "said" else 1, [], {}, "", -1):
        if key in ("continued", "unknown", "runs") and value == []:
            continue
        body = {**whole["body"], key: value}
        with pytest.raises(ErasureAttestationError):
            ErasureAttestation.decode(canonical({**whole, "body": body}))
    del whole["body"][key]
    with pytest.raises(ErasureAttestationError):
        ErasureAttestation.decode(canonical(whole))


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_in_a_sentence(data: bytes) -> None:
    with pytest.raises(ErasureAttestationError):
        ErasureAttestation.decode(data)


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_bit_can_change(place: int, bit: int) -> None:
    data = bytearray(made(said="rows deleted").encode())
    data[place % len(data)] ^= 1 << bit
    with pytest.raises(ErasureAttestationError):
        ErasureAttestation.decode(bytes(data)).check(IDENTITY.public)
