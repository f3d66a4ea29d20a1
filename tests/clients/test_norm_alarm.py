"""The aggregate-norm alarm: no honest sum raises it, whatever the data; what no honest silo adds does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from chain_sums import BY_SILO, SHARED, honest_sum, model_of, run_of
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.clients import contract
from quire.clients.secure.agreement import Agreement
from quire.clients.secure.chain import Path, follow
from quire.privacy.csprng import Csprng
from quire.privacy.dp.encoding import Encoding
from quire.privacy.dp.plausible import BeyondHonest
from quire.privacy.dp.plausible import largest_norm as largest_shared
from quire.privacy.dp.rounding import EncodingError
from quire.privacy.dp.shares import add_share, words
from quire.privacy.dp.wire import centred, to_ring
from quire.privacy.secagg.errors import ImplausibleSum
from quire.privacy.secagg.plausible import check_sum, largest_norm
from quire.strategies.rounds import RoundState

CLIPPED = [
    "aggregation.norm_bound=0.3",
    "aggregation.norm_bound=2.5 aggregation.bits=16 aggregation.rotation=true",
    "aggregation.norm_bound=1e-3 aggregation.bits=32 strategy=fedadam",
]
NOISY = [SHARED, BY_SILO, f"{SHARED} aggregation.rotation=true"]


def share(agreement: Agreement, vector: np.ndarray, rows: int, coin: Csprng) -> np.ndarray:
    """What an honest silo adds whose training came to this vector."""
    if isinstance(agreement.point, Encoding):
        return add_share(agreement.point, words(agreement.point, vector, coin)[0], coin)
    update = {"w": vector[:21].reshape(7, 3).astype(np.float32), "a": vector[21:].astype(np.float32)}
    return agreement.encode(update, rows, {contract.TRAIN_LOSS: 0.5}, coin).words


def body_of(agreement: Agreement, total: np.ndarray) -> np.ndarray:
    point = agreement.point
    size = point.rounded if isinstance(point, Encoding) else point.body
    return centred(total, point.bits)[:size].astype(np.float64)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_no_honest_sum_raises_it_whoever_survives_and_however_long_their_updates(data: st.DataObject) -> None:
    """All aligned and as long as float32 goes, or hardly anything: silos clip, and the sum knows how many it has."""
    agreement, _ = run_of(data.draw(st.sampled_from(CLIPPED + NOISY)))
    source = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    silos = data.draw(st.integers(1, 5))
    direction = source.normal(size=agreement.layout.size)
    total = np.zeros(agreement.point.length, np.uint32)
    for _ in range(silos):
        length, rows = data.draw(st.sampled_from([1e-9, 0.1, 1e30])), data.draw(st.sampled_from([1, 7, 10**9]))
        vector = direction * length
        if isinstance(agreement.point, Encoding) and agreement.terms.step < 0:  # gradients of a batch, each clipped
            vector = direction / np.linalg.norm(direction) * agreement.point.clip * min(length, 18.0)
        total += share(agreement, vector, rows, Csprng(source.bytes(32)))
    assert 0.0 <= agreement.check(total, silos) <= 1.0


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_one_silo_without_bounds_raises_it_whatever_the_others_add(data: st.DataObject) -> None:
    """Longer than twice what all may come to: the others cannot make up for it."""
    agreement, _ = run_of(data.draw(st.sampled_from(CLIPPED + NOISY)))
    source = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    point = agreement.point
    total = honest_sum(agreement, int(source.integers(2**31)))
    if isinstance(point, Encoding):
        assert agreement.terms.noise is not None
        most = largest_shared(agreement.terms.noise, point, 5)
    else:
        assert agreement.terms.norm_bound is not None
        most = largest_norm(point, point.decode(total).weight, 5, agreement.terms.norm_bound)
    size = point.rounded if isinstance(point, Encoding) else point.body
    attack = source.normal(size=size)
    attack *= data.draw(st.floats(2.01, 2.5)) * most / np.linalg.norm(attack)
    room = 2 ** (point.bits - 1) - 1 - np.abs(body_of(agreement, total)).max()
    assert np.abs(attack).max() < room  # else the sum wraps around, and may be short
    bad = total.copy()
    bad[:size] += to_ring(np.trunc(attack).astype(np.int64))
    with pytest.raises(BeyondHonest, match="times as long as"):
        agreement.check(bad, 5)


@pytest.mark.parametrize("more", CLIPPED + NOISY)
def test_who_stays_just_below_it_passes_and_takes_all_that_there_is_room_for(more: str) -> None:
    """The alarm bounds where the mean can go, not what one silo's part of that is. The documentation says so."""
    agreement, _ = run_of(more)
    point, total = agreement.point, honest_sum(agreement, 3)
    body = body_of(agreement, total)
    if isinstance(point, Encoding):
        assert agreement.terms.noise is not None
        most = largest_shared(agreement.terms.noise, point, 5)
    else:
        assert agreement.terms.norm_bound is not None
        most = largest_norm(point, point.decode(total).weight, 5, agreement.terms.norm_bound)
    aim = np.zeros(len(body))
    aim[:16] = 0.25  # of few coordinates, so that whole numbers come close
    for factor, raised in ((0.99, False), (1.01, True)):
        integers = centred(total, point.bits)
        integers[: len(body)] = np.trunc(aim * most * factor)
        if raised:
            with pytest.raises(BeyondHonest):
                agreement.check(to_ring(integers), 5)
        else:
            assert agreement.check(to_ring(integers), 5) == pytest.approx(0.99, abs=0.02)
    mean = np.concatenate([part.ravel() for part in agreement.decode(to_ring(integers))[0].values()])
    if agreement.terms.norm_bound is not None:  # as long as one honest silo's update may be, but for rounding
        slack = 5 * math.sqrt(len(body)) * point.max_weight / (point.scale * point.decode(total).weight)  # type: ignore[union-attr]
        assert np.linalg.norm(mean) <= 1.02 * (agreement.terms.norm_bound + slack)


@pytest.mark.parametrize("more", NOISY + CLIPPED)
def test_fewer_silos_may_come_to_less(more: str) -> None:
    agreement, _ = run_of(more)
    total = honest_sum(agreement, 5)
    reached = [agreement.check(total, silos) for silos in (4, 5)]
    assert reached[0] >= reached[1] == agreement.check(total)  # of all that are asked, where nothing else is said
    for silos in (0, 6):
        with pytest.raises(EncodingError, match="cannot be in a sum of which 5 are asked"):
            agreement.check(total, silos)


def test_a_silo_holds_a_sum_against_as_many_silos_as_it_is_told_to_be_in_it() -> None:
    """All five at the clip, told as five and as four: the same words, and the server cannot have both."""
    agreement, algorithm = run_of("aggregation.norm_bound=0.3")
    coin, total = Csprng(bytes(32)), np.zeros(agreement.point.length, np.uint32)
    for _ in range(5):
        total += share(agreement, np.ones(26), agreement.terms.max_weight, coin)
    state = RoundState(0, model_of())
    follow(agreement, algorithm, Path(1, state, 2, {1: total}, {1: 5}), None)
    with pytest.raises(ImplausibleSum, match="4 silos do not weigh"):
        follow(agreement, algorithm, Path(1, state, 2, {1: total}, {1: 4}), None)


def test_rows_that_are_declared_bound_what_the_largest_silos_could_come_to_together() -> None:
    """500 rows in all, and as many at the largest silo, since nobody said otherwise: not five times as many in all."""
    noise = run_of(SHARED)[0].terms.noise
    skewed = run_of(SHARED.replace("largest=100", "largest=500"))[0]
    assert noise is not None
    assert skewed.terms.noise is not None
    assert skewed.terms.noise.batch > 4 * noise.batch
    assert isinstance(skewed.point, Encoding)
    lengths = largest_shared(skewed.terms.noise, skewed.point, 5) / skewed.point.scale
    alike = run_of(SHARED)[0]
    assert isinstance(alike.point, Encoding)
    assert lengths < 1.3 * largest_shared(noise, alike.point, 5) / alike.point.scale


def test_weights_that_vanish_are_an_attack_and_silos_that_add_nothing_are_none() -> None:
    agreement, _ = run_of("aggregation.norm_bound=0.3")
    nothing = agreement.nothing()
    with pytest.raises(EncodingError, match="no mean") as caught:
        agreement.check(nothing, 5)
    assert not isinstance(caught.value, BeyondHonest)
    nothing[0] = 1
    with pytest.raises(BeyondHonest, match="its weights sum to nothing"):
        agreement.check(nothing, 5)


def test_without_a_bound_on_the_norm_each_coordinate_may_be_at_its_own() -> None:
    """What the fixed-point range allows, and no more is promised: the square root of the dimension times the bound."""
    agreement, _ = run_of("")
    source = Csprng(bytes(32))
    update = {"w": np.full((7, 3), 1e9, np.float32), "a": np.full(5, -1e9, np.float32)}
    total = sum((agreement.encode(update, 7, {contract.TRAIN_LOSS: 0.0}, source).words for _ in range(5)), np.uint32(0))
    assert agreement.check(np.asarray(total), 5) == pytest.approx(1.0, abs=1e-3)
    assert check_sum(agreement.point, np.asarray(total), 5, 4.0 * math.sqrt(26)) <= 1.0  # type: ignore[arg-type]
    with pytest.raises(BeyondHonest):
        check_sum(agreement.point, np.asarray(total), 5, 3.9 * math.sqrt(26))  # type: ignore[arg-type]
