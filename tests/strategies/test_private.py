"""``privacy=silo``: a public denominator, noise once on the sum, and no silo beyond its clip."""

import numpy as np
import pytest

from quire.conf.compose import compose
from quire.errors import SettingsError
from quire.privacy.dp.release import silo_noise
from quire.strategies.build import build_strategy
from quire.strategies.private import NoisySum
from quire.strategies.rounds import Cohort, Update

FORM = {"w": np.zeros((20, 50), np.float32), "b": np.zeros((), np.float32)}


def updates(silos, norm=0.5, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for silo in silos:
        arrays = {name: rng.normal(size=part.shape).astype(np.float32) for name, part in FORM.items()}
        length = np.sqrt(sum(float((part**2).sum()) for part in arrays.values()))
        made.append(Update(silo, {k: (v * norm / length).astype(np.float32) for k, v in arrays.items()}, 7.0))
    return made


def flat(arrays):
    return np.concatenate([np.asarray(arrays[name]).ravel() for name in FORM])


def test_without_noise_the_sum_is_divided_by_all_that_were_asked():
    came = updates(["a", "b"])
    mean = NoisySum(1.0, 0.0).mean(came, Cohort(1, ("a", "b", "c", "d")))
    assert flat(mean) == pytest.approx(sum(flat(one.arrays).astype(np.float64) for one in came) / 4, abs=1e-12)


def test_capped_weights_are_divided_by_the_public_weights():
    records = {"a": 10, "b": 500, "c": 100}
    assert NoisySum(1.0, 0.0, cap=100).denominator(("a", "b", "c"), records) == pytest.approx(2.1)


def test_the_noise_on_the_sum_is_the_clip_times_the_multiplier():
    came, cohort = updates(["a", "b", "c"]), Cohort(1, ("a", "b", "c"))
    plain = flat(NoisySum(1.0, 0.0).mean(came, cohort))
    noise = np.concatenate([3 * (flat(NoisySum(1.0, 2.0, seed=seed).mean(came, cohort)) - plain) for seed in range(20)])
    assert noise.std() == pytest.approx(2.0, rel=0.02)  # 20,020 draws: 2 % is four standard errors
    assert abs(noise.mean()) < 0.06


def test_noise_differs_from_round_to_round_and_comes_back_with_the_seed():
    came = updates(["a", "b"])
    one, again, next_round = (
        flat(NoisySum(1.0, 1.0, seed=4).mean(came, Cohort(number, ("a", "b")))) for number in (1, 1, 2)
    )
    assert np.array_equal(one, again)
    assert not np.array_equal(one, next_round)


def test_without_a_seed_no_two_draws_are_alike():
    came, cohort = updates(["a", "b"]), Cohort(1, ("a", "b"))
    assert not np.array_equal(flat(NoisySum(1.0, 1.0).mean(came, cohort)), flat(NoisySum(1.0, 1.0).mean(came, cohort)))


def test_an_update_beyond_the_clip_is_a_dropout():
    aggregator = NoisySum(0.5, 1.0)
    assert aggregator.objection(updates(["a"], norm=0.5)[0].arrays) is None
    assert aggregator.objection(updates(["a"], norm=0.51)[0].arrays) == "its update is longer than the clip"


def test_settings_choose_the_calibrated_noise():
    settings = compose("privacy=silo privacy.epsilon=4 privacy.delta=1e-6 privacy.clip=0.2 strategy.rounds=7 seed=3")
    aggregator = build_strategy(settings).aggregator
    assert aggregator == NoisySum(0.2, silo_noise(4.0, 1e-6, 7), None, 3)
    assert build_strategy(settings, simulated=False).aggregator.seed is None


def test_an_unreachable_target_is_one_sentence():
    with pytest.raises(SettingsError, match="No noise up to"):
        build_strategy(compose("privacy=silo privacy.epsilon=1e-9 privacy.delta=1e-6"))
