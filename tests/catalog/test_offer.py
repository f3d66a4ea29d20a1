"""Offers as bytes of strangers: what was signed is read, everything else is refused in a sentence."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from offering import HEART, KEY, NOW, OTHER, body, offer

from quire.catalog.counts import Count, rounded
from quire.catalog.describe import described
from quire.catalog.errors import BadOffer, OfferRefused
from quire.catalog.form import from_json, to_json
from quire.catalog.offer import MAX_BYTES, Offer
from quire.clients.tasks.schema import Categorical, Image, Numeric, Schema, Target
from quire.privacy.identity.keys import PrivateIdentity
from quire.privacy.signed_body import canonical

GOOD = offer(title="Heart", labels={"sensitivity": "secret", "residency": ["eu"], "purposes": ["a b"]}).encode()

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
numbers = st.floats(-1e12, 1e12, allow_nan=False)


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    def numeric(name: str) -> Numeric:
        low, impute, high = sorted(draw(st.lists(numbers, min_size=3, max_size=3, unique=True)))
        return Numeric(name, low, high, draw(st.booleans()), impute)

    def categorical(name: str) -> Categorical:
        labels = st.lists(names, min_size=1, max_size=4, unique=True) | st.lists(
            st.integers(-9, 9).map(float), min_size=1, max_size=4, unique=True
        )
        return Categorical(name, tuple(draw(labels)), draw(st.booleans()), draw(st.sampled_from(["error", "ignore"])))

    target = Target("\u0000target", "classification", ("no", "yes"), draw(st.none() | numbers))
    if draw(st.booleans()):
        return Schema((), Image(draw(st.integers(1, 4096)), 8, draw(st.sampled_from([1, 3]))), target)
    if draw(st.booleans()):
        target = Target("\u0000target", "regression", low=-1.5, high=2.0)
    unlike = names.filter(lambda name: name != "\u0000target")
    columns = draw(st.lists(unlike, min_size=1, max_size=5, unique=True))
    return Schema(tuple(draw(st.sampled_from([numeric, categorical]))(name) for name in columns), None, target)


@settings(max_examples=40)
@given(schemas())
def test_a_schema_travels_whole(schema: Schema) -> None:
    found = from_json(json.loads(canonical(to_json(schema))))
    assert found == schema
    assert found.sha256 == schema.sha256
    assert Offer.decode(offer(schema).encode()).schema == schema


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(BadOffer):
        Offer.decode(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, item in items for path in paths(item, (*at, key)))]


@given(st.sampled_from(paths(body())[1:]), json_values)
def test_any_value_in_any_place_is_read_as_it_is_or_refused(path: tuple[Any, ...], value: Any) -> None:
    """Signed by a stranger with a key of their own, so that nothing but the reading stands between."""
    whole = json.loads(canonical({**body(), "identity": KEY.public.encode().hex()}))
    place = whole
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    data = Offer(whole, KEY.sign(Offer.TAG, canonical(whole)), KEY.public.fingerprint).encode()
    try:
        found = Offer.decode(data)
    except BadOffer:
        return
    assert found.encode() == data
    assert all(line.isprintable() for pair in described(found) for line in pair)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_any_changed_byte_is_refused(place: int, change: int) -> None:
    data = bytearray(GOOD)
    data[place] ^= change
    with pytest.raises(BadOffer):
        Offer.decode(bytes(data))


@given(st.integers(0, len(GOOD) - 1))
def test_a_torn_offer_is_refused(length: int) -> None:
    with pytest.raises(BadOffer):
        Offer.decode(GOOD[:length])


def test_what_was_signed_is_read() -> None:
    found = Offer.decode(GOOD)
    assert (found.silo, found.text("title"), found.task) == ("clinic-1", "Heart", "classification")
    assert found.public == KEY.public
    assert found.schema == HEART


def test_post_quantum_keys_sign_offers_too() -> None:
    hybrid = PrivateIdentity.from_seed(bytes(32), post_quantum=True)
    assert Offer.decode(offer(key=hybrid).encode()).public == hybrid.public


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[" * 100_000,
        b"{" * 100_000,
        b" " + GOOD,
        GOOD + b"\n",
        b"\xef\xbb\xbf" + GOOD,
        GOOD.replace(b'"format"', b'"format":"quire-offer-1","format"'),
        b'{"body":NaN,"signature":"","signer":"' + b"0" * 64 + b'"}',
        b'{"body":1e999,"signature":"","signer":"' + b"0" * 64 + b'"}',
        b'{"body":' + b"9" * 5000 + b',"signature":"","signer":"' + b"0" * 64 + b'"}',
        b'{"body":{},"signature":"zz","signer":"' + b"0" * 64 + b'"}',
        b"x" * (MAX_BYTES + 1),
    ],
)
def test_what_is_spelled_otherwise_is_refused(data: bytes) -> None:
    with pytest.raises(BadOffer):
        Offer.decode(data)


def test_another_partys_signature_is_refused() -> None:
    mine, theirs = offer(), offer(key=OTHER)
    for wrong in (
        Offer(mine.body, theirs.signature, mine.signer),
        Offer(mine.body, theirs.signature, theirs.signer),
        Offer(theirs.body, mine.signature, mine.signer),
    ):
        with pytest.raises(BadOffer, match="signed"):
            Offer.decode(wrong.encode())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "quire-offer-2"}, "format"),
        ({"silo": "Clinic"}, "name"),
        ({"silo": "../up"}, "name"),
        ({"title": ""}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"contact": "\ud800"}, "edited"),
        ({"issued": -1}, "issued"),
        ({"issued": True}, "issued"),
        ({"expires": NOW}, "expires"),
        ({"expires": NOW + 1831 * 86400}, "expires"),
        ({"expires": 2**40}, "expires"),
        ({"task": "regression"}, "learned"),
        ({"schema_sha256": "0" * 64}, "hash"),
        ({"labels": {"sensitivity": "high", "residency": None, "purposes": None}}, "sensitivity"),
        ({"labels": {"sensitivity": "public", "residency": [], "purposes": None}}, "residency"),
        ({"labels": {"sensitivity": "public", "residency": ["eu", "ch"], "purposes": None}}, "order"),
        ({"labels": {"sensitivity": "public", "residency": None, "purposes": ["a  b"]}}, "purpose"),
        ({"terms": {"privacy": ["none"]}}, "keys"),
        ({"rows": {"form": "exact", "rows": 3, "to": None, "epsilon": None}}, "declared"),
        ({"rows": {"form": "rounded", "rows": 303, "to": 100, "epsilon": None}}, "power of ten"),
        ({"rows": {"form": "rounded", "rows": 303, "to": 1, "epsilon": None}}, "power of ten"),
        ({"rows": {"form": "rounded", "rows": 3000, "to": 100, "epsilon": None}}, "power of ten"),
        ({"rows": {"form": "dp", "rows": 3, "to": None, "epsilon": "11"}}, "epsilon"),
        ({"rows": {"form": "dp", "rows": 3, "to": None, "epsilon": 0.5}}, "epsilon"),
        ({"rows": {"form": "declared", "rows": -1, "to": None, "epsilon": None}}, "whole number"),
        ({"more": 1}, "keys"),
    ],
)
def test_what_an_offer_cannot_say_is_refused_though_it_is_signed(change: dict[str, Any], words: str) -> None:
    whole = {**body(**change), "identity": KEY.public.encode().hex()}
    made = Offer(whole, KEY.sign(Offer.TAG, canonical(whole)), KEY.public.fingerprint)
    with pytest.raises(BadOffer, match=words):
        Offer.decode(made.encode())


@pytest.mark.parametrize(
    "schema",
    [
        replace(HEART, columns=()),
        replace(HEART, image=Image(8, 8, 1)),
        replace(HEART, columns=(HEART.columns[0], HEART.columns[0])),
        replace(HEART, columns=(Numeric("age", 9.0, 1.0, False, 5.0),)),
        replace(HEART, columns=(Numeric("age", 1.0, 9.0, False, 10.0),)),
        replace(HEART, columns=(Numeric("", 1.0, 9.0, False, 5.0),)),
        replace(HEART, columns=(Categorical("sex", ("f", "f"), False, "error"),)),
        replace(HEART, columns=(Categorical("sex", ("f", 1.0), False, "error"),)),
        replace(HEART, columns=(Categorical("sex", (), False, "error"),)),
        replace(HEART, target=Target("age", "classification", ("no", "yes"))),
        replace(HEART, target=Target("sick", "classification", ("no",))),
        replace(HEART, target=Target("sick", "classification", ("a", "b", "c"), 1.0)),
        replace(HEART, target=Target("sick", "regression", ("a", "b"))),
        Schema((), Image(8, 8, 2), HEART.target),
        Schema((), Image(0, 8, 1), HEART.target),
        Schema((), Image(8, 8, 1), Target("sick", "regression")),
    ],
)
def test_a_schema_that_no_file_could_say_is_refused(schema: Schema) -> None:
    with pytest.raises(BadOffer):
        from_json(json.loads(canonical(to_json(schema))))


def test_time_is_held_against_the_clock() -> None:
    good = offer()
    good.check_time(NOW - 300)
    good.check_time(NOW + 86400)
    with pytest.raises(OfferRefused, match="expired"):
        good.check_time(NOW + 86401)
    with pytest.raises(OfferRefused, match="yet to come"):
        good.check_time(NOW - 301)


@given(st.integers(0, 10**12))
def test_a_rounded_number_has_one_digit_and_is_read_again(rows: int) -> None:
    found = rounded(rows)
    assert found.to is not None
    assert len(str(found.rows).rstrip("0")) <= 1
    assert abs(found.rows - rows) * 2 <= found.to
    assert Count.from_json(found.to_json()) == found
