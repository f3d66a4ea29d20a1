"""The source of secret random numbers: known answers, no bias, no copies, no repeats after a fork."""

from __future__ import annotations

import copy
import os
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from noise_support import FALSE_ALARM, Scripted, chi_squared, source
from scipy import special

from quire.privacy.csprng import Csprng, RandomnessError
from quire.privacy.randomness import key, stream


def test_the_keystream_is_that_of_aes_256_in_counter_mode():
    """The zero block under the zero key: a published known answer."""
    assert Csprng(bytes(32)).bytes(16).hex() == "dc95c078a2408989ad48a21492842087"


@given(st.lists(st.integers(0, 200_000), max_size=5))
def test_pieces_of_any_size_are_the_same_stream(sizes):
    whole = Csprng(key(3, "pieces")).bytes(sum(sizes))
    pieces = Csprng(key(3, "pieces"))
    assert b"".join(map(pieces.bytes, sizes)) == whole


def test_words_are_read_little_endian():
    raw = source("words").bytes(64)
    assert source("words").uint64(8).tolist() == np.frombuffer(raw, "<u8").tolist()
    assert source("words").uint32(16).tolist() == np.frombuffer(raw, "<u4").tolist()


@pytest.mark.parametrize("wrong", [b"", bytes(16), bytes(33), "0" * 32, None, bytearray(32)])
def test_a_key_has_32_bytes(wrong):
    with pytest.raises(RandomnessError, match="32 bytes"):
        Csprng(wrong)


def test_a_source_shows_no_key_and_cannot_be_copied():
    one = Csprng(b"s" * 32)
    assert "sss" not in repr(one)
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(RandomnessError, match="copied"):
            duplicate(one)


def in_a_fork(work):
    """Run in a forked child and return what it says."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = work()
        except RandomnessError as error:
            said = b"refused: " + str(error).encode()
        os.write(writer, said)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def test_a_source_refuses_to_work_in_a_forked_child():
    carried = source("fork")
    assert in_a_fork(lambda: carried.bytes(8)).startswith(b"refused: a random source was carried over a fork")
    assert len(carried.bytes(8)) == 8


def test_processes_after_a_fork_differ_when_each_draws_its_own_key():
    def fresh():
        return Csprng(os.urandom(32)).bytes(32)

    drawn = {in_a_fork(fresh), in_a_fork(fresh), fresh()}
    assert len(drawn) == 3
    assert all(len(one) == 32 for one in drawn)


def test_simulated_keys_follow_from_the_name_and_only_from_it():
    assert key(1, "noise", 2) == key(1, "noise", 2)
    assert len({key(1, "noise", 2), key(2, "noise", 2), key(1, "noise", "2"), key(1, "noise")}) == 4
    assert len(key(0)) == 32
    assert stream(1, "noise").bytes(32) != key(1, "noise")


def test_children_do_not_depend_on_what_was_drawn_and_differ_by_name():
    parent = source("parent")
    early = parent.child("step", 1).bytes(32)
    parent.bytes(1000)
    assert parent.child("step", 1).bytes(32) == early
    others = {parent.child(*labels).bytes(32) for labels in (("step", 2), ("step", "1"), ("st", "ep"))}
    assert len(others | {early}) == 4
    assert source("parent").bytes(32) != early


@given(st.integers(1, 1 << 200))
def test_an_integer_below_a_limit_is_below_it(limit):
    assert 0 <= source("below", limit).below(limit) < limit


@pytest.mark.parametrize("limit", [1, 2, 3, 10, 255, 256, 257])
def test_integers_are_uniform(limit):
    drawn = source("integers", limit).integers(limit, 50_000)
    alone = source("below", limit)
    single = np.array([alone.below(limit) for _ in range(20_000)])
    for values in (drawn, single):
        assert values.min() >= 0
        counts = np.bincount(values, minlength=limit)
        assert len(counts) == limit
        assert limit == 1 or chi_squared(counts, np.full(limit, len(values) / limit)) > FALSE_ALARM


def test_words_that_would_bias_an_integer_are_drawn_again():
    limit = 3
    script = Scripted([2**64 - 1, 7, 2**64 - 2])  # 2**64 = 1 modulo 3: the last word has no full set of remainders
    assert script.integers(limit, 1).tolist() == [1]
    assert Scripted([2**64 - 2]).integers(limit, 1).tolist() == [2]
    assert Scripted(data=b"\xff\x00").below(3) == 0


def test_a_bernoulli_event_is_decided_by_the_next_word_where_the_first_is_a_tie():
    third = Fraction(1, 3)
    threshold, rest = divmod(third * 2**64, 1)
    assert Scripted([int(threshold) - 1]).bernoulli(third, 1).tolist() == [True]
    assert Scripted([int(threshold) + 1]).bernoulli(third, 1).tolist() == [False]
    assert rest == third
    assert Scripted([int(threshold), int(threshold) - 1]).bernoulli(third, 1).tolist() == [True]
    assert Scripted([int(threshold), int(threshold), 2**63]).bernoulli(third, 1).tolist() == [False]


@pytest.mark.parametrize("probability", [0, 1, 0.5, 0.01, 1e-5, Fraction(2, 7), 1 - 2**-53])
def test_bernoulli_events_have_their_probability(probability):
    count = 400_000
    happened = int(source("bernoulli", str(probability)).bernoulli(probability, count).sum())
    deviation = (float(probability) * (1 - float(probability)) / count) ** 0.5
    assert abs(happened / count - float(probability)) <= 5.5 * deviation


@pytest.mark.parametrize("wrong", [-1e-300, 1.0000001, float("nan"), float("inf")])
def test_what_is_no_probability_is_refused(wrong):
    with pytest.raises(RandomnessError, match="probability"):
        source("wrong").bernoulli(wrong, 3)


def test_poisson_batches_vary_in_size_like_a_binomial_and_hold_every_record_equally_often():
    drawn = source("batches")
    population, rate, rounds = 200, 0.1, 4_000
    batches = [drawn.poisson_sample(population, rate) for _ in range(rounds)]
    sizes = np.array([len(batch) for batch in batches])
    often = np.bincount(np.concatenate(batches), minlength=population)
    assert all((np.diff(batch) > 0).all() for batch in batches)
    variance = population * rate * (1 - rate)
    assert abs(sizes.mean() - population * rate) < 5.5 * (variance / rounds) ** 0.5
    assert abs(sizes.var() / variance - 1) < 5.5 * (2 / rounds) ** 0.5
    each = ((often - rounds * rate) ** 2 / (rounds * rate * (1 - rate))).sum()
    assert FALSE_ALARM < special.chdtrc(population, each) < 1 - FALSE_ALARM
    assert source("all").poisson_sample(5, 1).tolist() == [0, 1, 2, 3, 4]
    assert source("none").poisson_sample(5, 0).tolist() == []
    assert source("none").poisson_sample(0, 0.5).tolist() == []


@pytest.mark.parametrize("count", [0, 1, 7, 100_001])
def test_normal_numbers_are_normal(count):
    drawn = source("normals", count).normals(count)
    assert drawn.shape == (count,)
    if count > 1000:
        cells = np.floor(special.ndtr(drawn) * 100).astype(int)
        assert chi_squared(np.bincount(cells, minlength=100), np.full(100, count / 100)) > FALSE_ALARM
        assert abs(np.corrcoef(drawn[0:-1:2], drawn[1::2])[0, 1]) < 0.03


def test_uniform_numbers_and_signs():
    drawn = source("uniform").uniform(100_000)
    assert 0 <= drawn.min() < drawn.max() < 1
    cells = np.bincount((drawn * 50).astype(int), minlength=50)
    assert chi_squared(cells, np.full(50, 2_000.0)) > FALSE_ALARM
    signs = source("signs").signs(100_001)
    assert signs.shape == (100_001,)
    assert set(signs.tolist()) == {-1, 1}
    assert abs(int(signs.astype(int).sum())) < 5.5 * 100_001**0.5


def test_a_negative_count_is_refused():
    for draw in (source("n").bytes, source("n").uint64, source("n").uniform, source("n").normals, source("n").signs):
        with pytest.raises(RandomnessError, match="cannot draw"):
            draw(-1)
