"""Every entry has one spelling, and whatever else the bytes are, they are refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quire.privacy.identity.canonical import dumps
from quire.transparency.entries import KINDS, MAX_BYTES, MAX_NAMES, Entry, is_entry, kind_of
from quire.transparency.errors import LogDamaged, LogError

DIGEST = st.binary(min_size=32, max_size=32).map(bytes.hex)
WORD = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
COUNT = st.integers(0, 10**12 - 1)
FORMS = {
    "digest": DIGEST,
    "digest or null": st.none() | DIGEST,
    "count": COUNT,
    "word": WORD,
    "origin": st.from_regex(r"[a-z0-9][a-z0-9._/-]{0,127}", fullmatch=True),
    "identity": st.binary(min_size=1, max_size=2048).map(bytes.hex),
    "names": st.lists(WORD, unique=True, max_size=20).map(sorted),
}


@st.composite
def entries(draw):
    kind = draw(st.sampled_from(sorted(KINDS)))
    body = {key: draw(FORMS[form]) for key, form in KINDS[kind].items()}
    return Entry(kind, draw(WORD), draw(COUNT), draw(COUNT), body)


ONE = Entry("ledger_head", "run-7", 3, 1763757962, {"silo": "silo-1", "entries": 12, "head": "ab" * 32})


@given(entries())
def test_what_is_written_is_read(entry):
    assert Entry.parse(entry.data) == entry
    assert kind_of(entry.data) == entry.kind
    assert entry.data == dumps(json.loads(entry.data))
    assert entry.data.count(b"\n") == 1


@given(entries(), st.data())
def test_a_changed_byte_makes_another_entry_or_none(entry, data):
    at = data.draw(st.integers(0, len(entry.data) - 1))
    changed = bytearray(entry.data)
    changed[at] ^= data.draw(st.integers(1, 255))
    if is_entry(bytes(changed)):
        other = Entry.parse(bytes(changed))
        assert other != entry
        assert other.data == bytes(changed)
    for cut in (entry.data[:at], entry.data + b"\n", entry.data[:-1], b" " + entry.data, entry.data + entry.data):
        assert not is_entry(cut)


@given(st.binary(max_size=300))
def test_no_garbage_is_an_entry(data):
    assert not is_entry(data)
    with pytest.raises(LogDamaged):
        Entry.parse(data)


def respelt():
    said = json.loads(ONE.data)
    yield json.dumps(said).encode() + b"\n"
    yield json.dumps(said, separators=(",", ":")).encode()
    yield dumps({**said, "more": 1})
    yield dumps({**said, "v": 2})
    yield dumps({**said, "round": -1})
    yield dumps({**said, "round": 10**12})
    yield dumps({**said, "round": True})
    yield dumps({**said, "time": "1763757962"})
    yield dumps({**said, "kind": "rumour"})
    yield dumps({**said, "kind": "model"})
    yield dumps({**said, "run": ""})
    yield dumps({**said, "run": "a b"})
    yield dumps({**said, "run": "x" * 65})
    yield dumps({key: value for key, value in said.items() if key != "time"})
    for change in (
        {"head": "AB" * 32},
        {"head": "ab" * 31},
        {"head": None},
        {"silo": "-x"},
        {"entries": 1.0},
        {"x": 1},
    ):
        yield json.dumps({**said, "body": {**said["body"], **change}}, sort_keys=True, separators=(",", ":")).encode()
    yield ONE.data.replace(b'"round":3', b'"round":03')
    yield ONE.data.replace(b'"round":3', b'"round":3,"round":3')
    yield ONE.data.replace(b"silo-1", b"silo\\u002d1")


@pytest.mark.parametrize("data", respelt())
def test_another_spelling_is_refused(data):
    assert not is_entry(data)


@pytest.mark.parametrize(
    ("names", "good"),
    [
        ([], True),
        (["a", "b"], True),
        (["b", "a"], False),
        (["a", "a"], False),
        ([f"a{number:063d}" for number in range(MAX_NAMES)], True),
        ([f"a{number:063d}" for number in range(MAX_NAMES + 1)], False),
    ],
)
def test_a_cohort_names_each_silo_once_in_order(names, good):
    said = {"body": {"attempt": 1, "silos": names}, "kind": "cohort", "round": 1, "run": "r", "time": 1, "v": 1}
    data = dumps(said)
    assert is_entry(data) is good
    assert len(data) <= MAX_BYTES
    if not good:
        with pytest.raises(LogError):
            Entry("cohort", "r", 1, 1, said["body"])


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("model", {"model": "x"}),
        ("model", {"model": 0.5}),
        ("model", {}),
        ("rumour", {"model": "ab" * 32}),
        ("refusal", {"silo": "a\nb", "code": "x"}),
        ("refusal", {"silo": "é", "code": "x"}),
    ],
)
def test_an_entry_without_a_spelling_is_not_made(kind, body):
    with pytest.raises(LogError):
        Entry(kind, "run-7", 1, 1, body)
