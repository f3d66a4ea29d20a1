"""Named streams of random numbers: reproducible, and independent of each other."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from quire.privacy.randomness import _words, derive_seed, key, stream

labels = st.lists(st.one_of(st.integers(-5, 10**6), st.text(max_size=8)), max_size=4)


def test_the_same_name_gives_the_same_numbers_whatever_was_drawn_before():
    first = stream(1, "batches", 3, "hospital-2").permutation(50)
    stream(1, "batches", 4, "hospital-2").permutation(50)
    np.random.seed(0)
    again = stream(1, "batches", 3, "hospital-2").permutation(50)
    assert (first == again).all()


def test_the_derived_seed_is_a_fixed_function():
    """Runs of an earlier version stay reproducible: changing the derivation must be a decision."""
    assert hex(derive_seed(1, "model"))[:18] == "0x9adae08904ff3858"


@given(st.integers(0, 2**40), labels, labels)
def test_different_names_give_different_seeds(seed, one, other):
    same = [(type(a), a) for a in one] == [(type(b), b) for b in other]
    assert (derive_seed(seed, *one) == derive_seed(seed, *other)) == same


def test_neither_the_split_nor_the_type_of_labels_can_be_confused():
    assert derive_seed(1, "ab", "c") != derive_seed(1, "a", "bc")
    assert derive_seed(1, "1") != derive_seed(1, 1)
    assert derive_seed(1, 2) != derive_seed(12)


def test_the_key_of_a_simulated_source_is_a_fixed_function_and_not_the_seed_of_a_stream():
    assert key(1, "noise").hex()[:16] == "394c44c506f94b93"
    assert key(1, "noise") != derive_seed(1, "noise").to_bytes(32, "big")


@given(st.one_of(st.integers(0, 2**256 - 1), st.integers(0, 2**70)))
def test_a_seed_means_what_numpy_takes_the_number_for(number):
    ours, theirs = np.random.SeedSequence(_words(number)), np.random.SeedSequence(number)
    assert (ours.generate_state(8) == theirs.generate_state(8)).all()
