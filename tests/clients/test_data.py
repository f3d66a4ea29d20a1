"""Data sets, partitions and splits: every row in one place, the same in every process."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire import compose
from quire.clients.data.partition import partition
from quire.clients.data.silo import Rows, hold_out, split
from quire.clients.data.simulated import federation
from quire.clients.data.sklearn_sets import scale
from quire.conf.schema import DirichletPartition, IidPartition, NaturalPartition, ShardsPartition
from quire.errors import DataError
from quire.privacy.randomness import derive_seed, stream

LABELS = np.repeat([0, 1, 2], [120, 60, 20])


@pytest.mark.parametrize(
    "how",
    [IidPartition("iid", 7), DirichletPartition("dirichlet", 7, 0.5, 5), ShardsPartition("shards", 7, 2)],
    ids=lambda how: how.name,
)
def test_every_row_belongs_to_one_silo_and_the_seed_decides(how):
    parts = partition(LABELS, how, seed=4)
    assert len(parts) == 7
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(LABELS)))
    again, other = partition(LABELS, how, seed=4), partition(LABELS, how, seed=5)
    assert all((one == two).all() for one, two in zip(parts, again, strict=True))
    assert any(len(one) != len(two) or (one != two).any() for one, two in zip(parts, other, strict=True))


def test_iid_mixes_a_file_that_is_sorted_by_label():
    parts = partition(np.repeat([0, 1], 500), IidPartition("iid", 5), seed=1)
    assert all(len(part) == 200 for part in parts)
    assert all(0.35 < np.mean(part >= 500) < 0.65 for part in parts)


def test_a_small_alpha_makes_silos_that_differ():
    labels = np.repeat([0, 1], 500)

    def spread(alpha):
        parts = partition(labels, DirichletPartition("dirichlet", 5, alpha, 10), seed=1)
        return np.std([np.mean(labels[part]) for part in parts])

    assert spread(0.3) > 4 * spread(100.0)


def test_shards_give_a_silo_few_classes():
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(10), 61))
    parts = partition(labels, ShardsPartition("shards", 10, 2), seed=1)
    held = [len(np.unique(labels[part])) for part in parts]
    assert np.mean(held) < 4.5  # two shards of neighbours in sorted order, and at most one row that was left over
    assert all(len(part) == 61 for part in parts)


def test_shards_of_a_number_hold_neighbouring_values():
    values = np.random.default_rng(1).uniform(0, 1, 400).astype(np.float32)
    parts = partition(values, ShardsPartition("shards", 4, 1), seed=1)
    assert sorted(np.concatenate(parts).tolist()) == list(range(400))
    assert all(np.ptp(values[part]) < 0.35 for part in parts)


def test_a_partition_that_cannot_be_made_is_refused_in_words():
    with pytest.raises(DataError, match="20 rows do not make 5 shards for each of 5 silos"):
        partition(np.zeros(20, int), ShardsPartition("shards", 5, 5), seed=1)
    with pytest.raises(DataError, match="partition=natural shares nothing out"):
        partition(np.zeros(20, int), NaturalPartition("natural", 5), seed=1)
    with pytest.raises(DataError, match=r"No Dirichlet draw gave each of 5 silos 190 rows: raise partition\.alpha"):
        partition(np.repeat([0, 1], 500), DirichletPartition("dirichlet", 5, 0.1, 190), seed=1)
    with pytest.raises(DataError, match=r"5 rows cannot be shared out over 3 silos"):
        partition(np.zeros(5, int), IidPartition("iid", 3), seed=1)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=60), st.floats(0.05, 0.95), st.integers(0, 100))
def test_a_split_loses_no_row_and_keeps_every_class_in_training(labels, fraction, seed):
    y = np.array(labels)
    x = np.arange(len(y), dtype=np.float32)[:, None]
    parts = split(Rows(x, y), fraction, stream(seed, "split"))
    assert sorted([*parts.train.x[:, 0], *parts.test.x[:, 0]]) == list(range(len(y)))
    assert len(parts.train) >= 1
    assert len(parts.test) >= 1
    if len(parts.test) > 1:
        assert set(parts.train.y) == set(y)


def test_scaling_by_public_bounds_clips_what_lies_outside():
    low, high = np.array([0.0, 10.0]), np.array([2.0, 20.0])
    scaled = scale(np.array([[0.0, 20.0], [1.0, 15.0], [-5.0, 99.0]]), low, high)
    assert scaled.tolist() == [[-1.0, 1.0], [0.0, 0.0], [-1.0, 1.0]]
    assert scaled.dtype == np.float32


def test_breast_cancer_is_whole_scaled_and_label_1_is_malignant():
    silos = federation(compose("task=breast_cancer partition=iid"))
    y = np.concatenate([np.concatenate([silo.train.y, silo.test.y]) for silo in silos])
    x = np.concatenate([np.concatenate([silo.train.x, silo.test.x]) for silo in silos])
    assert len(y) == 569
    assert y.sum() == 212  # malignant, by the data set's description
    assert x.shape == (569, 30)
    assert np.abs(x).max() <= 1.0
    assert (x.min(axis=0) < -0.95).all()  # the description rounds its bounds to three decimals
    assert (x.max(axis=0) > 0.95).all()


@pytest.mark.parametrize(("task", "rows", "features"), [("digits", 1797, 64), ("diabetes", 442, 10)])
def test_the_other_data_sets_that_ship_are_whole_and_scaled(task, rows, features):
    silos = federation(compose(f"task={task} partition=iid"))
    y = np.concatenate([np.concatenate([silo.train.y, silo.test.y]) for silo in silos])
    x = np.concatenate([np.concatenate([silo.train.x, silo.test.x]) for silo in silos])
    assert x.shape == (rows, features)
    assert np.abs(x).max() == 1.0
    if task == "digits":
        assert set(np.unique(y)) == set(range(10))
    else:
        assert (y.min(), y.max(), y.dtype) == (-1.0, 1.0, np.float32)
        assert len(np.concatenate([silo.test.y for silo in silos])) == pytest.approx(0.2 * rows, abs=5)


def test_synthetic_silos_have_the_size_that_the_benchmark_states():
    silos = federation(compose("task=synthetic"))
    assert len(silos) == 100
    assert {len(silo.train) + len(silo.test) for silo in silos} == {75}
    assert 58 <= np.mean([len(silo.train) for silo in silos]) <= 62
    assert silos[0].train.x.shape[1] == 784


def test_validation_rows_come_out_of_the_training_rows_and_leave_the_test_rows_alone():
    plain = federation(compose("task=breast_cancer partition=iid"))
    held = federation(compose("task=breast_cancer partition=iid data.validation_fraction=0.25"))
    for before, after in zip(plain, held, strict=True):
        assert before.validation is None
        assert before.scored is before.test
        assert after.scored is after.validation
        assert np.array_equal(before.test.x, after.test.x)
        assert len(after.train) + len(after.validation) == len(before.train)
        assert len(after.validation) == pytest.approx(0.25 * len(before.train), abs=2)
        both = np.concatenate([after.train.x, after.validation.x])
        assert np.array_equal(np.unique(both, axis=0), np.unique(before.train.x, axis=0))


def test_a_single_training_row_cannot_be_kept_for_validation():
    rows = Rows(np.zeros((2, 1), np.float32), np.array([0, 1]))
    silo = split(rows, 0.5, stream(1, "split"))
    assert hold_out(silo, 0.0, stream(1, "validation")) is silo
    with pytest.raises(DataError, match="cannot keep any for validation"):
        hold_out(silo, 0.5, stream(1, "validation"))


@pytest.mark.parametrize(("rows", "silos"), [(100, 7), (800, 100), (13, 6)])
def test_the_even_draw_is_that_of_flwr_datasets(rows, silos):
    from datasets import Dataset
    from flwr_datasets.partitioner import IidPartitioner

    theirs = IidPartitioner(num_partitions=silos)
    seed = derive_seed(5, "partition") % 2**32
    theirs.dataset = Dataset.from_dict({"place": list(range(rows))}).shuffle(seed=seed)
    for silo, part in enumerate(partition(np.zeros(rows, int), IidPartition("iid", silos), seed=5)):
        assert part.tolist() == sorted(theirs.load_partition(silo)["place"])
