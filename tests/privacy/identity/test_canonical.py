"""One value, one spelling."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quire.privacy.identity.canonical import LIMIT, dumps, loads
from quire.privacy.identity.errors import BadEncoding

text = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(1 - LIMIT, LIMIT - 1) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=12,
)


@given(values)
def test_values_come_back(value: Any) -> None:
    data = dumps(value)
    assert loads(data, 10**6) == value
    assert json.loads(data) == value


@given(values, st.integers(0, 3), st.booleans())
def test_another_spelling_of_the_same_value_is_refused(value: Any, indent: int, line_feed: bool) -> None:
    other = json.dumps(value, indent=indent or None).encode() + b"\n" * line_feed
    if other != dumps(value):
        with pytest.raises(BadEncoding):
            loads(other, 10**6)


@given(st.binary(max_size=40))
def test_arbitrary_bytes_are_canonical_or_refused(data: bytes) -> None:
    with contextlib.suppress(BadEncoding):
        assert dumps(loads(data, 100)) == data


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}\n',
        b'{"a":1,"a":2}\n',
        b'{"b":1,"a":2}\n',
        b"1.0\n",
        b"1e2\n",
        b"NaN\n",
        b"Infinity\n",
        b"-0\n",
        b"01\n",
        b"9007199254740992\n",
        b"9" * 5000 + b"\n",
        b'"\\u0041"\n',
        b'"\\n"\n',
        b'"\\u00e9"\n',
        '"é"\n'.encode(),
        b"\xef\xbb\xbf1\n",
        b"1",
        b"1\n\n",
        b" 1\n",
        b"[1, 2]\n",
        b"",
        b"[" * 100_000 + b"]" * 100_000 + b"\n",
        b'{"a":' * 50_000,
    ],
)
def test_what_is_not_canonical_is_refused(data: bytes) -> None:
    with pytest.raises(BadEncoding) as caught:
        loads(data, 10**6)
    assert str(caught.value).endswith(".")


def test_size_is_bounded_before_parsing() -> None:
    with pytest.raises(BadEncoding, match="11 bytes, more than the 10"):
        loads(b"not json at", 10)


@pytest.mark.parametrize("value", [1.5, LIMIT, -LIMIT, "é", "a\n", {1: 2}, (1,), b"x"], ids=repr)
def test_what_has_no_canonical_form_is_not_written(value: Any) -> None:
    with pytest.raises(BadEncoding):
        dumps(value)


def test_no_depth_of_nesting_is_more_than_a_refusal() -> None:
    """Reading and writing anew both recurse, to a different depth: at none of them is there anything but a sentence."""
    for depth in range(1, sys.getrecursionlimit() + 50):
        with contextlib.suppress(BadEncoding):
            loads(b"[" * depth + b"]" * depth + b"\n", 10**6)
