"""A releaser who signs whatever it likes: nothing that it signs is more than refused, or what a header can say."""

from __future__ import annotations

import copy
import json
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from private_runs import leaves, put
from released import NOW, RELEASER, STRANGER, envelope_of

from quire.privacy.identity.canonical import dumps
from quire.privacy.identity.errors import IdentityError
from quire.releases import book
from quire.releases.errors import Refused, RegistryDamaged
from quire.releases.header import Header

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53) + 1, 2**53 - 1),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=70),
    st.sampled_from(["ab" * 32, "\\u202e", "../../up", "released", "0101" + "00" * 32]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "sha256", "size", "bits", "hash", "model"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@cache
def header() -> dict:
    return json.loads(envelope_of("berlin", "basel").header.data)


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_a_header_with_anything_in_it(data):
    told = copy.deepcopy(header())
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from([*(path for path, _ in leaves(told)), *((name,) for name in told)]))
        try:
            put(told, path, data.draw(VALUES))
        except (TypeError, KeyError, IndexError, AttributeError):  # an earlier change took that place away
            continue
    encoded = dumps(told)
    try:
        found = Header.read(encoded)
    except Refused:
        return
    assert found.data == encoded


@cache
def first() -> bytes:
    return book.first_line(RELEASER, bytes(16), NOW)


@cache
def body() -> dict:
    entry = book.Entry(book.RELEASED, "heart", 1, "ab" * 32, NOW, NOW + 1)
    return json.loads(book.next_line(book.read_book([first()], "book"), entry, RELEASER))["body"]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(body())), VALUES)
def test_a_line_with_anything_in_it(key, value):
    try:
        line = book._signed({**body(), key: value}, RELEASER)
    except IdentityError:
        return
    try:
        found = book.read_book([first(), line], "book")
    except RegistryDamaged:
        return
    assert found.models["heart" if key != "name" else value].current == 1


def test_lines_of_another_releaser_and_of_another_registry_are_none():
    for line in (book._signed(body(), STRANGER), book._signed({**body(), "previous": "cd" * 32}, RELEASER)):
        with pytest.raises(RegistryDamaged, match="line 2"):
            book.read_book([first(), line], "book")
    with pytest.raises(RegistryDamaged, match="line 1"):
        book.read_book([dumps({"body": {}, "signature": "ab"})], "book")
