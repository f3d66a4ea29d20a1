"""The self-test's questions: quiet on the promised noise as often as stated, and each bug is found by its own."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.privacy.csprng import Csprng
from quire.privacy.dp.discrete_gaussian import sample
from quire.privacy.dp.selftest import FALSE_ALARM, FEWEST, SelftestError, cells, selftest

VARIANCE, PARTIES = 4000, 5
Noise = np.ndarray


def shares(seed: int, length: int = 4000) -> list[Noise]:
    return [sample(VARIANCE, length, Csprng(bytes(30) + bytes([seed, place]))) for place in range(PARTIES)]


def opened(
    seed: int, bug: Callable[[list[Noise]], list[Noise]] = lambda drawn: drawn, length: int = 4000
) -> list[Noise]:
    """Three rounds' sums of shares, with a bug in them."""
    return [np.sum(bug(shares(10 * seed + number, length)), axis=0) for number in range(3)]


def alarms(sums: list[Noise], parties: int = PARTIES) -> list[str]:
    found = selftest(sums, [parties * VARIANCE] * len(sums))
    assert found.passed == (not [question for question in found.questions if question.alarm])
    return [question.name for question in found.questions if question.alarm]


def test_noise_as_promised_passes_and_says_so() -> None:
    found = selftest(opened(1), [PARTIES * VARIANCE] * 3)
    assert found.passed
    assert found.verdict().startswith("The noise is as promised: 3 opened sums of 4000 numbers")
    assert [question.name for question in found.questions] == ["mean", "variance", "shape", "tails", "rounds"]
    assert sum(question.level for question in found.questions) == pytest.approx(FALSE_ALARM)


def test_one_sum_is_compared_with_no_other() -> None:
    found = selftest(opened(1)[:1], [PARTIES * VARIANCE])
    assert [question.name for question in found.questions] == ["mean", "variance", "shape", "tails"]


def test_every_question_is_as_quiet_as_it_says() -> None:
    """By simulation, with other numbers of silos from round to round, at levels where there is something to count."""
    source, variances = np.random.default_rng(7), [5 * 700, 4 * 700, 5 * 700]
    found: dict[str, list[float]] = {}
    for _ in range(600):
        sums = [np.rint(source.normal(0.0, math.sqrt(one), 1055)).astype(np.int64) for one in variances]
        for question in selftest(sums, variances).questions:
            found.setdefault(question.name, []).append(question.p)
    for name, values in found.items():
        for level, most in ((0.05, 55), (0.01, 18)):  # 30 and 6 are expected: 4.6 and 4.9 deviations
            assert sum(p < level for p in values) <= most, (name, level)


BUGS: dict[str, tuple[str, Callable[[list[Noise]], list[Noise]]]] = {
    "noise times 0.9": ("variance", lambda drawn: [np.rint(0.9 * one) for one in drawn]),
    "noise times 1.1": ("variance", lambda drawn: [np.rint(1.1 * one) for one in drawn]),
    "one silo adds none": ("variance", lambda drawn: drawn[:-1]),
    "a biased sampler": ("mean", lambda drawn: [one + 8 for one in drawn]),
    "never below zero at one silo": ("mean", lambda drawn: [np.abs(drawn[0]), *drawn[1:]]),
    "uniform, of the right variance": ("tails", lambda drawn: _uniform(drawn)),
    "half of it at twice the variance, half none": ("tails", lambda drawn: _half(drawn)),
    "coarse": ("shape", lambda drawn: [np.rint(one / 256) * 256 for one in drawn]),
    "all zero": ("variance", lambda drawn: [0 * one for one in drawn]),
}


def _half(drawn: list[Noise]) -> list[Noise]:
    return [np.where(np.arange(len(one)) % 2, 0, np.rint(math.sqrt(2) * one)) for one in drawn]


def _uniform(drawn: list[Noise]) -> list[Noise]:
    half, source = math.sqrt(3 * VARIANCE), np.random.default_rng(abs(int(drawn[0].sum())))
    return [np.rint(source.uniform(-half, half, len(one))) for one in drawn]


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_in_the_noise_is_found_by_the_question_that_is_for_it(bug: str) -> None:
    name, broken = BUGS[bug]
    length = 20_000 if "uniform" in bug else 4000  # five of them add up to something close to normal
    assert name in alarms([one.astype(np.int64) for one in opened(2, broken, length)])


@pytest.mark.parametrize("again", [PARTIES, 1])
def test_noise_that_is_drawn_twice_is_found_even_of_one_silo(again: int) -> None:
    first, second, third = shares(1), shares(2), shares(3)
    sums = [np.sum(first, axis=0), np.sum(second, axis=0), np.sum([*first[:again], *third[again:]], axis=0)]
    found = selftest(sums, [PARTIES * VARIANCE] * 3)
    assert [question.name for question in found.questions if question.alarm] == ["rounds"]
    words = "the same" if again == PARTIES else r"correlated (+0."
    assert f"the sums of rounds 1 and 3 are {words}" in found.verdict()


def test_what_it_says_it_would_find_is_found() -> None:
    """At the deviation that is stated, 999 in 1,000 are found; of 60 no more than two are missed."""
    source, spread = np.random.default_rng(3), math.sqrt(PARTIES * VARIANCE)
    reach = {question.name: question.shows for question in selftest(opened(1), [PARTIES * VARIANCE] * 3).questions}

    def found(scale: float, shift: float, common: float) -> set[str]:
        shared = source.normal(size=4000)
        drawn = [
            shift + scale * (math.sqrt(common) * shared + math.sqrt(1 - common) * source.normal(size=4000))
            for _ in range(3)
        ]
        return set(alarms([np.rint(spread * one).astype(np.int64) for one in drawn]))

    for name, change in (
        ("variance", (math.sqrt(1 - (reach["variance"] or 0)), 0.0, 0.0)),
        ("mean", (1.0, reach["mean"] or 0.0, 0.0)),
        ("rounds", (1.0, 0.0, reach["rounds"] or 0.0)),
    ):
        assert sum(name in found(*change) for _ in range(60)) >= 58, name


@settings(max_examples=60, deadline=None)
@given(variance=st.integers(min_value=256, max_value=2**50))
def test_cells_share_out_the_whole_mass_evenly(variance: int) -> None:
    edges, masses = cells(variance)
    assert len(masses) == len(edges) + 1 >= 20
    assert masses.sum() == pytest.approx(1.0, abs=1e-12)
    assert 0 < masses.min() <= masses.max() < 2.2 / 32
    if variance > 2**20:
        assert masses == pytest.approx(np.full(32, 1 / 32), abs=1e-3)


@pytest.mark.parametrize("variance", [256, 5 * 256, 4000])
def test_cells_have_the_mass_of_the_exact_law(variance: int) -> None:
    from fractions import Fraction

    edges, masses = cells(variance)
    law = [math.exp(-Fraction(k * k, 2 * variance)) for k in range(-1000, 1001)]
    inside = [weight for k, weight in zip(range(-1000, 1001), law, strict=True) if edges[3] <= k < edges[4]]
    assert masses[4] == pytest.approx(sum(inside) / sum(law), rel=1e-9)


def test_a_normal_law_serves_as_well_where_it_is_taken() -> None:
    from quire.privacy.dp import selftest as module

    exact = cells((1 << 16) ** 2)[1]
    beyond = cells.__wrapped__(((1 << 16) + 1) ** 2)[1]
    assert module._EXACT == 1 << 16
    assert beyond == pytest.approx(exact, abs=2e-5)  # edges are whole numbers: a cell has 6,000 of them


@pytest.mark.parametrize(
    ("sums", "variances"),
    [
        ([], []),
        ([np.zeros(300, np.int64)], []),
        ([np.zeros(300, np.int64), np.zeros(301, np.int64)], [9, 9]),
        ([np.zeros(FEWEST - 1, np.int64)], [9]),
        ([np.zeros(300, np.int64)], [0]),
    ],
)
def test_what_cannot_be_tested_is_refused(sums: list[Noise], variances: list[int]) -> None:
    with pytest.raises(SelftestError, match="sums of one length"):
        selftest(sums, variances)
