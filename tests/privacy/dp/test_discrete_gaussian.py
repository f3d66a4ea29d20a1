"""The discrete Gaussian: against its definition, the rejection sampler, and on paths that chance hardly takes."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noise_support import FALSE_ALARM, Scripted, chi_squared, goodness, source
from scipy import special

from quire.privacy.csprng import Csprng
from quire.privacy.dp import discrete_gaussian
from quire.privacy.dp.discrete_gaussian import MAX_VARIANCE, NoiseError, Table, sample, tv_bound
from quire.privacy.dp.rejection import bernoulli_exp, discrete_laplace, sample_by_rejection
from quire.privacy.randomness import key

SMALL = [Fraction(1, 10), Fraction(1, 3), 1, Fraction(10, 3), 16**2, 250**2, 1000**2 + 7]
LARGE = [1024**2, 1500**2 + 1, Fraction(4097**2 * 3 + 1, 3)]


@pytest.mark.parametrize("variance", [*SMALL, *LARGE], ids=str)
def test_samples_follow_the_exact_distribution(variance):
    samples = sample(variance, 300_000, source("exact", str(variance)))
    assert goodness(samples, variance) > FALSE_ALARM


@pytest.mark.parametrize("variance", [Fraction(10, 3), 16**2, 1000**2, 1500**2], ids=str)
def test_the_test_above_notices_a_sigma_that_is_off_by_two_per_cent(variance):
    samples = sample(variance, 300_000, source("power", str(variance)))
    assert goodness(samples, variance * 1.02**2) < FALSE_ALARM
    assert goodness(samples, variance / 1.02**2) < FALSE_ALARM


@pytest.mark.parametrize("sigma", [2**14, 2**20, 2**40])
def test_large_sigmas(sigma):
    """Above 1,024 sums over the definition are those of the normal density to a part in 24 sigma^2."""
    count = 300_000
    samples = sample(sigma**2, count, source("large", sigma))
    cells = np.minimum((special.ndtr((samples + 0.5) / sigma) * 128).astype(int), 127)
    assert chi_squared(np.bincount(cells, minlength=128), np.full(128, count / 128)) > FALSE_ALARM
    off = np.minimum((special.ndtr((samples + 0.5) / (1.02 * sigma)) * 128).astype(int), 127)
    assert chi_squared(np.bincount(off, minlength=128), np.full(128, count / 128)) < FALSE_ALARM
    for shift in (0, 3):  # neither the place in a block nor a few bits of it stand out
        remainders = np.bincount((samples >> shift) % 61, minlength=61)
        assert chi_squared(remainders, np.full(61, count / 61)) > FALSE_ALARM
    width = 1 << discrete_gaussian._table(Fraction(sigma**2)).width_bits
    places = np.bincount((np.abs(samples) % width * 16 // width).astype(int), minlength=16)
    assert chi_squared(places, np.full(16, count / 16)) > FALSE_ALARM


@pytest.mark.parametrize("variance", [16**2, 1024**2], ids=str)
def test_moments_and_symmetry(variance):
    count = 400_000
    samples = sample(variance, count, source("moments", variance)).astype(float)
    standard = samples / math.sqrt(variance)
    assert abs(standard.mean()) < 5.5 / count**0.5
    assert abs(standard.var() - 1) < 5.5 * (2 / count) ** 0.5
    assert abs((standard**3).mean()) < 5.5 * (15 / count) ** 0.5
    assert abs((standard**4).mean() - 3) < 5.5 * (96 / count) ** 0.5
    positive, negative = int((samples > 0).sum()), int((samples < 0).sum())
    assert abs(positive - negative) < 5.5 * count**0.5
    assert abs(np.corrcoef(samples[:-1], samples[1:])[0, 1]) < 5.5 / count**0.5


@pytest.mark.parametrize("variance", [Fraction(1, 3), Fraction(10, 3), 16**2], ids=str)
def test_table_and_rejection_sampler_agree_with_each_other_and_with_the_definition(variance):
    oracle = sample_by_rejection(variance, 20_000, source("oracle", str(variance)))
    assert goodness(oracle, variance, bins=32) > FALSE_ALARM
    table = sample(variance, 20_000, source("table", str(variance)))
    low = min(oracle.min(), table.min())
    counts = [np.bincount(part - low, minlength=max(oracle.max(), table.max()) - low + 1) for part in (oracle, table)]
    both = counts[0] + counts[1]
    keep = both >= 10
    statistic = ((counts[0] - counts[1])[keep] ** 2 / both[keep]).sum()
    assert special.chdtrc(int(keep.sum()), statistic) > FALSE_ALARM


def test_the_oracle_s_own_parts():
    drawn, count = source("parts"), 20_000
    for numerator, denominator in ((0, 1), (1, 3), (1, 1), (7, 3)):
        events = sum(bernoulli_exp(numerator, denominator, drawn) for _ in range(count))
        p = math.exp(-numerator / denominator)
        assert abs(events / count - p) <= 5.5 * (p * (1 - p) / count) ** 0.5
    laplace = np.array([discrete_laplace(4, drawn) for _ in range(count)])
    ratio = math.exp(-1 / 4)
    zero = (1 - ratio) / (1 + ratio)
    expected = np.array([zero * ratio ** abs(x) for x in range(-40, 41)]) * count
    assert chi_squared(np.bincount(np.clip(laplace, -40, 40) + 40, minlength=81), expected) > FALSE_ALARM


@pytest.mark.parametrize("variance", [Fraction(1, 10), 1, 16**2, 999**2, 5000**2], ids=str)
def test_thresholds_are_right_to_the_last_of_191_bits(variance):
    """Against decimal arithmetic that shares nothing with the recurrence that builds tables."""
    table = discrete_gaussian._table(Fraction(variance))
    with localcontext() as context:
        context.prec = 90
        width = 1 << table.width_bits
        reach = int(16 * math.sqrt(variance) / width) + 3
        sigma2 = Decimal(Fraction(variance).numerator) / Fraction(variance).denominator
        weights = [(-(Decimal(k * width) ** 2) / (2 * sigma2)).exp() for k in range(reach)]
        if width == 1:
            weights[1:] = [2 * weight for weight in weights[1:]]
        total, running = sum(weights), Decimal(0)
        thresholds = [(int(high) << 128) + low for high, low in zip(table.high, table.low, strict=True)]
        for threshold, weight in zip(thresholds, weights, strict=False):
            running += weight
            assert abs(threshold - running / total * 2**191) < Decimal(2) ** (191 - 159)
    assert thresholds == sorted(thresholds)
    assert (thresholds or [2**191])[-1] <= 2**191


def tabled(variance: int | Fraction) -> tuple[Table, list[int]]:
    table = discrete_gaussian._table(Fraction(variance))
    return table, [(int(high) << 128) + low for high, low in zip(table.high, table.low, strict=True)]


@given(st.sampled_from([1, 16**2, 1000**2]), st.integers(0, 2**63 - 1), st.binary(min_size=16, max_size=16))
def test_a_look_up_is_a_search_among_all_191_bits(variance, word, low):
    table, thresholds = tabled(variance)
    expected = bisect_right(thresholds, (word << 128) + int.from_bytes(low, "little"))
    assert table.find(np.array([word]), Scripted(data=low)).tolist() == [expected]


@given(st.sampled_from([1, 16**2, 1000**2]), st.data(), st.sampled_from([-1, 0, 1]))
def test_ties_in_the_first_63_bits_are_broken_by_the_next_128(variance, data, offset):
    table, thresholds = tabled(variance)
    entry = data.draw(st.integers(0, len(thresholds) - 1))
    value = min(max(thresholds[entry] + offset, 0), 2**191 - 1)
    script = Scripted(data=(value & (2**128 - 1)).to_bytes(16, "little"))
    found = table.find(np.array([value >> 128]), script).tolist()
    assert found == [bisect_right(thresholds, value)]
    assert script.finished or value >> 128 not in table.high


def test_a_tie_inside_a_whole_draw():
    table, thresholds = tabled(16**2)
    entry = 20
    word = int(table.high[entry]) << 1 | 1  # odd: negative
    below = (table.low[entry] - 1).to_bytes(16, "little")
    above = table.low[entry].to_bytes(16, "little")
    assert sample(16**2, 1, Scripted([word], below)).tolist() == [-entry]
    assert sample(16**2, 1, Scripted([word], above)).tolist() == [-entry - 1]
    assert len(thresholds) > entry


def test_words_at_either_end():
    table, thresholds = tabled(1)
    assert table.find(np.array([0]), Scripted()).tolist() == [0]
    last = table.find(np.array([2**63 - 1]), Scripted(data=b"\xff" * 16))
    assert last.tolist() == [len(thresholds)]


@settings(max_examples=200)
@given(st.integers(0, 2**32 - 1), st.fractions(0, 1), st.integers(0, 2**64))
def test_a_comparison_draws_bits_until_it_is_certain(word, ratio, seed):
    """Given enough more bits the answer is that of exact arithmetic; the script holds the bits that matter."""
    more = Csprng(key(seed)).bytes(64)
    exact = word
    for start in range(0, 64, 8):
        exact = exact << 64 | int.from_bytes(more[start : start + 8], "little")
    answer = discrete_gaussian._below(word, 32, ratio, Scripted(data=more))
    if Fraction(exact, 2 ** (32 + 512)) != ratio:
        assert answer == (Fraction(exact, 2 ** (32 + 512)) < ratio)


def test_a_comparison_that_hangs_on_the_next_bits():
    ratio = Fraction(5, 2**32) + Fraction(1, 2**40)
    assert discrete_gaussian._below(5, 32, ratio, Scripted(data=bytes(8)))
    assert not discrete_gaussian._below(5, 32, ratio, Scripted(data=b"\xff" * 8))
    assert not discrete_gaussian._below(6, 32, ratio, Scripted())
    assert discrete_gaussian._below(4, 32, ratio, Scripted())


@pytest.mark.parametrize(("block", "place"), [(0, 0), (0, 511), (700, 1), (9_000, 300), (13_000, 511)])
def test_pairs_are_accepted_with_exactly_their_probability(block, place):
    sigma2, width, count = Fraction(2**19) ** 2, 512 * 2, 200_000
    near = np.full(count, block * width // 16)
    places = np.full(count, place)
    words = source("accept", block, place).uint64(count) >> np.uint64(32)
    accepted = discrete_gaussian._accepted(near, places, words, sigma2, source("accept more", block, place))
    p = math.exp(-place * (2 * int(near[0]) + place) / (2 * float(sigma2)))
    assert abs(accepted.mean() - p) <= 5.5 * (p * (1 - p) / count) ** 0.5 + 1e-12


def test_the_distance_is_stated_and_adds_up():
    assert tv_bound(256, 10**6) == 10**6 * 2.0**-157
    with pytest.raises(NoiseError, match="variance"):
        tv_bound(0, 1)


@pytest.mark.parametrize("wrong", [0, -1, Fraction(-1, 2), MAX_VARIANCE + 1])
def test_a_variance_that_cannot_be_drawn_is_refused(wrong):
    with pytest.raises(NoiseError, match=r"2\*\*80"):
        sample(wrong, 1, source("refused"))
    with pytest.raises(NoiseError, match="cannot draw"):
        sample(1, -1, source("refused"))


def test_counts_of_any_size_and_the_same_key_the_same_samples():
    assert sample(256, 0, source("none")).shape == (0,)
    for variance in (256, 4096**2):
        whole = sample(variance, 70_001, source("again"))
        assert whole.dtype == np.int64
        assert (whole == sample(variance, 70_001, source("again"))).all()
        assert (whole != sample(variance, 70_001, source("another"))).mean() > 0.9


def test_almost_no_variance_is_almost_always_zero():
    assert not sample(Fraction(1, 10_000), 1_000, source("tiny")).any()


def test_tables_stay_small_and_few():
    for variance in (1, 1023**2, 2**60, MAX_VARIANCE):
        table = discrete_gaussian._table(Fraction(variance))
        assert table.high.nbytes + table.guide.nbytes < 300_000
        assert len(table.low) < 16_000
    assert discrete_gaussian._table.cache_info().maxsize == 16


@pytest.mark.parametrize(
    ("variance", "digest"),
    [(300**2, "72cc23ca5596df7e"), (5104**2 + 1, "dae6140290f0197f"), (2**44 + 3, "3c89f8d50d1308cf")],
)
def test_a_key_gives_the_same_noise_as_ever(variance, digest):
    """Runs are repeated from their seed: what makes sampling faster may not change what is drawn."""
    drawn = sample(variance, 40_000, Csprng(bytes(32)))
    assert hashlib.sha256(drawn.astype("<i8").tobytes()).hexdigest().startswith(digest)
