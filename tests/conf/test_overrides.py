"""The grammar of override strings: what it reads, what it refuses, and that both are the same written back."""

from __future__ import annotations

import re
import string
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from quire.conf.overrides import MAX_ITEMS, MAX_KEY, MAX_LENGTH, Override, Value, parse, render
from quire.errors import SettingsError

KEY = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
TEXT = string.ascii_letters + string.digits + "_./:+*%@~^ ,;=()[]<>!?#&|-"
BUSY = [HealthCheck.too_slow]  # a busy machine is no fault of ours
BAIT = "ab=.[]'\",$ {}\\+~_01eE-\n\t\0\u0663\uff11"

keys = st.from_regex(KEY, fullmatch=True, alphabet=string.ascii_lowercase + string.digits + "_.").filter(
    lambda key: len(key) <= MAX_KEY and key.split(".")[0] != "hydra"
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**19) + 1, 10**19 - 1),
    st.floats(),
    st.text(TEXT, max_size=40),
    st.from_regex(r"[+-]?[0-9]{1,30}\.?[0-9]{0,3}([eE][+-]?[0-9]{0,4})?", fullmatch=True, alphabet=TEXT),
    st.sampled_from(
        ["null", "TRUE", "False", "nan", "NaN", "inf", "-Inf", "+inf", "", " ", "[]", "[a]", ",", "=", "-"]
    ),
)
values = st.one_of(scalars, st.lists(scalars, max_size=8).map(tuple))


def exact(value: Value) -> object:
    """Tell 1 from True and 1.0, 0.0 from -0.0, and let nan equal nan."""
    return tuple(exact(item) for item in value) if isinstance(value, tuple) else (type(value), repr(value))


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("null", None),
        ("Null", None),
        ("true", True),
        ("FALSE", False),
        ("0", 0),
        ("-7", -7),
        ("+7", 7),
        ("007", 7),
        ("9223372036854775807", 2**63 - 1),
        ("9999999999999999999", 10**19 - 1),
        ("0.5", 0.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("1e999", float("inf")),
        ("-inf", float("-inf")),
        ("word", "word"),
        ("none", "none"),
        ("infinity", "infinity"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("../up", "../up"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("''", ""),
        ("'a b=[c], d'", "a b=[c], d"),
        ("[]", ()),
        ("[ ]", ()),
        ("[1]", (1,)),
        ("[1, 2 ,3]", (1, 2, 3)),
        ("[a,'b, c',null,true,-.5]", ("a", "b, c", None, True, -0.5)),
        ('["]","["]', ("]", "[")),
    ],
)
def test_reads(raw: str, value: Value) -> None:
    (item,) = parse(f"group.key={raw}")
    assert item.key == "group.key"
    assert exact(item.value) == exact(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("task", "write key=value"),
        ("=x", "not the name of a setting"),
        ("a=", "nothing"),
        ("a==b", "'=b'"),
        ("a=b=c", "'b=c'"),
        ("a =b", "write key=value"),
        ("A=b", "not the name of a setting"),
        ("a..b=1", "not the name of a setting"),
        (".a=1", "not the name of a setting"),
        ("a.=1", "not the name of a setting"),
        ("a/b=1", "not the name of a setting"),
        ("a-b=1", "not the name of a setting"),
        ("a@b=1", "not the name of a setting"),
        ("a:b=1", "not the name of a setting"),
        ("'a'=1", "not the name of a setting"),
        ("a[0]=1", "not the name of a setting"),
        ("_target_=os.system", "not the name of a setting"),
        ("task._target_=os.system", "not the name of a setting"),
        ("__class__=x", "not the name of a setting"),
        ("task.__class__=x", "not the name of a setting"),
        ("é=1", r"\xe9"),
        ("t\u0430sk=1", r"\u0430"),  # a Cyrillic a
        ("+a=b", "never added or removed"),
        ("++a=b", "never added or removed"),
        ("~a=b", "never added or removed"),
        ("~a", "write key=value"),
        ("hydra=x", "belongs to the launcher"),
        ("hydra.run.dir=x", "belongs to the launcher"),
        ("hydra/launcher=x", "belongs to the launcher"),
        ("hydra.searchpath=[file:///etc]", "belongs to the launcher"),
        ("a=1 a=2", "set twice"),
        ("a=1 b=2 a=1", "set twice"),
        ("a=$x", "'$x'"),
        ("a=${oc.env:HOME}", "oc.env"),
        ("a='${oc.env:HOME}'", "character"),
        ("a=[${oc.env:HOME}]", "oc.env"),
        ("a=['${oc.env:HOME}']", "character"),
        ("a={b:c}", "not a number"),
        (r"a=b\c", "not a number"),
        (r"a='b\'", "character"),
        ("a='b", "not closed"),
        ('a="b', "not closed"),
        ("a=[1", "not closed"),
        ("a=1]", "not closed"),
        ("a=[[1]]", "not closed"),
        ("a=[1][2]", "'1][2'"),
        ("a=[1]x", "not closed"),
        ("a=x[1]", "not a number"),
        ("a='b'c", "not a number"),
        ("a='b''c'", "character"),
        ('a="b\'c"', "character"),
        ("a=[1,]", "write [a,b,c]"),
        ("a=[,1]", "write [a,b,c]"),
        ("a=[,]", "write [a,b,c]"),
        ("a=[1,,2]", "write [a,b,c]"),
        ("a=['b' 'c']", "write [a,b,c]"),
        ("a=['b' ',' 'c']", "write [a,b,c]"),
        ("a=[b c]", "'b c'"),
        ("a=[1]','[2]", "write [a,b,c]"),
        ("a=b,c", "'b,c'"),
        ("a=99999999999999999999", "more than 19 digits"),
        ("a=[-99999999999999999999]", "more than 19 digits"),
        ("a=" + "9" * 5000, "more than 19 digits"),
        ("a=\u0967\u0968", r"\u0967"),
        ("a=\uff11", r"\uff11"),
        ("a=\xb2", r"\xb2"),
        ("a=\uff54\uff52\uff55\uff45", r"\uff54"),
        ("a='é'", "character"),
        ("a=b\0c", r"\x00"),
        ("a='b\0c'", "character"),
        ("a='b\nc'", "character"),
        ("a=\ud800", r"\ud800"),
        ("a=b\u200bc", r"\u200b"),
        ("\ufeffa=b", r"\ufeff"),
        ("a" * (MAX_KEY + 1) + "=1", "not the name of a setting"),
        (" ".join(f"k{place}=1" for place in range(MAX_ITEMS + 1)), "more than 256 overrides"),
        ("a=" + "b" * MAX_LENGTH, "characters long"),
    ],
)
def test_refuses(text: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(text)
    message = str(caught.value)
    assert words in message
    assert message.endswith(".")
    assert message.isprintable()
    assert message.isascii()
    assert len(message) < 300


def test_sizes_up_to_the_bounds_are_read() -> None:
    assert parse("") == parse(" \t\n ") == ()
    assert len(parse("a=" + "b" * (MAX_LENGTH - 2))) == 1
    assert len(parse(" ".join(f"k{place}=1" for place in range(MAX_ITEMS)))) == MAX_ITEMS
    assert parse("a" * MAX_KEY + "=1")[0].key == "a" * MAX_KEY


@settings(max_examples=300, deadline=None, suppress_health_check=BUSY)
@given(keys, values)
def test_a_value_written_is_the_value_read(key: str, value: Value) -> None:
    (item,) = parse(f"{key}={render(value)}")
    assert item.key == key
    assert exact(item.value) == exact(value)
    assert str(item) == f"{key}={render(value)}"


@settings(max_examples=50, deadline=None, suppress_health_check=BUSY)
@given(
    st.lists(
        st.tuples(keys, values, st.text(" \t\r\n\u2003", min_size=1, max_size=3)),
        max_size=12,
        unique_by=lambda item: item[0],
    )
)
def test_many_items_are_read_in_order(items: list[tuple[str, Value, str]]) -> None:
    text = "".join(f"{blank}{key}={render(value)}{blank}" for key, value, blank in items)
    read = parse(text)
    assert [item.key for item in read] == [key for key, _, _ in items]
    assert [exact(item.value) for item in read] == [exact(value) for _, value, _ in items]


def outcome(text: str) -> tuple[Override, ...] | SettingsError:
    try:
        return parse(text)
    except SettingsError as refused:
        return refused


def holds_no_code(value: Value) -> bool:
    if isinstance(value, tuple):
        return all(not isinstance(item, tuple) and holds_no_code(item) for item in value)
    return not isinstance(value, str) or set(value) <= set(TEXT)


@settings(max_examples=1000, deadline=None, suppress_health_check=BUSY)
@given(
    st.one_of(
        st.text(max_size=60),
        st.text(BAIT, max_size=60),
        st.text(BAIT, max_size=30).map(lambda text: "a=" + text),
        st.text(BAIT, max_size=30).map(lambda text: f"a=[{text}]"),
        st.text(BAIT, max_size=30).map(lambda text: f"a='{text}'"),
    )
)
@example("a=[1]'x]'")
@example('a=[1]"]"[2]')
@example("a=[1]\u00a0b=2")
def test_any_text_is_read_or_refused(text: str) -> None:
    read = outcome(text)
    if isinstance(read, SettingsError):
        assert str(read).isprintable()
        assert len(str(read)) < 300
        return
    assert all(KEY.fullmatch(item.key) for item in read)
    assert all(item.key.split(".")[0] != "hydra" for item in read)
    assert len({item.key for item in read}) == len(read)
    assert all(holds_no_code(item.value) for item in read)
    again = parse(" ".join(map(str, read)))
    assert [(item.key, exact(item.value)) for item in again] == [(item.key, exact(item.value)) for item in read]


@pytest.mark.parametrize(
    "unit", [" ", "'", '"', "[", "]", ",", "[]", "''", "a=", "a='", "['", "'[", "],[", ", ", "''[", "9", "."]
)
@pytest.mark.parametrize("start", ["", "a=", "a=[", "a='", "a=['", "a=[1,", "a=x'"])
@pytest.mark.parametrize("end", ["", "!", "]", "'"])
def test_no_text_takes_long(unit: str, start: str, end: str) -> None:
    text = (start + unit * MAX_LENGTH)[: MAX_LENGTH - 1] + end
    began = time.thread_time()
    outcome(text)
    assert time.thread_time() - began < 1.0


def test_an_override_is_a_value() -> None:
    assert Override("a", (1, "b")) == parse("a=[1,b]")[0]
    assert hash(Override("a", (1, "b"))) == hash(parse("a=[1,b]")[0])
