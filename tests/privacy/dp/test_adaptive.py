"""Adaptive clipping: what its bits cost, when it is refused, where it settles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quire.privacy.dp.accounting import rdp
from quire.privacy.dp.adaptive import centred_bit, next_clip, noisy_share, split
from quire.privacy.dp.contract import PrivacyError
from quire.privacy.dp.events import Gaussian


@given(st.floats(0.1, 20), st.integers(500, 10**6))
def test_both_releases_together_cost_what_one_was_charged(noise: float, units: int) -> None:
    shares = split(noise, units)
    assert shares.update_noise > noise * (1 - 1e-12)
    bits = Gaussian(2 * shares.bit_noise)  # noise over the sensitivity 1/2
    assert np.allclose(rdp(Gaussian(shares.update_noise)) + rdp(bits), rdp(Gaussian(noise)), rtol=1e-9)


def test_the_surcharges_measured_for_the_design() -> None:
    assert split(1.0, 500).update_noise == pytest.approx(1.0002, abs=5e-5)
    assert split(2.0, 500).update_noise / 2 == pytest.approx(1.0008, abs=5e-5)


def test_few_units_are_refused_with_the_reason() -> None:
    with pytest.raises(PrivacyError, match=r"at least 500 units and there are 10.*clipping=fixed"):
        split(1.0, 10)
    with pytest.raises(PrivacyError, match="more than 600 units"):
        split(60.0, 500)
    with pytest.raises(PrivacyError, match="above 0"):
        split(0.0, 500)


def test_the_clip_settles_at_the_quantile() -> None:
    random = np.random.default_rng(7)
    norms = random.lognormal(0.0, 0.5, size=2000)
    clip = 50.0
    for _ in range(300):
        bits = sum(centred_bit(norm, clip) for norm in norms.tolist())
        clip = next_clip(clip, noisy_share(bits, random.normal(0, 100), 2000), 0.7)
    assert clip == pytest.approx(np.quantile(norms, 0.7), rel=0.1)


def test_the_share_counts_absent_units_as_half() -> None:
    assert noisy_share(0.0, 0.0, 600) == 0.5
    assert noisy_share(300.0, 0.0, 600) == 1.0
    assert noisy_share(-300.0, -6.0, 600) == pytest.approx(-0.01)


def test_what_is_no_number_does_not_move_the_clip() -> None:
    assert centred_bit(math.nan, 1.0) == -0.5
    with pytest.raises(PrivacyError, match="no number"):
        next_clip(1.0, math.nan, 0.5)
    with pytest.raises(PrivacyError, match="became"):
        next_clip(1e308, -1e6, 0.5)
