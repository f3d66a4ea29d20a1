"""Parsers: one encoding for every message, refusals for everything else, no allocation on a length's word."""

import json
import subprocess
import sys
import tracemalloc
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from secagg_fuzz import KINDS, parse, parse_quietly
from secagg_network import Network
from secagg_vectors import FILE

from quire.privacy.secagg.errors import MalformedMessage, SecAggError
from quire.privacy.secagg.messages import Config, Masked, Shares, Start
from quire.privacy.secagg.wire import Message

SAMPLES = sorted({bytes.fromhex(m["hex"]) for m in json.loads(FILE.read_text(encoding="utf-8"))["messages"]})


def test_every_message_on_the_wire_is_of_one_kind_and_round_trips():
    kinds = {type(parse(data)[0]) for data in SAMPLES}
    assert len(kinds) == 14
    network = Network(3)
    network.agree()
    node = network.nodes[0]
    for data in (node.state, node.counter, network.session.encode(), network.config.encode()):
        assert len(parse(data)) == 1
    assert len({kind.KIND for kind in KINDS}) == len(KINDS) == 26


@settings(max_examples=600, deadline=None)
@given(st.binary(max_size=400))
@example(b"")
@example(b"QSQ\x01\x08")
def test_any_bytes_are_refused_or_the_one_encoding(data):
    parse_quietly(data)


@settings(max_examples=600, deadline=None)
@given(sample=st.sampled_from(SAMPLES), data=st.data())
def test_damaged_messages_are_refused_or_the_one_encoding(sample, data):
    damaged = bytearray(sample)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(damaged) - 1, 120)))
        action = data.draw(st.sampled_from(["set", "cut", "insert", "drop"]))
        if action == "set":
            damaged[at] = data.draw(st.integers(0, 255))
        elif action == "cut" and at:
            del damaged[at:]
        elif action == "insert":
            damaged.insert(at, data.draw(st.integers(0, 255)))
        elif len(damaged) > 1:
            del damaged[at]
    parse(bytes(damaged))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_lengths_that_promise_more_than_there_is_allocate_nothing(kind):
    head = b"QSQ" + bytes((1, kind.KIND))
    tracemalloc.start()
    try:
        for size in range(0, 2000, 13):
            for filler in (b"\xff", b"\x07", b"\x00"):
                with pytest.raises(SecAggError):
                    kind.decode(head + filler * size + b"\xff")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_a_message_beyond_its_limit_is_not_looked_at():
    with pytest.raises(MalformedMessage):
        Shares.decode(bytes(Shares.LIMIT + 1))


@pytest.mark.parametrize("data", SAMPLES[:3])
def test_other_versions_kinds_tails_and_heads(data):
    for wrong in (data + b"\0", data[:-1], b"QSQ\x02" + data[4:], b"QSR" + data[3:], data[:4] + b"\xee" + data[5:]):
        assert parse(wrong) == []


def test_numbers_that_do_not_fit_are_not_written():
    with pytest.raises(MalformedMessage):
        Start(bytes(32), 2**32, 1, ()).encode()
    with pytest.raises(MalformedMessage):
        Start(bytes(31), 1, 1, ()).encode()
    with pytest.raises(MalformedMessage):
        Config(bytes(16), 1, 1, 1, 3, 1, 1, 32, 1, bytes(70_000)).encode()


def test_a_message_shows_no_content():
    message = Masked(1, bytes(32), bytes(32), bytes(32), bytes(64), b"secret")
    assert "secret" not in repr(message)
    assert all(isinstance(kind, type) and issubclass(kind, Message) for kind in KINDS)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed")
def test_a_bounded_campaign_of_the_coverage_guided_fuzzer_finds_nothing(tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for at, data in enumerate(SAMPLES):
        (corpus / str(at)).write_bytes(data)
    script = Path(__file__).resolve().parents[2] / "support" / "secagg_fuzz.py"
    campaign = [sys.executable, str(script), str(corpus), "-max_total_time=60", "-max_len=16384"]
    # By way of a shell: a process's peak of memory, which the fuzzer holds to a limit, begins with that of its parent.
    done = subprocess.run(
        ["sh", "-c", '"$@"; exit $?', "sh", *campaign, "-print_final_stats=1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "stat::number_of_executed_units" in done.stderr
