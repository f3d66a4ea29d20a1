"""Scores of a round's updates, and an aggregator that leaves silos out: with which reasons, and never too many."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quire.errors import RunFailed
from quire.strategies.aggregators import PlainMean
from quire.strategies.robust.aggregators import Bulyan
from quire.strategies.rounds import Cohort, RoundState, Update
from quire.strategies.suspicion.evidence import Rule
from quire.strategies.suspicion.scores import scored
from quire.strategies.suspicion.watched import Watched

RULE = Rule(4.0, 1e-4, 2)
MODEL = {"w": np.zeros(30, np.float32), "b": np.zeros((2, 5), np.float32)}


class Report:
    def __init__(self):
        self.released, self.suspicion = {}, {}


def honest(count, seed=0, number=1):
    rng = np.random.default_rng((seed, number))
    rows = 1.0 + 0.3 * rng.standard_normal((count, 40))
    return [{"w": row[:30].astype(np.float32), "b": row[30:].reshape(2, 5).astype(np.float32)} for row in rows]


def times(update, factor):
    return {name: factor * part for name, part in update.items()}


def flat(arrays):
    return np.concatenate([arrays[name].reshape(-1) for name in ("w", "b")])


def updates_of(arrays):
    return [Update(f"s{place}", one, 10.0) for place, one in enumerate(arrays)]


def rounds(watched, courses):
    """Run rounds as the strategy does, and yield mean, report and memory of each."""
    memory = {}
    for number, arrays in enumerate(courses, 1):
        standing = watched.at(RoundState(number - 1, MODEL, memory))
        mean, memory = standing.combine(updates_of(arrays), Cohort(number, ()))
        report = Report()
        standing.tell(report, memory)
        yield mean, report.suspicion, memory


def test_scores_are_what_they_say():
    arrays = honest(9)
    arrays[0], arrays[1], arrays[2] = times(arrays[0], 50.0), times(arrays[1], -1.0), times(arrays[2], 0.0)
    found = scored(arrays, [True] * 9, math.inf)
    rows = np.stack([flat(one) for one in arrays]).astype(float)
    centre = np.median(rows, axis=0)
    norms = np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose([one.norm for one in found], norms, rtol=1e-6)
    assert found[0].times == pytest.approx(norms[0] / np.median(norms), rel=1e-6)
    cosines = [row @ centre / (np.linalg.norm(row) * np.linalg.norm(centre)) if row.any() else 0.0 for row in rows]
    np.testing.assert_allclose([one.cosine for one in found], cosines, atol=1e-6)
    mad = max(1.4826 * np.median(np.abs(cosines - np.median(cosines))), 0.05)
    np.testing.assert_allclose([one.direction_z for one in found], (np.median(cosines) - cosines) / mad, atol=1e-5)
    assert found[0].reason.startswith("its update is 48.5 times as large as usual")
    assert "points away from most (cosine -0." in found[1].reason
    assert found[2].z == found[2].direction_z > 10  # no work at all points nowhere
    assert max(one.z for one in found[3:]) < 4


@given(st.integers(0, 1000))
def test_many_bad_updates_do_not_hide_in_the_spread_that_they_make(seed):
    """Scored against the others that are within the allowance, as if the bad ones were not there."""
    rng = np.random.default_rng(seed)
    arrays = [times(one, float(rng.lognormal(0.0, 0.5))) for one in honest(21, seed)]
    bad = [times(one, -20.0) for one in honest(9, seed, 2)]
    found = scored([*bad, *arrays], [True] * 30, 4.0)
    once = scored([*bad, *arrays], [True] * 30, math.inf)
    assert all(one.size_z > before.size_z and one.z > 4.0 for one, before in zip(found[:9], once[:9], strict=True))


def test_updates_that_are_all_zero_are_not_suspicious():
    found = scored([times(one, 0.0) for one in honest(6)], [True] * 6, 4.0)
    assert all(one.z == 0.0 for one in found)


@given(st.integers(0, 1000), st.sampled_from([1e3, 1e30, -1.0, -1e8, 0.0]), st.integers(1, 4))
def test_attackers_below_half_are_left_out_and_nobody_else(seed, factor, bad):
    arrays = honest(10, seed)
    arrays[:bad] = [times(one, factor) for one in arrays[:bad]]
    with np.errstate(over="ignore"):
        ((mean, told, _),) = rounds(Watched(PlainMean(), RULE), [arrays])
    assert [silo for silo, one in told.items() if not one["in_mean"]] == [f"s{place}" for place in range(bad)]
    expected = np.mean([flat(one) for one in arrays[bad:]], axis=0, dtype=np.float64)
    np.testing.assert_allclose(flat(mean), expected, rtol=1e-6)


def test_a_silo_that_behaves_again_is_let_in_again_and_memory_is_all_that_it_takes():
    courses = []
    for number in range(1, 7):
        arrays = honest(8, 3, number)
        arrays[2] = times(arrays[2], 1e6) if number == 2 else arrays[2]
        courses.append(arrays)
    told = [told["s2"] for _, told, _ in rounds(Watched(PlainMean(), RULE), courses)]
    assert [one["in_mean"] for one in told] == [True, False, False, True, True, True]
    assert (told[1]["event"], told[3]["event"]) == ("quarantined", "readmitted")
    assert told[2]["since"] == 2


def test_a_silo_that_is_away_for_a_round_keeps_its_standing():
    arrays = honest(8)
    arrays[7] = times(arrays[7], 1e6)
    found = list(rounds(Watched(PlainMean(), RULE), [arrays, arrays[:7], honest(8, 0, 3)]))
    assert "s7" not in found[1][1]
    assert found[1][2]["suspicion/s7"][2] == 1.0
    assert not found[2][1]["s7"]["in_mean"]


def test_never_so_many_are_left_out_that_the_rule_inside_lacks_updates():
    arrays = honest(9)
    arrays[:3] = [times(arrays[0], 1e3), times(arrays[1], 1e6), times(arrays[2], 1e9)]
    ((_, told, _),) = rounds(Watched(Bulyan(1), RULE, 2), [arrays])
    assert [one["in_mean"] for one in told.values()][:3] == [True, False, False]
    assert told["s0"]["event"] == "spared"
    assert "too few would be left" in told["s0"]["reason"]
    ((_, told, _),) = rounds(Watched(PlainMean(), RULE, 8), [arrays])
    assert [one["in_mean"] for one in told.values()][:3] == [True, True, False]


def test_fewer_than_half_are_left_out_whatever_comes():
    """Where most are bad there is no telling who is: four agree, and the five that do not are no minority."""
    arrays = [times(one, 1.0 if place < 4 else 10.0 ** (3 * place)) for place, one in enumerate(honest(9))]
    with np.errstate(over="ignore"):
        ((_, told, _),) = rounds(Watched(PlainMean(), RULE), [arrays])
    assert sum(not one["in_mean"] for one in told.values()) <= 4


def test_a_round_with_too_few_outside_quarantine_fails_in_words():
    arrays = honest(7)
    arrays[:3] = [times(one, 1e6) for one in arrays[:3]]
    watched = Watched(PlainMean(), RULE, 3)
    (_, _, memory), *_ = rounds(watched, [arrays])
    late = watched.at(RoundState(1, MODEL, memory))
    with pytest.raises(RunFailed, match="Round 2 failed: 3 of 5 silos that answered are in quarantine, and 3 are"):
        late.combine(updates_of(arrays)[:5], Cohort(2, ()))


def test_of_too_few_silos_nothing_is_said():
    arrays = honest(4)
    arrays[0] = times(arrays[0], 1e9)
    ((_, told, _),) = rounds(Watched(PlainMean(), RULE), [arrays])
    assert all(one == {"evidence": 0.0, "in_mean": True} for one in told.values())


def test_what_has_no_norm_is_the_silo_s_own_failure():
    watched = Watched(PlainMean(), RULE)
    assert watched.objection({"w": np.full(3, 1e200)}) == "it holds numbers beyond 1e+140"
    assert watched.objection({"w": np.full(3, 1e140)}) is None
    assert watched.fold() is None


class Votes:
    """Clears whom it is told to, and notes what it was asked."""

    def __init__(self, cleared):
        self.cleared, self.asked = cleared, []

    def harmless(self, state, cohort, base, means, voters):
        self.asked.append((base, means, list(voters)))
        return {silo: "4 of 7 silos lose nothing by it" for silo in means if silo in self.cleared}


def test_the_vote_is_about_suspects_alone_and_among_the_others_alone():
    arrays = honest(9)
    arrays[0], arrays[4] = times(arrays[0], 1e3), times(arrays[4], -3.0)
    votes = Votes({"s4"})
    ((mean, told, _),) = rounds(Watched(PlainMean(), RULE, 1, True, votes), [arrays])
    assert (told["s0"]["in_mean"], told["s4"]["in_mean"]) == (False, True)
    assert told["s4"]["event"] == "cleared"
    assert told["s4"]["reason"].endswith("; 4 of 7 silos lose nothing by it")
    ((base, means, voters),) = votes.asked
    assert voters == [f"s{place}" for place in (1, 2, 3, 5, 6, 7, 8)]
    others = [flat(arrays[place]) for place in (1, 2, 3, 5, 6, 7, 8)]
    np.testing.assert_allclose(flat(base), np.mean(others, axis=0), rtol=1e-6)
    np.testing.assert_allclose(flat(means["s4"]), np.mean([*others, flat(arrays[4])], axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(flat(mean), flat(means["s4"]), rtol=1e-6)
    quiet = Votes(set())
    list(rounds(Watched(PlainMean(), RULE, 1, True, quiet), [honest(9)]))
    assert not quiet.asked
