"""``clipping=adaptive`` against Andrew et al. (2021), with no Flower in sight."""

import math

import numpy as np
import pytest

from quire.clients.contract import CLIP, WITHIN
from quire.conf.compose import compose
from quire.errors import RunFailed, SettingsError
from quire.privacy.dp.adaptive import split
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.dp.probes import ProbeTest
from quire.privacy.dp.release import silo_noise
from quire.strategies import adaptive
from quire.strategies.adaptive import AdaptiveSum, check_clips
from quire.strategies.algorithms import Averaging
from quire.strategies.build import build_strategy
from quire.strategies.private import NoisySum
from quire.strategies.rounds import Cohort, RoundState, Update, advance
from quire.strategies.server_optimizers import Adam, Momentum

UNITS = 600
SILOS = tuple(f"silo-{place}" for place in range(UNITS))
FORM = {"w": np.zeros((3, 4), np.float32), "b": np.zeros((), np.float32)}
NORMS = np.random.default_rng(5).lognormal(0.0, 0.5, UNITS)
DIRECTION = np.random.default_rng(6).normal(size=13)
DIRECTION /= np.linalg.norm(DIRECTION)


def reply(silo, norm, clip, weight=1.0):
    """What an honest silo sends whose update has that norm before clipping."""
    sent = (DIRECTION * (weight * min(norm, clip))).astype(np.float32)
    bit = np.array(0.5 if norm <= clip else -0.5)
    return Update(silo, {"w": sent[:12].reshape(3, 4), "b": sent[12].reshape(()), WITHIN: bit}, 1.0)


def replies(clip, norms=NORMS):
    return [reply(silo, norm, clip) for silo, norm in zip(SILOS, norms.tolist(), strict=True)]


def cohort(number=1, silos=SILOS):
    return Cohort(number, silos, {})


def run(rounds, clip, algorithm=None, **options):
    """Return the clips of the rounds and the last state; the norms stay the same throughout."""
    start = AdaptiveSum(clip, 1.0, **{"quantile": 0.7, "seed": 1, **options})
    state, clips = RoundState(0, FORM), []
    for number in range(1, rounds + 1):
        now = start.at(state)
        clips.append(now.client_config(cohort(number))[CLIP])
        state = advance(state, replies(now.clip), algorithm or Averaging(), now, cohort=cohort(number))
    return clips, state


def test_a_round_is_algorithm_1_of_the_paper(monkeypatch):
    """Lines 8, 9 and 10, with the noise on the bits held at zero and then at a known value."""
    for halves in (0, 60):
        monkeypatch.setattr(adaptive, "sample", lambda variance, count, source, halves=halves: np.array([halves]))
        aggregator = AdaptiveSum(1.0, 2.0, 0.7, seed=3)
        came = replies(1.0)[: UNITS - 100]  # a hundred drop out, and the denominators stay
        mean, kept = aggregator.combine(came, cohort())
        within = np.count_nonzero(NORMS[: UNITS - 100] <= 1.0)
        share = (within - (UNITS - 100) / 2 + halves / 2) / UNITS + 1 / 2
        assert float(kept[WITHIN]) == pytest.approx(share, abs=1e-15)
        assert float(kept[CLIP]) == pytest.approx(1.0 * math.exp(-0.2 * (share - 0.7)), rel=1e-14)
        assert set(mean) == set(FORM)


def test_the_updates_have_the_noise_that_pays_for_the_bits():
    z, came = 2.0, replies(0.8)
    mean = AdaptiveSum(0.8, z, 0.5, seed=3).mean(came, cohort(4))
    rest = [Update(one.silo, {name: one.arrays[name] for name in FORM}, 1.0) for one in came]
    noise = split(z, UNITS).update_noise
    assert noise > z
    expected = NoisySum(0.8, noise, seed=3).mean(rest, cohort(4))
    assert all(np.array_equal(mean[name], expected[name]) for name in FORM)


@pytest.mark.parametrize("units", [500, 1234])
def test_the_noise_on_the_bits_is_there_and_of_the_promised_size(units):
    silos = tuple(map(str, range(units)))
    came = [reply(silo, 0.5, 1.0) for silo in silos]

    def probes(**options):
        shares = [
            float(AdaptiveSum(1.0, 2.0, 0.5, **options, seed=seed).combine(came, cohort(1, silos))[1][WITHIN])
            for seed in range(150)
        ]
        return np.rint([2 * units * (share - 1.0) for share in shares]).astype(np.int64)  # in halves, noise alone

    test = ProbeTest().observe(probes(), 4 * (units / 20) ** 2)
    assert not test.alarm
    assert ProbeTest().observe(np.zeros(150, np.int64), 4 * (units / 20) ** 2).alarm


def test_noise_comes_back_with_the_seed_and_from_the_system_without():
    came = replies(1.0)

    def share(seed, number=1):
        return float(AdaptiveSum(1.0, 2.0, 0.5, seed=seed).combine(came, cohort(number))[1][WITHIN])

    assert share(4) == share(4)
    assert len({share(4), share(4, number=2), share(5)}) == 3
    assert len({share(None) for _ in range(4)}) > 1


@pytest.mark.parametrize("start", [50.0, 0.02])
@pytest.mark.parametrize("quantile", [0.3, 0.7])
def test_the_clip_moves_to_the_quantile_from_far_above_and_far_below(start, quantile):
    clips, _ = run(110, start, quantile=quantile)
    assert clips[0] == start
    settled = np.exp(np.mean(np.log(clips[-20:])))
    assert settled == pytest.approx(np.quantile(NORMS, quantile), rel=0.07)


@pytest.mark.parametrize("algorithm", [Averaging(), Momentum(), Adam()])
def test_the_clip_is_remembered_beside_what_the_algorithm_remembers(algorithm):
    clips, state = run(3, 1.0, algorithm)
    assert len(set(clips)) == 3
    own = {name for name in state.memory if name not in (CLIP, WITHIN)}
    assert not any("clip" in name for name in own)
    assert len(own) == {Averaging: 0, Momentum: 2, Adam: 4}[type(algorithm)]


def test_a_weighted_silo_has_a_whole_bit():
    """Capped weights scale updates after they were clipped; the share is one of silos, not of records."""
    records = {silo: 10 if place % 2 else 1000 for place, silo in enumerate(SILOS)}
    public = Cohort(1, SILOS, records)
    weights = [min(records[silo], 100) / 100 for silo in SILOS]
    came = [reply(silo, norm, 1.0, weight) for silo, norm, weight in zip(SILOS, NORMS, weights, strict=True)]
    capped, plain = AdaptiveSum(1.0, 2.0, 0.5, 100, seed=1), AdaptiveSum(1.0, 2.0, 0.5, seed=1)
    assert capped.combine(came, public)[1] == plain.combine(replies(1.0), cohort())[1]
    assert capped._fixed(1.0).denominator(SILOS, records) == pytest.approx(0.55 * UNITS)


@pytest.mark.parametrize("bit", [0.0, 0.49, 1.0, -1.0, 300.0, math.nan])
def test_a_bit_that_is_none_is_a_dropout(bit):
    aggregator, update = AdaptiveSum(1.0, 2.0, 0.5), reply("a", 0.5, 1.0).arrays
    assert aggregator.objection(update) is None
    assert "neither 1/2 nor -1/2" in aggregator.objection({**update, WITHIN: np.array(bit)})


def test_an_update_is_held_to_the_clip_of_its_round():
    update = reply("a", 0.9, 1.0).arrays
    aggregator = AdaptiveSum(1.0, 2.0, 0.5)
    assert aggregator.objection(update) is None
    later = aggregator.at(RoundState(1, FORM, {CLIP: np.array(0.8), WITHIN: np.array(0.5)}))
    assert later.objection(update) == "its update is longer than the clip"
    assert set(later.reply_form(FORM)) == {*FORM, WITHIN}


def test_too_few_silos_are_refused_before_any_is_asked():
    with pytest.raises(RunFailed, match="Round 3 failed: clipping=adaptive needs at least 500 units and there are 499"):
        AdaptiveSum(1.0, 2.0, 0.5).client_config(cohort(3, SILOS[:499]))


def test_a_clip_that_leaves_the_numbers_ends_the_run_in_a_sentence():
    with pytest.raises(RunFailed, match=r"Round 1 failed: The adaptive clip became inf"):
        AdaptiveSum(1.7e308, 1.0, 0.7, seed=1).combine(
            [Update("a", {**FORM, WITHIN: np.array(-0.5 * UNITS)}, 1.0)], cohort()
        )


ADAPTIVE = "task=synthetic privacy=silo privacy.delta=1e-6 privacy.clipping=adaptive strategy.fraction=1"


def test_settings_choose_the_calibrated_noise():
    settings = compose(
        f"{ADAPTIVE} partition.silos=500 privacy.epsilon=4 privacy.quantile=0.4 strategy.rounds=7 seed=3"
    )
    assert build_strategy(settings).aggregator == AdaptiveSum(1.0, silo_noise(4.0, 1e-6, 7), 0.4, None, 3)
    assert build_strategy(settings, simulated=False).aggregator.seed is None
    capped = compose(f"{ADAPTIVE} partition.silos=500 privacy.weights=capped privacy.cap=77")
    assert build_strategy(capped).aggregator.cap == 77


def test_noise_that_the_bits_cannot_share_is_refused_before_the_run():
    settings = compose(f"{ADAPTIVE} partition.silos=500 privacy.epsilon=0.05 strategy.rounds=100")
    with pytest.raises(SettingsError, match=r"needs more than 7572\.4 units and there are 500"):
        build_strategy(settings)


def test_a_journal_is_held_to_the_rule():
    clips, state = run(4, 1.0)
    shares, told = [], AdaptiveSum(1.0, 1.0, 0.7, seed=1)
    again = RoundState(0, FORM)
    for number in range(1, 5):
        now = told.at(again)
        again = advance(again, replies(now.clip), Averaging(), now, cohort=cohort(number))
        shares.append(now.released(again.memory))
    assert again.memory == state.memory
    assert [one["clip"] for one in shares] == clips
    check_clips(1.0, 0.7, shares)
    for wrong in ({**shares[1], "within": shares[1]["within"] + 1e-9}, {"clip": shares[1]["clip"]}, None):
        with pytest.raises(PrivacyError, match=r"the clip of round [23] is not the one"):
            check_clips(1.0, 0.7, [shares[0], wrong, *shares[2:]])
    with pytest.raises(PrivacyError, match="round 1"):
        check_clips(1.5, 0.7, shares)
