"""The watermark: there when it was put in, nowhere else, and counted for what it is."""

from __future__ import annotations

import contextlib
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.clients.identity import IdentityFileError
from quire.releases.errors import WatermarkError
from quire.releases.marks import MarkKey
from quire.releases.watermark import (
    BITS,
    MARGIN,
    THRESHOLD,
    WEIGHTS_PER_BIT,
    Found,
    Layer,
    commitment,
    embed,
    read_mark,
)

SEED = b"s" * 32


def model(seed=1, kind=np.float32, width=64):
    draw = np.random.default_rng(seed)
    return {
        "0.weight": (0.1 * draw.standard_normal((width, 48))).astype(kind),
        "0.bias": draw.standard_normal(width).astype(kind),
        "2.weight": draw.standard_normal((10, width)).astype(kind),
        "steps": np.arange(4),
    }


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_what_was_put_in_is_read_and_nothing_but_weights_is_touched(kind):
    plain = model(kind=kind)
    before = {name: array.copy() for name, array in plain.items()}
    marked, layers = embed(plain, SEED)
    assert read_mark(marked, SEED, layers) == Found(BITS, BITS)
    assert all(np.array_equal(plain[name], before[name]) for name in plain)
    assert {name for name in plain if not np.array_equal(plain[name], marked[name])} == {"0.weight", "2.weight"}
    assert {name: (array.dtype, array.shape) for name, array in marked.items()} == {
        name: (array.dtype, array.shape) for name, array in plain.items()
    }


def test_the_change_is_about_the_smallest_that_does_it():
    """Against the closed form for orthogonal projections: sqrt(bits * E[max(0, margin - z)^2] / weights), z normal."""
    plain = model(width=256)
    marked, layers = embed(plain, SEED)
    moved = sum(float(np.sum(((marked[one.name] - plain[one.name]) / one.scale) ** 2)) for one in layers)
    density, below = math.exp(-(MARGIN**2) / 2) / math.sqrt(2 * math.pi), 0.5 * (1 + math.erf(MARGIN / math.sqrt(2)))
    assert moved == pytest.approx(BITS * ((1 + MARGIN**2) * below + MARGIN * density), rel=0.25)


def test_wrong_keys_read_chance():
    marked, layers = embed(model(), SEED)
    matching = [read_mark(marked, number.to_bytes(32, "big"), layers).matching for number in range(400)]
    assert not any(Found(one, BITS).holds for one in matching)
    assert abs(np.mean(matching) - BITS / 2) < 4 * math.sqrt(BITS / 4 / 400)
    assert np.var(matching) == pytest.approx(BITS / 4, rel=0.35)


def test_another_model_that_was_trained_alike_does_not_hold_it():
    _, layers = embed(model(1), SEED)
    assert not read_mark(model(2), SEED, layers).holds


@settings(max_examples=65, deadline=None)
@given(st.integers(0, BITS))
def test_the_p_value_is_the_binomial_tail(matching):
    found = Found(matching, BITS)
    exact = sum(Fraction(math.comb(BITS, count), 2**BITS) for count in range(matching, BITS + 1))
    assert found.p_value == pytest.approx(float(exact), rel=1e-12)
    assert found.holds == (matching >= 56)
    assert Found(56, BITS).p_value < THRESHOLD < Found(55, BITS).p_value


def test_small_models_and_weights_that_are_no_numbers_are_refused():
    least = BITS * WEIGHTS_PER_BIT
    rng = np.random.default_rng(1)
    embed({"w": rng.standard_normal((least // 64, 64))}, SEED)
    with pytest.raises(WatermarkError, match="too small"):
        embed({"w": rng.standard_normal((least // 64 - 1, 64)), "b": np.ones(5000)}, SEED)
    with pytest.raises(WatermarkError, match="too small"):
        embed({"w": np.zeros((100, 100))}, SEED)
    for wrong in (np.nan, np.inf):
        with pytest.raises(WatermarkError, match="not finite"):
            embed({"w": np.full((100, 100), wrong)}, SEED)


def test_another_kind_of_model_cannot_be_read():
    marked, layers = embed(model(), SEED)
    for changed in (
        {"0.weight": marked["0.weight"]},
        {**marked, "2.weight": marked["2.weight"].T},
        {**marked, "2.weight": np.full((10, 64), np.nan)},
        {**marked, "2.weight": np.zeros((10, 64), np.complex64)},
    ):
        with pytest.raises(WatermarkError):
            read_mark(changed, SEED, layers)


def test_a_key_comes_back_from_its_file_as_it_was(tmp_path):
    _, layers = embed(model(), SEED)
    key = MarkKey(SEED, layers, "ab" * 32)
    path = tmp_path / "heart.watermark"
    key.write(path)
    assert MarkKey.read(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert SEED.hex() not in repr(key)
    assert key.commitment == commitment(SEED) != commitment(b"t" * 32)
    with pytest.raises(IdentityFileError, match="exists already"):
        key.write(path)
    path.chmod(0o640)
    with pytest.raises(IdentityFileError, match="chmod 600"):
        MarkKey.read(path)


def test_a_layer_whose_name_cannot_be_written_is_said(tmp_path):
    _, layers = embed({"größe": np.random.default_rng(1).standard_normal((64, 64))}, SEED)
    with pytest.raises(WatermarkError, match="printable ASCII"):
        MarkKey(SEED, layers, "ab" * 32).write(tmp_path / "key")
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_bytes_are_more_than_no_key(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("keys") / "key"
    MarkKey(SEED, (Layer("0.weight", (32, 64), 0.1), Layer("2.weight", (64, 10), 1.5)), "ab" * 32).write(path)
    good = path.read_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    changed = data.draw(st.one_of(st.just(good[:at] + bytes([good[at] ^ 2]) + good[at + 1 :]), st.binary(max_size=200)))
    path.write_bytes(changed)
    with contextlib.suppress(WatermarkError):
        MarkKey.read(path)  # another seed, or another name of a layer, is another key
