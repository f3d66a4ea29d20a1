"""A charter's document: one spelling, and everything else refused in a sentence."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

import pytest
from charters import BEGINS, ISSUED, NAMES, charter, key, member, signed
from hypothesis import given, settings
from hypothesis import strategies as some

from quire.charter.chain import verified
from quire.charter.document import to_json
from quire.charter.errors import CharterError
from quire.charter.parts import Exit, Release, read_number, read_text, spelled_number, spelled_text
from quire.charter.signed import SignedCharter
from quire.privacy.identity.canonical import dumps

DOCUMENT = signed(charter())


def test_a_charter_is_read_as_it_was_written() -> None:
    release = Release("a" * 64, "b" * 64)
    for found in (
        charter(),
        charter(code=frozenset({release}), approval="each_run"),
        charter(privacy=frozenset({"none"}), members=tuple(member(n, epsilon=None, delta=None) for n in NAMES)),
        charter(members=tuple(member(name, identity=key(name, True).public) for name in NAMES)),
    ):
        again = SignedCharter.decode(SignedCharter(found).encode()).charter
        assert again == found
        assert again.hash == found.hash
        assert again.purpose == "Research on the heart, Zürich.\nNothing else."


def test_signatures_move_no_hash() -> None:
    assert DOCUMENT.charter.hash == charter().hash
    assert SignedCharter.decode(DOCUMENT.encode()) == DOCUMENT


@pytest.mark.parametrize("post_quantum", [False, True])
def test_any_byte_that_is_changed_is_found(post_quantum: bool) -> None:
    """Every byte of the document, one bit of each: refused when it is read, or by the signatures in it."""
    members = tuple(member(name, identity=key(name, post_quantum).public) for name in NAMES)
    made = SignedCharter(charter(members=members))
    for name in NAMES[:2]:
        made = made.sign(key(name, post_quantum), ISSUED + 100)
    whole = made.encode()
    _checked(whole)
    step = 1 if not post_quantum else 97  # verifying costs more, and the code is the same
    for at in range(0, len(whole), step):
        data = whole[:at] + bytes([whole[at] ^ (1 << at % 7)]) + whole[at + 1 :]
        with pytest.raises(CharterError):
            _checked(data)
    for cut in (0, 1, len(whole) // 2, len(whole) - 1):
        with pytest.raises(CharterError):
            _checked(whole[:cut])


def _checked(data: bytes) -> None:
    verified([SignedCharter.decode(data)])  # with nothing pinned


CONTRADICTIONS = [
    ({"charter_id": "Heart"}, "lower-case"),
    ({"version": 0}, "'version' must be a whole number from 1"),
    ({"version": 2}, "names the version before"),
    ({"previous": "a" * 64}, "names the version before"),
    ({"version": 2, "previous": "A" * 64}, "64 hexadecimal digits"),
    ({"purpose": ""}, "'purpose' must be a text"),
    ({"purpose": "a\u202eb"}, "turn its direction"),
    ({"purpose": "e\u0301"}, "printable text"),
    ({"purpose": "a" * 4001}, "1 to 4000 characters"),
    ({"members": (member("bern"),)}, "2 to 256 members"),
    ({"members": (member("bern"), member("basel"))}, "in the order of their names"),
    ({"members": (member("basel"), member("basel"))}, r"the same name \(basel\)"),
    ({"members": (member("basel"), member("bern", identity=key("basel").public))}, "the same Ed25519 key"),
    ({"needed": 1}, "more than half of the 3"),
    ({"amendments": 4}, "at most all of them"),
    ({"needed": True}, "'needed' must be"),
    ({"tasks": frozenset()}, "'tasks' must list from 1"),
    ({"tasks": frozenset({"A"})}, "An entry of 'tasks' must be a word"),
    ({"code": frozenset()}, "'code' must list from 1"),
    ({"privacy": frozenset({"none", "record"})}, "stands alone"),
    ({"privacy": frozenset({"none"})}, "has a cap on epsilon"),
    ({"members": tuple(member(n, epsilon=None, delta=None) for n in NAMES)}, "lacks its caps"),
    ({"min_cohort": 4}, "'min_cohort' must be a whole number from 2 to 3"),
    ({"colluders": 2}, "fewer than two honest silos"),
    ({"approval": "some"}, "'approval' must be none or each_run"),
    ({"not_before": ISSUED - 1}, "backdated"),
    ({"not_after": BEGINS}, "later than 'not_before'"),
    ({"not_after": 10**15}, "between the years"),
    ({"issued": 1.5}, "between the years"),
]


@pytest.mark.parametrize(("changes", "words"), CONTRADICTIONS)
def test_contradictions_are_refused_in_a_sentence(changes: dict, words: str) -> None:
    with pytest.raises(CharterError, match=words) as refused:
        charter(**changes)
    assert str(refused.value).endswith(".")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: member("Basel"), "name of a member"),
        (lambda: member("basel", residency="The EU"), "residency of basel"),
        (lambda: member("basel", epsilon=0.0), "greater than 0"),
        (lambda: member("basel", epsilon=float("inf")), "at most 1000"),
        (lambda: member("basel", epsilon=float("nan")), "greater than 0"),
        (lambda: member("basel", delta=1.0), "less than 1"),
        (lambda: member("basel", delta=None), "or on neither"),
        (lambda: Release("a" * 64, "b"), "64 hexadecimal digits"),
        (lambda: Exit("a", "b", "c", -1), "use_until"),
        (lambda: Exit("a", "b", " "), "'use' of the exit rules"),
    ],
)
def test_parts_are_checked_when_they_are_made(make, words: str) -> None:
    with pytest.raises(CharterError, match=words):
        make()


def _with(**changes: object) -> bytes:
    return dumps({"charter": {**to_json(charter()), **changes}, "signatures": []})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}\n",
        b"\xff\n",
        b"[" * 100_000,
        _with(format="quire-charter-2"),
        _with(extra=1),
        _with(tasks=["tabular", "tabular"]),
        _with(privacy=["record", "record"]),
        _with(tasks=[["tabular"]]),
        _with(tasks="tabular"),
        _with(members=None),
        _with(members=[{**to_json(charter())["members"][0], "epsilon": "4"}] * 2),
        _with(exit={"kept": "a"}),
        _with(purpose='a"b'),
        _with(purpose="\\ud800"),
        _with(purpose="\\u0041"),
        _with(code=[]),
        _with(code=[{"bundle": "a" * 64}]),
        _with(version=True),
        dumps({"charter": to_json(charter())}),
        dumps({"charter": to_json(charter()), "signatures": [{"identity": "a", "signature": "aa", "signed_at": 1}]}),
        dumps({"charter": to_json(charter()), "signatures": [{"identity": "aa", "signature": "aa", "signed_at": -1}]}),
        json.dumps({"charter": to_json(charter()), "signatures": []}).encode(),
    ],
)
def test_other_documents_are_refused(data: bytes) -> None:
    with pytest.raises(CharterError) as refused:
        SignedCharter.decode(data)
    assert str(refused.value).endswith(".")


@given(some.binary(max_size=300))
def test_whatever_bytes_come_nothing_but_a_refusal_does(data: bytes) -> None:
    with pytest.raises(CharterError):
        SignedCharter.decode(data)


@settings(max_examples=50, deadline=None)
@given(some.recursive(some.none() | some.booleans() | some.integers(-9, 9) | some.text("ab", max_size=3), some.lists))
def test_a_field_of_another_kind_is_refused_or_read_as_it_stands(value: object) -> None:
    for name in to_json(charter()):
        data = _with(**{name: value})
        with suppress(CharterError):
            assert SignedCharter.decode(data).encode() == data


@given(some.text(max_size=50))
def test_texts_have_one_spelling(text: str) -> None:
    assert read_text(spelled_text(text), "it") == text
    assert spelled_text(text).isascii()
    assert spelled_text(text).isprintable()


@given(some.floats(min_value=1e-300, max_value=1e15))
def test_numbers_have_one_spelling(number: float) -> None:
    assert read_number(spelled_number(number), "it") == number


@pytest.mark.parametrize("text", ["4", "04.0", "4.00", "1e-5", "1E-05", "inf", "nan", "-1.0", "4.0 ", "\u0664.0", 4.0])
def test_other_spellings_of_numbers_are_refused(text: object) -> None:
    with pytest.raises(CharterError):
        read_number(text, "it")


def test_equal_members_make_equal_charters() -> None:
    assert charter() == replace(charter())
    assert charter().member("bern") == member("bern")
    assert charter().member("paris") is None
    assert charter().signer(key("bern").public.fingerprint) == member("bern")
